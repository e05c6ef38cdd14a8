"""A dense network for tables."""

from torch import Tensor, nn


class Mlp(nn.Module):
    """Dense layers with ReLU; the first batch normalization takes the columns to one scale."""

    def __init__(self, features: int, hidden: list[int], classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.BatchNorm1d(features)]
        for given, made in zip([features, *hidden], hidden, strict=False):
            layers += [nn.Linear(given, made), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden[-1], classes))

    def forward(self, rows: Tensor) -> Tensor:
        """Maps `(rows, features)` to logits `(rows, classes)`."""
        return self.layers(rows)


def mlp(features: int, hidden: list[int], classes: int = 2) -> Mlp:
    """An untrained network.

    Args:
        features: Columns of the table.
        hidden: Width of each hidden layer.
        classes: Of the labels.
    """
    return Mlp(features, hidden, classes)
