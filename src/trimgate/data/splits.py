"""Train, validation and test rows, and what must hold between them."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trimgate.data._files import Source, check_columns, check_labels, missing, part
from trimgate.data._rows import digest, digest_of, row_hashes
from trimgate.data.dataset import BATCH, Array, Dataset, concatenate, saving
from trimgate.errors import InvalidInput

Method = Literal["temporal", "stratified", "random", "given"]
Overlap = Literal["refuse", "drop", "allow"]

# In the order in which rows may be seen.
NAMES = ("train", "validation", "test")
_LEFT_OUT = len(NAMES)


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


@dataclass
class _Scanned:
    """What is kept of a file's rows once they were read.

    Attributes:
        source: The file.
        features: Their names.
        labels: `(rows,)`; equal texts are one object.
        hashes: `(rows,)` uint64, of `row_hashes`.
        by: `(rows,)`: what orders the rows of a temporal split.
        split: `(rows,)` uint8: position in `NAMES`, or `_LEFT_OUT`.
    """

    source: Source
    features: tuple[str, ...]
    labels: Array
    hashes: NDArray[np.uint64]
    by: Array | None
    split: NDArray[np.uint8]


@dataclass(frozen=True)
class Division:
    """Which split each row of some files belongs to. The rows stay in the files.

    In memory are the label, a hash and the split of each row: 17 bytes, and 8 more for the column
    that orders a temporal split (texts there, and labels that are all different, as they are).
    A row keeps its place among those of its split.

    Attributes:
        notes: What people should know (rows dropped, overlap allowed), in sentences.
    """

    _files: tuple[_Scanned, ...]
    _label: str
    _drop: tuple[str, ...]
    _keep: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the features."""
        return self._files[0].features

    def rows(self, name: str) -> int:
        """How many rows a split has."""
        return int(self._where(name)[1].sum())

    def labels(self, name: str) -> Array:
        """The label of each row of a split."""
        file, chosen = self._where(name)
        return file.labels[chosen]

    def hashes(self, name: str) -> NDArray[np.uint64]:
        """The hash of each row of a split."""
        file, chosen = self._where(name)
        return file.hashes[chosen]

    def digests(self) -> dict[str, str]:
        """Content digest of each split."""
        return {name: digest_of(self.features, self.hashes(name)) for name in NAMES}

    def leave_out(self, name: str, rows: Array) -> None:
        """Takes rows out of a split.

        Args:
            name: The split.
            rows: `(rows of the split,)` mask.
        """
        file, chosen = self._where(name)
        file.split[np.flatnonzero(chosen)[rows]] = _LEFT_OUT

    def parts(self) -> Iterator[tuple[str, Dataset]]:
        """Every row once, some at a time: the name of its split, and rows of it."""
        for file in self._files:
            begin = 0
            for columns in file.source.batches():
                batch = part(columns, self._label, self._drop, self._keep)
                split = file.split[begin : begin + len(batch)]
                for position, name in enumerate(NAMES):
                    chosen = split == position
                    if chosen.any():
                        yield name, batch if chosen.all() else batch.take(chosen)
                begin += len(batch)

    def take(self, rows: Mapping[str, Array]) -> dict[str, Dataset]:
        """Some rows of some splits, in one pass over the files.

        Args:
            rows: By split, positions in it, ascending.
        """
        found: dict[str, list[Dataset]] = {name: [] for name in rows}
        begin = dict.fromkeys(rows, 0)
        for name, piece in self.parts():
            if name in rows:
                end = begin[name] + len(piece)
                first, last = np.searchsorted(rows[name], (begin[name], end))
                found[name].append(piece.take(rows[name][first:last] - begin[name]))
                begin[name] = end
        return {name: concatenate(pieces) for name, pieces in found.items()}

    def load(self) -> Splits:
        """The rows of all splits, in memory."""
        found: dict[str, list[Dataset]] = {name: [] for name in NAMES}
        for name, piece in self.parts():
            found[name].append(piece)
        whole = {name: concatenate(pieces) for name, pieces in found.items()}
        return Splits(**whole, notes=self.notes)

    def save(self, directories: Mapping[str, str | Path]) -> None:
        """Writes each split as `Dataset.save` would.

        Args:
            directories: By split.
        """
        with contextlib.ExitStack() as stack:
            written = {n: stack.enter_context(saving(path)) for n, path in directories.items()}
            for name, piece in self.parts():
                written[name].add(piece)
            for split in written.values():  # all of them are whole before any is there
                split.finish()

    def _where(self, name: str) -> tuple[_Scanned, Array]:
        """The file that a split is of, and the mask of its rows."""
        position = NAMES.index(name)
        file = self._files[0 if len(self._files) == 1 else position]
        return file, file.split == position


def load_splits(files: Path | tuple[Path, Path, Path], **options: Any) -> Splits:
    """`divide`, with all rows in memory."""
    return divide(files, **options).load()


def divide(
    files: Path | tuple[Path, Path, Path],
    *,
    label: str,
    drop: tuple[str, ...] = (),
    keep: tuple[str, ...] = (),
    method: Method = "stratified",
    by: str | None = None,
    validation: float = 0.2,
    test: float = 0.2,
    overlap: Overlap = "refuse",
    regression: bool | Callable[[Division], bool] = False,
    seed: int = 0,
    size: int = BATCH,
) -> Division:
    """Reads, divides and checks the rows, a batch at a time.

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
            with the rows before they are divided (or those of the train file) as `train`.
        seed: For `stratified` and `random`.
        size: Rows of a batch.

    Raises:
        InvalidInput: Bad file or column, different columns, empty split, one class only, or
            splits that share rows.
    """
    paths = (files,) if isinstance(files, Path) else files
    sources = [Source(path, size) for path in paths]
    order = by if len(paths) == 1 and method == "temporal" else None
    heads = [_head(source, label, drop, keep, order) for source in sources]
    for source, head in zip(sources[1:], heads[1:], strict=True):
        _same_columns(heads[0], head, paths[0], source.path)
    scanned = [_scan(source, label, drop, keep, order) for source in sources]
    for position, file in enumerate(scanned):
        file.split[:] = position
    draft = Division(tuple(scanned), label, drop, keep)
    values = regression(draft) if callable(regression) else regression
    if len(scanned) == 1:
        _divide(scanned[0], method, validation, test, seed, stratify=not values)
    origins = dict(zip(NAMES, paths if len(paths) == 3 else paths * 3, strict=True))
    notes = _without_overlap(draft, origins, overlap)
    for name in NAMES:
        if not draft.rows(name):
            raise InvalidInput(
                f"the {name} split is empty",
                file=origins[name],
                mend="bring more rows or larger shares",
            )
    if not values:
        _check_classes({name: draft.labels(name) for name in NAMES}, origins)
    return replace(draft, notes=tuple(notes))


def halves(validation: Dataset) -> tuple[Dataset, Dataset]:
    """The validation rows that techniques make their choices on, and those that rank candidates.

    A model whose trees, features or channels were chosen on some rows looks better on these rows
    than it is, and would win by that. Both halves have the same mix of labels, and keep the order
    of the rows. Where a class has one row only, both are the whole.

    Returns:
        The choosing half and the ranking half.
    """
    choosing = half_rows(validation.labels, ranking=False)
    if len(choosing) == len(validation):
        return validation, validation
    return validation.take(choosing), validation.take(half_rows(validation.labels, ranking=True))


def half_rows(labels: Array, *, ranking: bool) -> Array:
    """Positions of the rows of one half, ascending; see `halves`.

    Args:
        labels: `(rows,)` of the validation split.
        ranking: The half that ranks candidates, not the one that choices are made on.
    """
    values = comparable(labels)
    _, counts = np.unique(values, return_counts=True)
    if len(labels) < 4 or (labels.dtype.kind != "f" and counts.min() < 2):
        return np.arange(len(labels))
    return np.sort(np.argsort(values, kind="stable")[int(ranking) :: 2])


def comparable(labels: Array) -> Array:
    """Labels that sort as the given ones; for texts their positions among the distinct ones."""
    if labels.dtype != object:
        return labels
    codes = {label: code for code, label in enumerate(sorted(set(labels)))}
    return np.fromiter((codes[label] for label in labels), dtype=np.int32, count=len(labels))


def _codes(labels: Array) -> NDArray[np.int32]:
    """For each label its position among the distinct ones: `(rows,)`.

    `numpy.unique` tells this too, in four times the memory.
    """
    known = comparable(labels)
    return np.searchsorted(np.unique(known), known).astype(np.int32)


def _head(
    source: Source, label: str, drop: tuple[str, ...], keep: tuple[str, ...], by: str | None
) -> Dataset:
    """No rows, of the columns that the file has."""
    columns = next(source.batches())
    check_columns(columns, label, drop, keep, source.path)
    if by is not None and by not in columns:
        raise InvalidInput(
            "there is no such column", file=source.path, key="data.split.by", value=by
        )
    return part(columns, label, drop, keep).take([])


def _scan(
    source: Source, label: str, drop: tuple[str, ...], keep: tuple[str, ...], by: str | None
) -> _Scanned:
    """Reads every row once."""
    labels: list[Array] = []
    hashes: list[Array] = []
    times: list[Array] = []
    known: dict[Any, Any] = {}
    bad = 0
    features: tuple[str, ...] = ()
    for columns in source.batches():
        rows = part(columns, label, drop, keep)
        bad += int(missing(rows.labels).sum())
        hashes.append(row_hashes(rows))
        labels.append(_shared_texts(rows.labels, known))
        if by is not None:
            times.append(np.array(columns[by]))
        features = tuple(rows.features)
    found = np.concatenate(labels)
    check_labels(bad, len(found), label, source.path)
    order = np.concatenate(times) if times else None
    if order is not None and order.dtype == object and missing(order).any():
        raise InvalidInput(
            f"{int(missing(order).sum())} of {len(order)} rows have no value in it",
            file=source.path,
            key="data.split.by",
            value=by,
            mend="remove those rows",
        )
    split = np.zeros(len(found), dtype=np.uint8)
    return _Scanned(source, features, found, np.concatenate(hashes), order, split)


def _shared_texts(labels: Array, known: dict[Any, Any]) -> Array:
    if labels.dtype != object:
        return np.array(labels)
    return np.array([known.setdefault(label, label) for label in labels], dtype=object)


def _divide(
    file: _Scanned, method: Method, validation: float, test: float, seed: int, *, stratify: bool
) -> None:
    """Gives each row of the file its split."""
    total = len(file.labels)
    generator = np.random.default_rng(seed)
    groups: Iterator[Array]
    if file.by is not None:
        groups = iter([np.argsort(file.by, kind="stable")])
    elif method == "stratified" and stratify:
        codes = _codes(file.labels)
        groups = (
            generator.permutation(np.flatnonzero(codes == code)) for code in range(codes.max() + 1)
        )
    else:
        groups = iter([generator.permutation(total)])
    for group in groups:
        last, middle = round(len(group) * test), round(len(group) * validation)
        first = len(group) - last - middle
        for position, rows in enumerate(np.split(group, [first, first + middle])):
            file.split[rows] = position


def _same_columns(first: Dataset, other: Dataset, first_file: Path, other_file: Path) -> None:
    missing = [name for name in first.features if name not in other.features]
    extra = [name for name in other.features if name not in first.features]
    if missing or extra:
        what = f"lacks {missing[:5]}" if missing else f"has {extra[:5]} besides"
        raise InvalidInput(
            f"its columns differ from those of {first_file}: it {what}", file=other_file
        )
    for name, values in first.features.items():
        there, here = _kind(other.features[name]), _kind(values)
        if there != here:
            raise InvalidInput(
                f"its type differs from that in {first_file} ({there}, not {here})",
                file=other_file,
                key=name,
            )


def _kind(values: Array) -> str:
    kind = "text" if values.dtype == object else "numbers"
    return f"{kind} of shape {values.shape[1:]}" if values.ndim > 1 else kind


def _without_overlap(rows: Division, origins: Mapping[str, Path], overlap: Overlap) -> list[str]:
    """Looks for rows that stand in an earlier split too, and leaves them out if that is wanted."""
    doubled = _doubled([rows.hashes(name) for name in NAMES])
    seen = doubled[_among(doubled, np.sort(rows.hashes(NAMES[0])))]
    notes = []
    for position, name in enumerate(NAMES[1:], start=1):
        hashes = rows.hashes(name)
        shared = _among(hashes, seen)
        count = int(shared.sum())
        earlier = " or ".join(NAMES[:position])
        sentence = f"{count} of {len(hashes)} {name} rows also stand in {earlier}"
        if count and overlap == "refuse":
            raise InvalidInput(
                sentence,
                file=origins[name],
                mend="divide the rows anew, or set data.overlap to drop (or allow)",
            )
        if count and overlap == "drop":
            rows.leave_out(name, shared)
            hashes = hashes[~shared]
            notes.append(f"{sentence} and were left out of {name}.")
        elif count:
            notes.append(f"{sentence}; the config allows it.")
        seen = np.union1d(seen, hashes[_among(hashes, doubled)])
    return notes


def _doubled(hashes: Sequence[Array]) -> Array:
    """Those that more than one row has, ascending."""
    known = np.concatenate(hashes)
    known.sort()
    return np.unique(known[1:][known[1:] == known[:-1]])


def _among(hashes: Array, known: Array) -> Array:
    """Mask of those that are known; `numpy.isin` where one side is sorted and short."""
    if not len(known):
        return np.zeros(len(hashes), dtype=bool)
    where = np.searchsorted(known, hashes)
    where[where == len(known)] = 0
    found: Array = known[where] == hashes
    return found


def _check_classes(labels: Mapping[str, Array], origins: Mapping[str, Path]) -> None:
    """Refuses a split of one class, and classes that are in no train row."""
    classes = {name: _distinct(values) for name, values in labels.items()}
    for name, found in classes.items():
        if len(found) < 2:
            raise InvalidInput(
                f"the {name} split has one class only ({next(iter(found))!r} in all of its "
                f"{len(labels[name])} rows)",
                file=origins[name],
                key="data.label",
                mend="divide the rows so that each split has every class",
            )
    for name in NAMES[1:]:
        unknown = classes[name] - classes["train"]
        if unknown:
            raise InvalidInput(
                f"the {name} split has classes that train has not: {sorted(map(str, unknown))[:5]}",
                file=origins[name],
                key="data.label",
            )


def _distinct(labels: Array) -> set[Any]:
    return set(labels) if labels.dtype == object else set(np.unique(labels).tolist())
