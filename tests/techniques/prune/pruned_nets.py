"""Builders of small networks, as a user's package has them."""

import torch
from torch import nn


def mlp(hidden: int = 48, features: int = 30, classes: int = 2) -> nn.Module:
    return nn.Sequential(
        nn.Linear(features, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )


def regressor(features: int = 10) -> nn.Module:
    return nn.Sequential(nn.Linear(features, 32), nn.ReLU(), nn.Linear(32, 1))


def cnn(width: int = 16) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * 16, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


class Block(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.down = (
            nn.Identity()
            if stride == 1 and channels == out
            else nn.Sequential(
                nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.down(x))


class ResNet(nn.Module):
    def __init__(self, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.blocks = nn.Sequential(
            Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 2 * width, 1)
        )
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))


def resnet(width: int = 16) -> nn.Module:
    return ResNet(width)


def mobile() -> nn.Module:
    """Depthwise and grouped convolutions, group norm, probabilities as output."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.Conv2d(32, 32, 3, padding=1, groups=32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, stride=2, groups=4),
        nn.GroupNorm(8, 32),
        nn.PReLU(32),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
        nn.Softmax(dim=1),
    )


class FixedView(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, padding=1)
        self.head = nn.Linear(16 * 64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x).view(-1, 16 * 64))


def fixed_view() -> nn.Module:
    return FixedView()


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, batch_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x[:, 0])[0][:, -1])


def recurrent() -> nn.Module:
    return Recurrent()


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


class Bottleneck(nn.Module):
    """As in ResNet-50."""

    def __init__(self, channels: int, inner: int, stride: int) -> None:
        super().__init__()
        out = 4 * inner
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = (
            nn.Identity()
            if stride == 1 and channels == out
            else nn.Sequential(
                nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet50(nn.Module):
    """The stages of ResNet-50, each of three blocks."""

    def __init__(self, width: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels = width
        for number in range(3):
            inner = width * 2**number
            blocks = [Bottleneck(channels, inner, 2 if number else 1)]
            channels = 4 * inner
            blocks += [Bottleneck(channels, inner, 1) for _ in range(2)]
            setattr(self, f"layer{number + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def resnet50(width: int = 8) -> nn.Module:
    return ResNet50(width)


class Inverted(nn.Module):
    """An inverted residual with a depthwise convolution, as in EfficientNet-Lite."""

    def __init__(self, channels: int, out: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = channels * expand
        self.keeps = stride == 1 and channels == out
        self.expand = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn0 = nn.BatchNorm2d(inner)
        self.depthwise = nn.Conv2d(
            inner, inner, 3, stride=stride, padding=1, groups=inner, bias=False
        )
        self.bn1 = nn.BatchNorm2d(inner)
        self.project = nn.Conv2d(inner, out, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.relu6(self.bn0(self.expand(x)))
        y = nn.functional.relu6(self.bn1(self.depthwise(y)))
        y = self.bn2(self.project(y))
        return x + y if self.keeps else y


class EfficientNetLite(nn.Module):
    def __init__(self, width: int, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 2 * width, 3, padding=1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU6()
        )
        self.blocks = nn.ModuleList(
            [
                Inverted(2 * width, width, 1, 1),
                Inverted(width, 2 * width, 2, 6),
                Inverted(2 * width, 2 * width, 1, 6),
                Inverted(2 * width, 2 * width, 1, 6),
                Inverted(2 * width, 4 * width, 2, 6),
                Inverted(4 * width, 4 * width, 1, 6),
            ]
        )
        self.head = nn.Sequential(nn.Conv2d(4 * width, 128, 1), nn.BatchNorm2d(128), nn.ReLU6())
        self.fc = nn.Linear(128, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.fc(self.head(x).mean(dim=(2, 3)))


def efficientnet(width: int = 16) -> nn.Module:
    return EfficientNetLite(width)


class Flat(nn.Module):
    """Blocks of one shape that add nothing to what they are given."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(PlainBlock(1), PlainBlock(16), PlainBlock(16))
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(x).mean(dim=(2, 3)))


class PlainBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 16, 3, padding=1)
        self.bn = nn.BatchNorm2d(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.bn(self.conv(x)))


def flat() -> nn.Module:
    return Flat()
