"""CSV in blocks, with the column types that reading the whole at once would find."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.csv

_BLOCK = 1 << 22


def read_csv(path: Path) -> "pa.Table":
    """A whole file; Arrow finds the types of its columns."""
    import pyarrow.csv

    return pyarrow.csv.read_csv(
        path, read_options=_read(_BLOCK), parse_options=_parse(), convert_options=_convert()
    )


def csv_tables(path: Path, block: int, types: dict[str, Any]) -> Iterator["pa.Table"]:
    """A file in tables of about `block` bytes each.

    Args:
        path: The file.
        block: More than a row has.
        types: Arrow's, by column.
    """
    import pyarrow as pa

    with _opened(path, block, _convert(column_types=types)) as reader:
        for batch in reader:
            yield pa.Table.from_batches([batch])


def csv_types(path: Path, block: int) -> list[tuple[str, Any]]:
    """What Arrow finds for the names and types of the columns when it reads the whole file.

    It settles on the first of its kinds (none, integer, boolean, date, time, timestamp, number,
    text, bytes) that every value can be read as. As a rule that is the one of the first block;
    else each block is asked on its own, and the kinds are joined.
    """
    import pyarrow as pa

    with _opened(path, block, _convert()) as reader:
        first = list(zip(reader.schema.names, reader.schema.types, strict=True))
        if len({name for name, _ in first}) < len(first):
            return first
        try:
            for _ in reader:
                pass
        except pa.ArrowInvalid:
            return [*_joined_types(path, block, dict(first)).items()]
    return first


def _joined_types(path: Path, block: int, types: dict[str, Any]) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.csv

    as_written = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(types, pa.binary()))
    flags = dict.fromkeys(types, True)  # integers that are all written 0 or 1
    with _opened(path, block, as_written) as reader:
        for batch in reader:
            sink = pa.BufferOutputStream()
            pyarrow.csv.write_csv(batch, sink)
            text = sink.getvalue()
            table = pyarrow.csv.read_csv(
                pa.BufferReader(text),
                read_options=_read(text.size + 1),
                parse_options=_parse(),
                convert_options=_convert(),
            )
            for name, known in types.items():
                kind = table[name].type
                if pa.types.is_integer(kind):
                    flags[name] &= _are_flags(batch[name], table[name])
                types[name] = _joined(known, kind, flags=flags[name])
    return types


def _joined(one: Any, other: Any, *, flags: bool) -> Any:
    """The first kind that reads what is read as either."""
    import pyarrow as pa

    kinds = {one, other}
    if len(kinds) == 1:
        return one
    for narrow, wide in (
        ({pa.null()}, None),
        ({pa.int64()}, pa.float64()),
        ({pa.int64()} if flags else set(), pa.bool_()),
        ({pa.date32()}, pa.timestamp("s")),
        ({pa.date32(), pa.timestamp("s")}, pa.timestamp("ns")),
        ({pa.timestamp("s", "UTC")}, pa.timestamp("ns", "UTC")),
    ):
        rest = kinds - narrow
        if len(rest) == 1 and (wide is None or rest == {wide}):
            return rest.pop()
    return pa.binary() if pa.binary() in kinds else pa.string()


def _are_flags(written: "pa.Array", read: "pa.ChunkedArray") -> bool:
    import pyarrow as pa
    import pyarrow.compute

    present = written.filter(read.combine_chunks().is_valid())
    return bool(pyarrow.compute.all(pyarrow.compute.is_in(present, pa.array([b"0", b"1"]))).as_py())


def _opened(
    path: Path, block: int, convert: "pyarrow.csv.ConvertOptions"
) -> "pyarrow.csv.CSVStreamingReader":
    import pyarrow.csv

    return pyarrow.csv.open_csv(
        path, read_options=_read(block), parse_options=_parse(), convert_options=convert
    )


def _read(block: int) -> "pyarrow.csv.ReadOptions":
    import pyarrow.csv

    # threads would read ahead, hold as many blocks as there are cores, and count no rows
    return pyarrow.csv.ReadOptions(block_size=block, use_threads=False)


def _parse() -> "pyarrow.csv.ParseOptions":
    import pyarrow.csv

    return pyarrow.csv.ParseOptions(newlines_in_values=True)


def _convert(**more: Any) -> "pyarrow.csv.ConvertOptions":
    import pyarrow.csv

    return pyarrow.csv.ConvertOptions(strings_can_be_null=True, **more)
