"""Directories that are there whole or not at all."""

import pytest

from trimgate.directories import writing
from trimgate.errors import InvalidInput


def test_whole_or_not_at_all(tmp_path):
    with pytest.raises(ZeroDivisionError), writing(tmp_path / "a") as partial:
        (partial / "file").touch()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    with writing(tmp_path / "a") as partial:
        (partial / "file").touch()
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["file"]
    with pytest.raises(InvalidInput, match="already exists"), writing(tmp_path / "a"):
        pass


def test_another_process_made_it_meanwhile(tmp_path):
    with pytest.raises(InvalidInput, match="made by another process"), writing(tmp_path / "a"):
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "theirs").touch()
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == ["a", "a/theirs"]
