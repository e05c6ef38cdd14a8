"""Kubernetes quantities in the one form that the API writes back.

The API server's Go types write `1.5` as `1500m` and `1024Mi` as `1Gi`. A manifest that says it
otherwise differs from the cluster for ever, and Argo CD shows it as out of sync.
"""

import math
import re
from decimal import Decimal

from trimgate.errors import InvalidInput

_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_FORM = re.compile(r"([+-]?)(\d+\.?\d*|\.\d+)([KMGTPE]i|[numkMGTPE]?)")


def canonical(quantity: str | int | float) -> str:
    """A quantity as the API server would write it.

    Args:
        quantity: Such as `1.5`, `1500m`, `1024Mi` or 2.

    Raises:
        InvalidInput: It is no quantity, negative, or has an exponent.
    """
    match = _FORM.fullmatch(str(quantity))
    if match is None or match[1] == "-" or isinstance(quantity, bool):
        raise InvalidInput(
            "is not a quantity of Kubernetes", key="quantity", value=quantity,
            mend="write it like 500m, 2, 512Mi or 1Gi",
        )  # fmt: skip
    number, unit = Decimal(match[2]), match[3]
    if unit in _BINARY:
        value = number * 1024 ** _BINARY[unit]
        if value == value.to_integral_value() and value >= 1024:
            for suffix, power in reversed(_BINARY.items()):
                if value % 1024**power == 0:
                    return f"{int(value) // 1024**power}{suffix}"
            return str(int(value))
    else:
        value = number.scaleb(_DECIMAL[unit])
    if value == 0:
        return "0"
    for suffix, power in reversed(_DECIMAL.items()):
        scaled = value.scaleb(-power)
        if scaled == scaled.to_integral_value():
            return f"{int(scaled)}{suffix}"
    return f"{math.ceil(value.scaleb(9))}n"


def cpu(cores: float) -> str:
    """Cores as a quantity, rounded up to a thousandth."""
    return canonical(f"{math.ceil(round(cores * 1000, 6))}m")


def memory(size: float, *, step: int = 16) -> str:
    """Bytes as a quantity, rounded up to `step` MiB."""
    return canonical(f"{math.ceil(size / 2**20 / step) * step}Mi")
