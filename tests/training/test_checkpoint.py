"""A fine-tuning that is killed goes on where it stopped."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from trimgate.training import FinetuneConfig, finetune
from trimgate.training._checkpoint import Checkpoint, dump_generator, load_generator

torch.set_num_threads(1)
CONFIG = FinetuneConfig(epochs=5, learning_rate=5e-3, batch_size=32)
ROWS = 200


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)
    )


def rows() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(ROWS, 8)).astype(np.float32)
    return inputs, (inputs[:, 0] > 0).astype(np.int64) + (inputs[:, 1] > 1)


def train(module: nn.Module, checkpoint: Path | None = None, *, die_in: int = 0):
    """Trains; ends the process without warning in the epoch after `die_in`."""
    inputs, labels = rows()
    calls = 0

    def validate(candidate: nn.Module) -> float:
        nonlocal calls
        calls += 1
        with torch.inference_mode():
            found = candidate(torch.from_numpy(inputs)).argmax(1).numpy()
        return float((found == labels).mean())

    def after_step() -> None:
        if die_in and calls == die_in + 1:
            os.kill(os.getpid(), signal.SIGKILL)

    return finetune(
        module, [inputs], labels, CONFIG, kind="logit", validate=validate, seed=3,
        checkpoint=checkpoint, after_step=after_step,
    )  # fmt: skip


def test_a_killed_training_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole = net()
    expected = train(whole)
    file = tmp_path / "new" / "finetune.pt"
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "import test_checkpoint as t; from pathlib import Path;"
        "t.train(t.net(), Path(sys.argv[2]), die_in=2)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parent), str(file)],
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    assert [p.name for p in file.parent.iterdir()] == ["finetune.pt"]
    saved = torch.load(file, weights_only=True)["state"]
    assert len(saved["losses"]) == 2
    resumed = net()
    report = train(resumed, file)
    assert report == expected
    assert not resumed.training
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    # what was finished is only read
    assert train(net(), file) == expected


def test_another_training_is_not_mixed_up(tmp_path: Path) -> None:
    file = tmp_path / "finetune.pt"
    train(net(), file)
    other = net()
    with torch.no_grad():
        other[0].weight += 1
    fresh = net()
    fresh.load_state_dict(other.state_dict())
    assert train(other, file) == train(fresh)


def test_a_damaged_file_costs_no_more_than_the_work(tmp_path: Path) -> None:
    file = tmp_path / "finetune.pt"
    file.write_bytes(b"half")
    assert train(net(), file) == train(net())
    assert Checkpoint.of(file, net(), 1).read() is None
    assert Checkpoint.of(None, net(), 1).read() is None


def test_generator_state_survives() -> None:
    first, second = np.random.default_rng(1), np.random.default_rng(2)
    first.random(7)
    load_generator(second, dump_generator(first))
    assert first.random() == second.random()
