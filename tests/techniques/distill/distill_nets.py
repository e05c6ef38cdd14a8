"""Builders of networks of any width, as a user's package has them."""

from torch import nn


def mlp(hidden: int = 32, features: int = 10, classes: int = 2) -> nn.Module:
    return nn.Sequential(
        nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(0.1),
        nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes),
    )  # fmt: skip


def regressor(hidden: int = 32, features: int = 10) -> nn.Module:
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 1))


def cnn(width: int = 16, classes: int = 4, softmax: bool = False) -> nn.Module:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()),
        nn.Sequential(nn.Conv2d(width, width, 3, padding=1, stride=2), nn.ReLU()),
        nn.Sequential(nn.Conv2d(width, width, 3, padding=1, stride=2), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
        *([nn.Softmax(dim=1)] if softmax else []),
    )


def wrong_classes() -> nn.Module:
    return cnn(8, classes=3)
