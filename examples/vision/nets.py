"""The networks of this example: `model.builder` in optimize.yaml names one of these functions.

Each takes grey images as they come, `(rows, 1, height, width)` with values from 0 to 255, and
gives one logit per class; preprocessing is part of the network, so that nobody who calls the
served model has to know it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Residual(nn.Module):
    """`relu(body(x) + shortcut(x))` (He et al., 2015, arXiv:1512.03385)."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.relu = body, shortcut, nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(rows, channels, height, width)`."""
        return self.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    """Four stages of residual blocks, and a stem for images of 28 to 64 pixels.

    The original stem is for 224 pixels: it halves the image twice, which leaves little of a small
    one; `stride` 2 with `pool` does so too.
    """

    def __init__(
        self,
        blocks: tuple[int, ...],
        bottleneck: bool,
        width: float,
        classes: int,
        stride: int,
        pool: bool,
    ) -> None:
        super().__init__()
        channels = [max(8, round(64 * 2**stage * width)) for stage in range(4)]
        stem = [_conv(1, channels[0], 3, stride), nn.ReLU()]
        self.stem = nn.Sequential(*stem, *([nn.MaxPool2d(3, 2, 1)] if pool else []))
        stages, given = [], channels[0]
        for stage, (count, inner) in enumerate(zip(blocks, channels, strict=True)):
            outer = 4 * inner if bottleneck else inner
            for block in range(count):
                step = 2 if stage > 0 and block == 0 else 1
                stages.append(_residual(given, inner, outer, step, bottleneck))
                given = outer
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(given, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        """Maps `(rows, 1, height, width)`, 0 to 255, to logits `(rows, classes)`."""
        x = self.stages(self.stem(image.float() / 127.5 - 1))
        return self.head(x.mean(dim=(2, 3)))


def resnet18(
    width: float = 1.0, classes: int = 10, stride: int = 1, pool: bool = False
) -> ResNet:
    """ResNet-18: 8 blocks of two 3x3 convolutions, 64 to 512 channels.

    Args:
        width: All channels times this.
        classes: Of the labels.
        stride: Of the stem: 1 for images of 28 or 32 pixels, 2 for 64.
        pool: Halve the image once more after the stem, which is fast and not as good.
    """
    return ResNet((2, 2, 2, 2), False, width, classes, stride, pool)


def resnet50(
    width: float = 1.0, classes: int = 10, stride: int = 1, pool: bool = False
) -> ResNet:
    """ResNet-50: 16 bottleneck blocks, 64 to 2048 channels. Arguments as of `resnet18`."""
    return ResNet((3, 4, 6, 3), True, width, classes, stride, pool)


def _residual(given: int, inner: int, outer: int, stride: int, bottleneck: bool) -> Residual:
    if bottleneck:
        body = nn.Sequential(
            _conv(given, inner, 1), nn.ReLU(),
            _conv(inner, inner, 3, stride), nn.ReLU(),
            _conv(inner, outer, 1),
        )  # fmt: skip
    else:
        body = nn.Sequential(_conv(given, inner, 3, stride), nn.ReLU(), _conv(inner, outer, 3))
    same = given == outer and stride == 1
    return Residual(body, nn.Identity() if same else _conv(given, outer, 1, stride))


def _conv(given: int, made: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(given, made, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(made))


# EfficientNet-Lite0: blocks, kernel, stride, how much wider inside, channels.
_LITE0 = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class InvertedResidual(nn.Module):
    """Widen, filter each channel by itself, narrow (Sandler et al., 2018, arXiv:1801.04381)."""

    def __init__(self, given: int, made: int, kernel: int, stride: int, wider: int) -> None:
        super().__init__()
        inner = given * wider
        layers = [] if wider == 1 else [*_same(given, inner, 1), nn.ReLU6()]
        layers += [*_same(inner, inner, kernel, stride, groups=inner), nn.ReLU6()]
        self.body = nn.Sequential(*layers, *_same(inner, made, 1))
        self.skip = stride == 1 and given == made

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(rows, channels, height, width)`."""
        return x + self.body(x) if self.skip else self.body(x)


class EfficientNetLite0(nn.Module):
    """EfficientNet-B0 without squeeze-and-excitation, with ReLU6 (Tan and Le, 2019; lite: 2020)."""

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        self.size = size
        layers: list[nn.Module] = [*_same(3, 32, 3, 2), nn.ReLU6()]
        given = 32
        for count, kernel, stride, wider, made in _LITE0:
            for block in range(count):
                step = stride if block == 0 else 1
                layers.append(InvertedResidual(given, made, kernel, step, wider))
                given = made
        self.features = nn.Sequential(*layers, *_same(given, 1280, 1), nn.ReLU6())
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(1280, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Maps `(rows, 1 or 3, height, width)`, 0 to 255, to logits `(rows, classes)`."""
        x = (image.float() - 127) / 128
        x = functional.interpolate(x, (self.size, self.size), mode="bilinear", align_corners=False)
        x = self.features(x.expand(-1, 3, -1, -1))
        return self.head(self.dropout(x.mean(dim=(2, 3))))


def efficientnet_lite0(classes: int = 10, size: int = 96) -> EfficientNetLite0:
    """EfficientNet-Lite0, 4.65 million weights for 1,000 classes.

    Args:
        classes: Of the labels.
        size: Images are enlarged to so many pixels; a multiple of 32. It was trained at 224.

    Raises:
        ValueError: The size is no multiple of 32.
    """
    if size % 32:
        raise ValueError(f"size {size} is no multiple of 32")
    return EfficientNetLite0(classes, size)


def _same(given: int, made: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution padded as TensorFlow does it: of an even image, less on the left and top."""
    around = kernel - stride
    before, after = around // 2, around - around // 2
    conv = nn.Conv2d(
        given, made, kernel, stride, padding=before if before == after else 0,
        groups=groups, bias=False,
    )  # fmt: skip
    pad = [] if before == after else [nn.ZeroPad2d((before, after, before, after))]
    return [*pad, conv, nn.BatchNorm2d(made, eps=1e-3, momentum=0.01)]


def load_pretrained(module: EfficientNetLite0, state: dict[str, Tensor]) -> None:
    """Puts the ImageNet weights of the published checkpoint in, but for its last layer.

    Args:
        module: With any number of classes.
        state: The checkpoint; its layers stand in the same order under other names.

    Raises:
        ValueError: It is of another network.
    """
    own = module.state_dict()
    kept = [name for name in own if not name.startswith("head.")]
    given = [name for name in state if not name.startswith("_fc.")]
    shapes = [tuple(own[name].shape) for name in kept]
    if shapes != [tuple(state[name].shape) for name in given]:
        raise ValueError("the checkpoint is not of EfficientNet-Lite0")
    own.update({name: state[there] for name, there in zip(kept, given, strict=True)})
    module.load_state_dict(own)


def count(module: nn.Module) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in module.parameters())


def freeze_but_last(module: EfficientNetLite0, blocks: int) -> list[nn.Parameter]:
    """Fixes all but the head, the last convolution and so many of the last blocks.

    Returns:
        The parameters that are still trained.
    """
    module.requires_grad_(False)
    trained: list[nn.Module] = [module.head, *list(module.features)[-3 - blocks :]]
    for part in trained:
        part.requires_grad_(True)
    return [parameter for part in trained for parameter in part.parameters()]


@torch.no_grad()
def predict(module: nn.Module, images: Tensor, rows: int = 256) -> Tensor:
    """The likeliest class of each image, `(rows,)`."""
    module.eval()
    return torch.cat([module(part).argmax(dim=1) for part in images.split(rows)])
