"""Train, validation and test rows, and what must hold between them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from trimgate.data._files import as_dataset, read_columns
from trimgate.data._rows import digest, row_hashes
from trimgate.data.dataset import Array, Dataset
from trimgate.errors import InvalidInput

Method = Literal["temporal", "stratified", "random", "given"]


@dataclass(frozen=True)
class Splits:
    """The three splits and how they came about.

    Attributes:
        train: Rows that techniques may learn and calibrate from.
        validation: Rows that choices are made on and candidates ranked on (see `halves`).
        test: Rows that the gate looks at, once.
        notes: What people should know (rows dropped, overlap allowed), in sentences.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    notes: tuple[str, ...] = ()

    def named(self) -> dict[str, Dataset]:
        """The splits by name, in the order in which rows may be seen."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def digests(self) -> dict[str, str]:
        """Content digest of each split."""
        return {name: digest(data) for name, data in self.named().items()}


def load_splits(
    files: Path | tuple[Path, Path, Path],
    *,
    label: str,
    drop: tuple[str, ...] = (),
    keep: tuple[str, ...] = (),
    method: Method = "stratified",
    by: str | None = None,
    validation: float = 0.2,
    test: float = 0.2,
    overlap: Literal["refuse", "drop", "allow"] = "refuse",
    regression: bool | Callable[[Dataset], bool] = False,
    seed: int = 0,
) -> Splits:
    """Reads, divides and checks the rows.

    Args:
        files: One file to divide, or the train, validation and test files.
        label: The column (or array) to predict.
        drop: Columns that the model does not take.
        keep: Columns that slices are made of; they may be among those of `drop`.
        method: How one file is divided; ignored for three files.
        by: The column that orders the rows of a temporal split.
        validation: Share of the rows.
        test: Share of the rows.
        overlap: What to do when rows of a split also stand in an earlier one.
        regression: Labels are values; a split need not have two classes. A function is asked,
            with the rows before they are divided.
        seed: For `stratified` and `random`.

    Raises:
        InvalidInput: Bad file or column, different columns, empty split, one class only, or
            splits that share rows.
    """
    if isinstance(files, Path):
        columns = read_columns(files)
        data = as_dataset(columns, label, drop, files, keep)
        regression = regression(data) if callable(regression) else regression
        rows = _divide(columns, label, method, by, validation, test, seed, files, regression)
        parts = [data.take(index) for index in rows]
        origins = [files] * 3
    else:
        parts = [as_dataset(read_columns(file), label, drop, file, keep) for file in files]
        origins = list(files)
        for part, origin in zip(parts[1:], origins[1:], strict=True):
            _same_columns(parts[0], part, origins[0], origin)
        regression = regression(parts[0]) if callable(regression) else regression
    names = ("train", "validation", "test")
    parts, notes = _without_overlap(parts, names, origins, overlap)
    for part, name, origin in zip(parts, names, origins, strict=True):
        if len(part) == 0:
            raise InvalidInput(
                f"the {name} split is empty", file=origin, mend="bring more rows or larger shares"
            )
    if not regression:
        for part, name, origin in zip(parts, names, origins, strict=True):
            _two_classes(part, name, origin)
        _known_classes(parts, names, origins)
    return Splits(parts[0], parts[1], parts[2], notes=tuple(notes))


def halves(validation: Dataset) -> tuple[Dataset, Dataset]:
    """The validation rows that techniques make their choices on, and those that rank candidates.

    A model whose trees, features or channels were chosen on some rows looks better on these rows
    than it is, and would win by that. Both halves have the same mix of labels, and keep the order
    of the rows. Where a class has one row only, both are the whole.

    Returns:
        The choosing half and the ranking half.
    """
    ranking = ranking_half(validation.labels)
    if ranking.all():
        return validation, validation
    return validation.take(np.flatnonzero(~ranking)), validation.take(np.flatnonzero(ranking))


def ranking_half(labels: Array) -> Array:
    """Mask of the rows that rank candidates; all of them where they cannot be halved.

    Args:
        labels: `(rows,)` of the validation split.
    """
    values = labels.astype(str) if labels.dtype == object else labels
    _, counts = np.unique(values, return_counts=True)
    mask = np.zeros(len(labels), dtype=bool)
    if len(labels) < 4 or (labels.dtype.kind != "f" and counts.min() < 2):
        return ~mask
    mask[np.argsort(values, kind="stable")[1::2]] = True
    return mask


def _divide(
    columns: dict[str, Array],
    label: str,
    method: Method,
    by: str | None,
    validation: float,
    test: float,
    seed: int,
    file: Path,
    regression: bool,
) -> list[Array]:
    """Row positions of the three splits."""
    total = len(next(iter(columns.values())))
    generator = np.random.default_rng(seed)
    if method == "temporal":
        if by not in columns:
            raise InvalidInput("there is no such column", file=file, key="data.split.by", value=by)
        order = np.argsort(columns[by], kind="stable")
        groups = [order]
    elif method == "stratified" and not regression and label in columns:
        values = columns[label]
        _, codes = np.unique(
            values.astype(str) if values.dtype == object else values, return_inverse=True
        )
        groups = [generator.permutation(np.flatnonzero(codes == c)) for c in range(codes.max() + 1)]
    else:
        groups = [generator.permutation(total)]
    parts: list[list[Array]] = [[], [], []]
    for group in groups:
        last, middle = round(len(group) * test), round(len(group) * validation)
        first = len(group) - last - middle
        for part, rows in zip(parts, np.split(group, [first, first + middle]), strict=True):
            part.append(rows)
    # The file's own order within a split, so that temporal data stays in order.
    return [
        np.concatenate(part) if method == "temporal" else np.sort(np.concatenate(part))
        for part in parts
    ]


def _same_columns(first: Dataset, other: Dataset, first_file: Path, other_file: Path) -> None:
    missing = [name for name in first.features if name not in other.features]
    extra = [name for name in other.features if name not in first.features]
    if missing or extra:
        what = f"lacks {missing[:5]}" if missing else f"has {extra[:5]} besides"
        raise InvalidInput(
            f"its columns differ from those of {first_file}: it {what}", file=other_file
        )
    for name, values in first.features.items():
        there = other.features[name]
        if (values.dtype == object) != (there.dtype == object) or values.shape[1:] != there.shape[
            1:
        ]:
            raise InvalidInput(
                f"its type differs from that in {first_file} ({there.dtype}, not {values.dtype})",
                file=other_file,
                key=name,
            )


def _without_overlap(
    parts: list[Dataset],
    names: tuple[str, ...],
    origins: list[Path],
    overlap: Literal["refuse", "drop", "allow"],
) -> tuple[list[Dataset], list[str]]:
    kept = [parts[0].take(slice(None))]
    seen = row_hashes(parts[0])
    notes = []
    for part, name, origin in zip(parts[1:], names[1:], origins[1:], strict=True):
        hashes = row_hashes(part)
        shared = np.isin(hashes, seen)
        count = int(shared.sum())
        earlier = " or ".join(names[: names.index(name)])
        sentence = f"{count} of {len(part)} {name} rows also stand in {earlier}"
        if count and overlap == "refuse":
            raise InvalidInput(
                sentence,
                file=origin,
                mend="divide the rows anew, or set data.overlap to drop (or allow)",
            )
        if count and overlap == "drop":
            part, hashes = part.take(~shared), hashes[~shared]
            notes.append(f"{sentence} and were left out of {name}.")
        elif count:
            notes.append(f"{sentence}; the config allows it.")
        kept.append(part)
        seen = np.concatenate([seen, hashes])
    return kept, notes


def _two_classes(part: Dataset, name: str, origin: Path) -> None:
    values = part.labels.tolist()
    if len(set(values)) < 2:
        raise InvalidInput(
            f"the {name} split has one class only ({values[0]!r} in all of its {len(part)} rows)",
            file=origin,
            key="data.label",
            mend="divide the rows so that each split has every class",
        )


def _known_classes(parts: list[Dataset], names: tuple[str, ...], origins: list[Path]) -> None:
    known = set(parts[0].labels.tolist())
    for part, name, origin in zip(parts[1:], names[1:], origins[1:], strict=True):
        unknown = set(part.labels.tolist()) - known
        if unknown:
            raise InvalidInput(
                f"the {name} split has classes that train has not: {sorted(map(str, unknown))[:5]}",
                file=origin,
                key="data.label",
            )
