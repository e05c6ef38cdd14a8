"""Small helpers to write nodes into skl2onnx's container."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

ML = "ai.onnx.ml"


@dataclass(frozen=True)
class Writer:
    """Writes nodes of one operator.

    Attributes:
        scope: skl2onnx's scope, which gives unique names.
        container: skl2onnx's container, which takes the nodes.
        dtype: NumPy type of all numeric tensors of this conversion, `float32` or `float64`.
    """

    scope: Any
    container: Any
    dtype: Any

    def node(self, kind: str, inputs: list[str], output: str | None = None, **attrs: Any) -> str:
        """Adds a node with one output and returns the output's name."""
        output = output or self.scope.get_unique_variable_name(kind.lower())
        self.container.add_node(
            kind, inputs, [output], name=self.scope.get_unique_operator_name(kind), **attrs
        )
        return output

    def constant(self, value: Any) -> str:
        """Adds an initializer and returns its name."""
        from onnx import numpy_helper

        name: str = self.scope.get_unique_variable_name("constant")
        tensor = numpy_helper.from_array(np.asarray(value), name)
        self.container.initializers.append(tensor)
        return name

    def cast(self, name: str, dtype: Any = None, output: str | None = None) -> str:
        """Casts to the conversion's type, or to the given NumPy type."""
        import onnx

        to = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype if dtype is None else dtype))
        return self.node("Cast", [name], output, to=to)

    def column(self, variable: Any, position: int) -> str:
        """Column `position` of a variable `(rows, n)`, as `(rows, 1)`."""
        name: str = variable.full_name
        if width(variable) == 1:
            return name
        return self.node("Gather", [name, self.constant(np.array([position]))], axis=1)

    def columns(self, variables: list[Any]) -> list[tuple[str, Any]]:
        """Every column of the variables in order: its name and the variable it is of."""
        return [(self.column(v, p), v) for v in variables for p in range(width(v))]

    def matrix(self, variables: list[Any]) -> str:
        """All numeric variables side by side in the conversion's type."""
        parts = [self.cast(v.full_name) for v in variables]
        return parts[0] if len(parts) == 1 else self.node("Concat", parts, axis=1)


def width(variable: Any) -> int:
    """Number of columns of a skl2onnx variable.

    Raises:
        NotImplementedError: It is not known.
    """
    shape = variable.type.shape
    if len(shape) != 2 or not isinstance(shape[1], int):
        raise NotImplementedError(f"the number of columns of {variable.raw_name} is not known")
    return int(shape[1])


def is_text(variable: Any) -> bool:
    """Whether a skl2onnx variable holds strings."""
    return type(variable.type).__name__ == "StringTensorType"


def numeric_type(dtype: Any, columns: int | None) -> Any:
    """skl2onnx's type of a numeric tensor `(rows, columns)`."""
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    kind = DoubleTensorType if np.dtype(dtype) == np.float64 else FloatTensorType
    return kind([None, columns])
