"""Small convolutional networks and transformers of images, one of each well-known kind.

All take `(rows, 3, 32, 32)` and give logits of four classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 4


def _conv(given: int, made: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(given, made, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(made),
    )


class Head(nn.Module):
    """Global average pooling and one dense layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dense = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x.mean(dim=(2, 3)))


class Excite(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels // 4, 1)
        self.up = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = functional.relu(self.down(functional.adaptive_avg_pool2d(x, 1)))
        return x * functional.hardsigmoid(self.up(squeezed))


class Inverted(nn.Module):
    """Widen, filter each channel by itself, perhaps excite, narrow."""

    def __init__(self, given: int, made: int, stride: int, excite: bool) -> None:
        super().__init__()
        inner = 4 * given
        act: type[nn.Module] = nn.Hardswish if excite else nn.ReLU6
        self.body = nn.Sequential(
            _conv(given, inner, 1), act(), _conv(inner, inner, 3, stride, inner), act(),
            Excite(inner) if excite else nn.Identity(), _conv(inner, made, 1),
        )  # fmt: skip
        self.skip = stride == 1 and given == made

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.skip else self.body(x)


def _mobilenet(excite: bool) -> nn.Module:
    return nn.Sequential(
        _conv(3, 8, 3, 2), nn.ReLU6(), Inverted(8, 16, 2, excite), Inverted(16, 16, 1, excite),
        Inverted(16, 16, 1, excite), _conv(16, 32, 1), nn.ReLU6(), Head(32),
    )  # fmt: skip


def mobilenet_v2() -> nn.Module:
    """Depthwise convolutions (Sandler et al., 2018)."""
    return _mobilenet(excite=False)


def mobilenet_v3() -> nn.Module:
    """The same with squeeze and excitation, and hard swish (Howard et al., 2019)."""
    return _mobilenet(excite=True)


def vgg() -> nn.Module:
    """Plain convolutions, flattened into dense layers (Simonyan and Zisserman, 2014)."""
    return nn.Sequential(
        _conv(3, 8), nn.ReLU(), nn.MaxPool2d(2), _conv(8, 16), nn.ReLU(), nn.MaxPool2d(2),
        _conv(16, 32), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(512, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, CLASSES),
    )  # fmt: skip


class Dense(nn.Module):
    """Puts what it makes beside what it was given."""

    def __init__(self, given: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(given), nn.ReLU(), nn.Conv2d(given, 16, 1, bias=False),
            nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, growth, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], dim=1)


def densenet() -> nn.Module:
    """Concatenated features (Huang et al., 2016)."""
    return nn.Sequential(
        _conv(3, 16, 3, 2), nn.ReLU(), Dense(16, 8), Dense(24, 8), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 16, 1, bias=False), nn.AvgPool2d(2), Dense(16, 8), Dense(24, 8),
        nn.BatchNorm2d(32), nn.ReLU(), Head(32),
    )  # fmt: skip


class Shuffled(nn.Module):
    """Works on one half of the channels, and shuffles both halves."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.body = nn.Sequential(
            _conv(half, half, 1), nn.ReLU(), _conv(half, half, 3, 1, half), _conv(half, half, 1),
            nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        x = torch.cat([first, self.body(second)], dim=1)
        rows, channels, height, width = x.shape
        return x.view(rows, 2, channels // 2, height, width).transpose(1, 2).flatten(1, 2)


def shufflenet() -> nn.Module:
    """Channel shuffle (Ma et al., 2018)."""
    blocks = [Shuffled(32) for _ in range(4)]
    return nn.Sequential(_conv(3, 32, 3, 2), nn.ReLU(), nn.Sequential(*blocks), Head(32))


class Grouped(nn.Module):
    """A bottleneck of grouped convolutions with squeeze and excitation."""

    def __init__(self, given: int, made: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(given, made, 1), nn.ReLU(), _conv(made, made, 3, stride, made // 8), nn.ReLU(),
            Excite(made), _conv(made, made, 1),
        )  # fmt: skip
        same = given == made and stride == 1
        self.shortcut = nn.Identity() if same else _conv(given, made, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


def regnet() -> nn.Module:
    """Grouped convolutions (Radosavovic et al., 2020)."""
    blocks = [Grouped(16, 32, 2), Grouped(32, 32, 1), Grouped(32, 32, 1)]
    return nn.Sequential(_conv(3, 16, 3, 2), nn.ReLU(), nn.Sequential(*blocks), Head(32))


class Wide(nn.Module):
    """A large depthwise kernel, layer normalization, two dense layers and a scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.filter = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.up = nn.Linear(channels, 4 * channels)
        self.down = nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm(self.filter(x).permute(0, 2, 3, 1))
        inner = self.down(functional.gelu(self.up(inner)))
        return x + self.scale * inner.permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    """Layer normalization in a convolutional network (Liu et al., 2022)."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, 4), Wide(16), Wide(16), nn.Conv2d(16, 32, 2, 2), Wide(32), Head(32)
    )


class ChannelAttention(nn.Module):
    """Weighs channels, then places (Woo et al., 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(
            nn.Conv2d(channels, channels // 4, 1), nn.ReLU(), nn.Conv2d(channels // 4, channels, 1)
        )
        self.place = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        mean, most = x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
        x = x * torch.sigmoid(self.squeeze(mean) + self.squeeze(most))
        maps = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.place(maps))


def cbam() -> nn.Module:
    """A convolutional network with what it calls attention."""
    return nn.Sequential(
        _conv(3, 16, 3, 2), nn.ReLU(), ChannelAttention(16), _conv(16, 32, 3, 2), nn.ReLU(),
        ChannelAttention(32), Head(32),
    )  # fmt: skip


class Vit(nn.Module):
    """Patches and their places into a transformer (Dosovitskiy et al., 2020)."""

    def __init__(self, encoder: nn.Module, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.places = nn.Parameter(torch.randn(1, 16, width) * 0.02)
        self.encoder = encoder
        self.dense = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.dense(self.encoder(tokens).mean(dim=1))


class Attention(nn.Module):
    """Self-attention with one layer for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.head_dim = width // heads

    def forward(self, x: Tensor) -> Tensor:
        rows, length, _ = x.shape
        parts = self.qkv(x).view(rows, length, 3, self.num_heads, self.head_dim)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(query @ key.transpose(-2, -1) / self.head_dim**0.5, dim=-1)
        return self.proj((weights @ value).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """A layer of a transformer that normalizes first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def vit() -> nn.Module:
    """With an attention of its own."""
    return Vit(nn.Sequential(*[Layer(32, 4) for _ in range(3)]))


def vit_torch() -> nn.Module:
    """With the encoder of torch."""
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True, dropout=0.0)
    return Vit(nn.TransformerEncoder(layer, 3, enable_nested_tensor=False))


NETS = (
    mobilenet_v2, mobilenet_v3, vgg, densenet, shufflenet, regnet, convnext, cbam, vit, vit_torch
)  # fmt: skip
