"""Directories that are there whole or not at all."""

import pytest

from trimgate.directories import writing
from trimgate.errors import InvalidInput


def write(path, *, meanwhile=None, fail=False):
    with writing(path) as partial:
        (partial / "ours").touch()
        if meanwhile:
            path.mkdir()
            (path / meanwhile).touch()
        if fail:
            raise ZeroDivisionError


def found(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def test_whole_or_not_at_all(tmp_path):
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "a", fail=True)
    assert found(tmp_path) == []
    (tmp_path / "a").mkdir()
    write(tmp_path / "a")
    assert found(tmp_path) == ["a", "a/ours"]
    with pytest.raises(InvalidInput, match="already exists"):
        write(tmp_path / "a")


def test_another_process_made_it_meanwhile(tmp_path):
    with pytest.raises(InvalidInput, match="made by another process"):
        write(tmp_path / "a", meanwhile="theirs")
    assert found(tmp_path) == ["a", "a/theirs"]
