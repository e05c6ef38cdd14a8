"""trimgate: trim the model, pass the gate.

Makes a trained model faster, smaller and cheaper, proves that it is still as good, and rolls
the winner out.
"""

__version__ = "0.1.0"
