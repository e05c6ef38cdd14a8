"""Rows that come in batches give what the whole gives."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from trimgate.data import Dataset, digest, divide, read_columns
from trimgate.data._files import Source
from trimgate.data.dataset import saving
from trimgate.data.splits import NAMES
from trimgate.data.stream import half, sample_columns, spread, take
from trimgate.errors import InvalidInput

SMALL = 16  # rows of a batch; a CSV file is read in blocks of 2 kB

LABELS = {
    "text": ["no", "yes", "perhaps"],
    "int": [0, 1, 2],
    "float": [0.5, 1.5, 2.5],
    "bool": [False, True],
    "one": [7],
    "gaps": [0, 1, None],
}


@st.composite
def cases(draw):
    """A table, the file's kind, and how it is divided."""
    rows = draw(st.integers(1, 12) | st.integers(40, 150) | st.integers(40, 150))
    pick = np.random.default_rng(draw(st.integers(0, 10**6)))

    def some(values, share):
        """Values with gaps, of which the first may come late."""
        late = pick.integers(0, rows + 1)
        gaps = (pick.random(rows) < share) & (np.arange(rows) >= late)
        return [None if gap else v for gap, v in zip(gaps, values, strict=True)]

    gap = draw(st.sampled_from([0.0, 0.1, 1.0]))
    label = draw(st.sampled_from(sorted(LABELS)))
    columns = {
        "x": some((pick.normal(size=rows) * 100).round(3).tolist(), gap),
        "n": some(pick.integers(0, draw(st.sampled_from([3, 10**6])), rows).tolist(), gap),
        "flag": some((pick.random(rows) < 0.5).tolist(), gap),
        "city": some([["Rome", "Oslo, N", 'a "b"\nc'][i] for i in pick.integers(0, 3, rows)], gap),
        "y": [LABELS[label][i] for i in pick.integers(0, len(LABELS[label]), rows)],
        "when": pick.permutation(rows).tolist(),
    }
    if draw(st.booleans()):  # a few rows stand in the file twice
        again = [i % max(1, rows - 3) for i in range(rows)]
        columns = {name: [values[i] for i in again] for name, values in columns.items()}
    method = draw(st.sampled_from(["temporal", "stratified", "random", "given"]))
    return {
        "columns": columns,
        "suffix": draw(st.sampled_from([".parquet", ".csv"])),
        "options": {
            "label": draw(st.sampled_from(["y"] * 9 + ["nope"])),
            "drop": draw(st.sampled_from([(), ("when",), ("when", "city")])),
            "keep": draw(st.sampled_from([(), ("city",), ("when", "x")])),
            "method": "stratified" if method == "given" else method,
            "by": "when" if method == "temporal" else None,
            "overlap": draw(st.sampled_from(["refuse", "drop", "allow"])),
            "regression": draw(st.booleans()) and label in ("int", "float"),
            "seed": draw(st.integers(0, 3)),
        },
        "given": method == "given",
    }


def write(table, file):
    if file.suffix == ".parquet":
        pq.write_table(table, file, row_group_size=50)
    else:
        pyarrow.csv.write_csv(table, file)
    return file


def outcome(files, folder, size, options):
    """What is written, byte by byte, or the error."""
    try:
        division = divide(files, size=size, **options)
    except InvalidInput as error:
        return str(error)
    division.save({name: folder / name for name in NAMES})
    written = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    saved = {name: digest(Dataset.load(folder / name)) for name in NAMES}
    assert division.digests() == saved == division.load().digests()
    for name, rows in division.load().named().items():
        rows.save(folder / "again" / name)
        for file in (folder / name).iterdir():
            assert (folder / "again" / name / file.name).read_bytes() == file.read_bytes()
        assert rows.labels.tolist() == division.labels(name).tolist()
        few = np.arange(0, len(rows), 7)
        assert digest(division.take({name: few})[name]) == digest(rows.take(few))
    return written, division.notes, division.digests(), division.features


@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_batches_divide_as_the_whole(tmp_path_factory, case):
    place = tmp_path_factory.mktemp("batches")
    table = pa.table(case["columns"])
    if case["given"]:
        cuts = [0, len(table) // 2, 3 * len(table) // 4, len(table)]
        files = tuple(
            write(table.slice(a, b - a), place / f"{a}-{b}{i}{case['suffix']}")
            for i, (a, b) in enumerate(itertools.pairwise(cuts))
        )
    else:
        files = write(table, place / f"rows{case['suffix']}")
    whole = outcome(files, place / "whole", 10**6, case["options"])
    assert outcome(files, place / "parts", SMALL, case["options"]) == whole
    event(whole.split(": ")[-1][-40:] if isinstance(whole, str) else f"{len(whole[1])} notes")


TOKENS = {
    "int": ["0", "1", "7", "-3", "00"],
    "flag": ["0", "1"],
    "bool": ["true", "False", "1"],
    "float": ["1.5", "1e3", "nan", "3"],
    "date": ["2024-01-02"],
    "second": ["2024-01-02 10:00:00", "2024-01-02T10:00:00"],
    "nano": ["2024-01-02 10:00:00.5"],
    "zone": ["2024-01-02 10:00:00Z"],
    "fine zone": ["2024-01-02 10:00:00.25+01:00"],
    "text": ["a", 'say ""x""', "two\nlines"],
    "none": ["", "NA"],
}


@settings(max_examples=120, deadline=None)
@given(
    runs=st.lists(
        st.tuples(st.sampled_from(sorted(TOKENS)), st.sampled_from([1, 40, 200])),
        min_size=1,
        max_size=4,
    )
)
def test_a_column_of_csv_has_the_type_of_the_whole(tmp_path_factory, runs):
    """The first values tell nothing about those that come later."""
    file = tmp_path_factory.mktemp("csv") / "rows.csv"
    values = [TOKENS[kind][i % len(TOKENS[kind])] for kind, count in runs for i in range(count)]
    lines = [f'{i},"{value}",{"x" * 20}' for i, value in enumerate(values)]
    file.write_text("i,a,b\n" + "\n".join(lines) + "\n")
    whole = read_columns(file)["a"]
    source = Source(file, size=8)
    list(source.batches())
    parts = [batch["a"] for batch in source.batches()]
    assert {part.dtype for part in parts} == {whole.dtype}
    assert np.concatenate(parts).tolist() == pytest.approx(whole.tolist(), nan_ok=True) or (
        np.concatenate(parts).tolist() == whole.tolist()
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("doubled.csv", "a,b,a\n" + "1,2,3\n" * 3000, "two columns have this name"),
        ("ragged.csv", "a,b\n" + "1,2\n" * 3000 + "3\n", "Row #3002: Expected 2 columns, got 1"),
        ("times.csv", "a,b\n" + "1,10:30:00\n" * 3000, r"a column of type time32\[s\] is not"),
    ],
)
@pytest.mark.parametrize("size", [SMALL, 10**6])
def test_errors_in_a_file_of_many_batches(tmp_path, name, content, said, size):
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(InvalidInput, match=said) as caught:
        divide(file, label="a", size=size)
    assert caught.value.file == str(file)


def test_types_are_told_from_whole_files(tmp_path):
    """A column whose first text comes late is text in every batch."""
    file = tmp_path / "rows.csv"
    file.write_text("a,y\n" + "".join(f"{i},{i % 2}\n" for i in range(5000)) + "late,1\n")
    division = divide(file, label="y", size=SMALL)
    assert all(part.features["a"].dtype == object for _, part in division.parts())


def test_times_without_a_value_are_refused(tmp_path):
    table = pa.table({"x": [1.0, 2.0, 3.0], "t": ["b", None, "a"], "y": [0, 1, 0]})
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(InvalidInput, match="1 of 3 rows have no value in it") as caught:
        divide(tmp_path / "rows.parquet", label="y", method="temporal", by="t")
    assert caught.value.key == "data.split.by"


def rows_of(count, seed=0):
    pick = np.random.default_rng(seed)
    return Dataset(
        {"x": pick.normal(size=count), "s": pick.choice(["a", "b"], count).astype(object)},
        pick.integers(0, 2, count),
        {"kept": np.arange(count)},
    )


def test_a_part_of_kept_rows_is_read(tmp_path):
    count = 150_000  # more than two batches
    rows = rows_of(count)
    rows.save(tmp_path / "whole")
    with saving(tmp_path / "parts") as written:
        for begin in range(0, count, 40_001):
            written.add(rows.take(slice(begin, begin + 40_001)))
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "parts" / file.name).read_bytes() == file.read_bytes()
    where = np.array([0, 5, 65_535, 65_536, 149_999])
    assert take(tmp_path / "whole", where).beside["kept"].tolist() == where.tolist()
    assert len(take(tmp_path / "whole", where[:0])) == 0
    assert len(spread(tmp_path / "whole", 1000)) == 1000
    told = sample_columns(tmp_path / "whole", ("kept", "x"), most=1000)
    assert told["kept"].tolist() == list(range(0, count, 150))
    assert told["x"].tolist() == rows.features["x"][::150].tolist()
    halves = [list(half(tmp_path / "whole", ranking=ranking)) for ranking in (False, True)]
    found = np.concatenate([part.beside["kept"] for parts in halves for part in parts])
    assert sorted(found.tolist()) == list(range(count))


def peak(file, out):
    """Peak memory in MiB of a process that divides a file and writes the splits."""
    code = (
        "import sys; from pathlib import Path\n"
        "from trimgate import tasks; from trimgate.data import dataset\n"
        "file, out = sys.argv[1:]\n"
        "dataset.BATCH = 4096\n"
        "tasks.load_data([file], {n: f'{out}/{n}' for n in ('train', 'validation', 'test')},"
        " label='y', drop=[], keep=[], method='stratified', by='', validation=0.2, test=0.2,"
        " overlap='refuse', regression=False, seed=0, size=4096)\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print('peak', status.partition('VmHWM:')[2].split()[0])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(file), str(out)],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return int(ran.stdout.rpartition("peak ")[2].split()[0]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_of_dividing_hardly_grows_with_the_rows(tmp_path):
    columns, counts = 60, (40_000, 240_000)
    pick = np.random.default_rng(0)
    for count in counts:
        values = pick.integers(0, 1000, count)
        table = {f"x{i}": np.roll(values, i) for i in range(columns)}
        labels = pick.choice(["no", "yes"], count)
        file = tmp_path / f"{count}.parquet"
        pq.write_table(pa.table({**table, "y": labels}), file, row_group_size=10_000)
    small, large = (peak(tmp_path / f"{c}.parquet", tmp_path / f"out-{c}") for c in counts)
    held = (counts[1] - counts[0]) * columns * 8 / 2**20  # what the further rows would take
    assert large - small < held / 4, f"{small:.0f} and {large:.0f} MiB"
