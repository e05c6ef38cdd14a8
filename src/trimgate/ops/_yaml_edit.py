"""Changes values in a YAML text and leaves every other character as it is."""

from typing import Any

import yaml

from trimgate.errors import InvalidInput


def rewrite(text: str, new: Any) -> str:
    """The text with as few lines changed as it takes to say `new`.

    Comments, blank lines, quotes and the order of keys stay. Keys that are gone take their own
    lines with them; new ones come after the last of their mapping.

    Args:
        text: One YAML document.
        new: What it is to say: mappings, lists and scalars.

    Raises:
        InvalidInput: The text holds something that cannot be edited in place (anchors and block
            scalars where a value changes).
    """
    if yaml.safe_load(text) == new:
        return text
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode):
        return yaml.safe_dump(new, sort_keys=False, width=10**6)
    if not text.endswith("\n"):
        text += "\n"
    edits: list[tuple[int, int, str]] = []
    _compare(_Text(text), node, yaml.safe_load(text), new, edits)
    # From the end on; at one place what was found first (the inner mapping's) comes first.
    for _, (begin, end, put) in sorted(
        enumerate(edits), key=lambda edit: (*edit[1][:2], edit[0]), reverse=True
    ):
        text = text[:begin] + put + text[end:]
    if yaml.safe_load(text) != new:
        raise InvalidInput(
            "cannot be changed in place", mend="write it without anchors and block scalars"
        )
    return text


class _Text:
    """Where the lines of a text begin."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.starts = [0]
        for line in text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def lines(self, key: yaml.Node, value: yaml.Node) -> tuple[int, int]:
        """Begin and end of the lines that hold a key and its value, without what follows."""
        return self.starts[key.start_mark.line], self.starts[_last_line(value) + 1]


def _last_line(node: yaml.Node) -> int:
    """The last line with content; the parser's own mark is behind the comments after it."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style:
        return int(node.end_mark.line)
    last = node.value[-1]
    return _last_line(last[1] if isinstance(node, yaml.MappingNode) else last)


def _compare(
    text: _Text, node: yaml.Node, old: Any, new: Any, edits: list[tuple[int, int, str]]
) -> None:
    if old == new and type(old) is type(new):
        return
    if isinstance(node, yaml.MappingNode) and isinstance(new, dict) and not node.flow_style:
        pairs = {key.value: (key, value) for key, value in node.value}
        for name, (key, value) in pairs.items():
            if name not in new:
                edits.append((*text.lines(key, value), ""))
            elif _alike(value, old[name], new[name]):
                _compare(text, value, old[name], new[name], edits)
            else:
                edits.append((*text.lines(key, value), _block(name, new[name], key)))
        added = [name for name in new if name not in pairs]
        if added:
            key, value = node.value[-1]
            end = text.lines(key, value)[1]
            edits.append((end, end, "".join(_block(name, new[name], key) for name in added)))
    elif isinstance(node, yaml.SequenceNode) and _alike(node, old, new):
        for item, before, after in zip(node.value, old, new, strict=True):
            _compare(text, item, before, after, edits)
    else:
        style = getattr(node, "style", None)
        edits.append((node.start_mark.index, node.end_mark.index, _inline(new, style)))


def _alike(node: yaml.Node, old: Any, new: Any) -> bool:
    """Whether a change can be made inside the value's own text."""
    if isinstance(node, yaml.SequenceNode):
        return isinstance(new, list) and (bool(node.flow_style) or len(old) == len(new))
    if isinstance(node, yaml.MappingNode):
        return isinstance(new, dict) and bool(new)
    return not isinstance(new, dict | list)


def _block(name: str, value: Any, key: yaml.Node) -> str:
    indent = " " * key.start_mark.column
    dumped = yaml.safe_dump({name: value}, sort_keys=False, width=10**6)
    return "".join(indent + line for line in dumped.splitlines(keepends=True))


def _inline(value: Any, style: str | None) -> str:
    quoted = style if isinstance(value, str) and style in ("'", '"') else None
    dumped = yaml.safe_dump(
        value, default_flow_style=True, default_style=quoted, sort_keys=False, width=10**6
    )
    return dumped.removesuffix("\n").removesuffix("\n...")
