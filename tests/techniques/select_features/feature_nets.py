"""Builders of small networks on tables, as a user's package has them."""

from torch import nn


def mlp(features: int = 30, hidden: int = 24, classes: int = 2) -> nn.Module:
    return nn.Sequential(
        nn.Linear(features, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )


def normed(features: int = 30, hidden: int = 24, classes: int = 2) -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(features), mlp(features, hidden, classes))


def regressor(features: int = 10) -> nn.Module:
    return nn.Sequential(nn.Linear(features, 16), nn.ReLU(), nn.Linear(16, 1))


def picture(size: int = 8) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(size * size, 2))
