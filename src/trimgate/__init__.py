"""trimgate: trim the model, pass the gate.

Makes a trained model faster, smaller and cheaper, proves that it is still as good, and rolls
the winner out.
"""

import os

# ONNX Runtime (since 1.29), MLflow and OpenVINO report their use to their makers unless told not
# to. Nothing of trimgate's calls out; who wants it sets the variables before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

__version__ = "0.1.0"
