"""Reads the YAML that a user writes, and says in one line what is wrong with it."""

from pathlib import Path
from typing import Any

import yaml

from trimgate.errors import InvalidInput

_MOST_BYTES = 2**20
_MOST_VALUES = 100_000


# A compiled pipeline takes seconds without libyaml, which PyYAML's wheels hold.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def documents(text: str) -> list[Any]:
    """The documents of YAML that a program wrote, such as a compiled pipeline.

    Raises:
        yaml.YAMLError: It is not YAML.
    """
    return list(yaml.load_all(text, _LOADER))


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a mapping.

    Raises:
        InvalidInput: The file is missing, is not text or YAML, is too large once its aliases
            are written out, has a key twice, or holds something else.
    """
    if path.is_dir():
        raise InvalidInput("is a folder", file=path, mend="name the config file in it")
    if not path.exists():
        raise InvalidInput(
            "the file is missing", file=path, mend="`trimgate init --model M --data D` writes one"
        )
    try:
        with path.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"cannot be read ({error.strerror})", file=path) from error
    if len(content) > _MOST_BYTES:
        raise InvalidInput("is larger than 1 MiB", file=path, mend="is it really the config?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InvalidInput(
            f"is not YAML: line {line} is not UTF-8 text",
            file=path,
            mend="save it in the encoding UTF-8",
        ) from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _check(node, path)
        raw = yaml.safe_load(text)
    except RecursionError as error:
        raise InvalidInput("is nested too deeply", file=path) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise InvalidInput(
            f"is not YAML{where}: {problem}",
            file=path,
            mend="check the colons, quotes and indentation there",
        ) from error
    except ValueError as error:  # such as a date that does not exist
        raise InvalidInput(f"is not YAML: {error}", file=path) from error
    if not isinstance(raw, dict):
        raise InvalidInput(
            "must be a mapping with `name`, `model` and `data`, and it "
            + ("is empty" if raw is None else f"is a {type(raw).__name__}"),
            file=path,
            mend="`trimgate init --model M --data D` writes one",
        )
    return raw


def _check(root: yaml.Node, path: Path) -> None:
    """Refuses keys that stand twice, and aliases that would make the file explode."""
    sizes: dict[int, int | None] = {}  # None: below itself

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            known = sizes[id(node)]
            if known is None:
                raise InvalidInput("an anchor holds itself", file=path, mend="write it out")
            return known
        sizes[id(node)] = None
        total = 1
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if key.value in seen:
                        line = key.start_mark.line + 1
                        raise InvalidInput(
                            f"the key stands twice (again at line {line})",
                            file=path,
                            key=key.value,
                            mend="keep one of them",
                        )
                    seen.add(key.value)
                total += size(key) + size(value)
        elif isinstance(node, yaml.SequenceNode):
            total += sum(map(size, node.value))
        if total > _MOST_VALUES:
            raise InvalidInput(
                f"holds more than {_MOST_VALUES} values once its aliases are written out", file=path
            )
        sizes[id(node)] = total
        return total

    size(root)
