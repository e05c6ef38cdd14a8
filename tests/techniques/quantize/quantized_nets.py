"""Modules that the tests of `quantize` train with rounding."""

from typing import Any

import torch
from torch import nn


class ResidualNet(nn.Module):
    """A convolutional network with batch norms, a residual, and one norm that no layer precedes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.second_norm = nn.BatchNorm2d(width)
        self.before = nn.BatchNorm2d(width)
        self.last = nn.Linear(width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits `(rows, 10)` of images `(rows, 1, 8, 8)`."""
        hidden = torch.relu(self.first_norm(self.first(image)))
        hidden = torch.relu(hidden + self.second_norm(self.second(hidden)))
        hidden = self.before(nn.functional.max_pool2d(hidden, 2))
        scores: torch.Tensor = self.last(hidden.mean((2, 3)))
        return scores


def residual(width: int = 16) -> nn.Module:
    """The network above."""
    return ResidualNet(width)


def dense(width: int = 32) -> nn.Module:
    """A network of linear layers for rows of 64 numbers."""
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def pooled(**_: Any) -> nn.Module:
    """A module with nothing to quantize."""
    return nn.Sequential(nn.AdaptiveAvgPool2d((2, 5)), nn.Flatten(), nn.LayerNorm(10))
