"""scikit-learn estimators as skops files: no code in them, and equal bytes for equal models."""

import importlib
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from trimgate.errors import InvalidInput, MissingExtra

_TRUSTED = ("sklearn", "numpy", "scipy", "xgboost", "lightgbm", "builtins")


def load(path: Path) -> Any:
    """Loads an estimator; only types of the libraries that trimgate knows are made.

    Raises:
        InvalidInput: It is not a skops file, or it holds other types.
    """
    skops_io = _skops_io()
    try:
        names = skops_io.get_untrusted_types(file=path)
        foreign = _foreign(names)
        if not foreign:
            return skops_io.load(path, trusted=names)
    # a damaged file fails in as many ways as it has bytes
    except Exception as error:
        raise InvalidInput(
            f"is not a readable skops file ({_first_line(error)})",
            file=path,
            mend="save it again with skops.io.dump, with the versions installed here",
        ) from error
    raise InvalidInput(
        f"holds types that are not loaded from a file: {', '.join(foreign)}",
        file=path,
        mend="use only steps of scikit-learn, XGBoost and LightGBM, or export the model to ONNX",
    )


def foreign_types(path: Path) -> list[str]:
    """Names of the types in a skops file that are not of the libraries that trimgate knows."""
    return _foreign(_skops_io().get_untrusted_types(file=path))


def _foreign(names: list[str]) -> list[str]:
    return [name for name in names if not _is_trusted(name)]


def dump(model: Any, path: Path) -> None:
    """Saves an estimator. Equal models give equal bytes.

    skops names members after memory addresses and stamps them with the time; both are replaced.

    Raises:
        InvalidInput: A part of the estimator cannot be saved without pickle.
    """
    skops_io = _skops_io()
    try:
        data = skops_io.dumps(model)
    except Exception as error:
        raise InvalidInput(
            f"the model cannot be saved without pickle ({_first_line(error)})",
            mend="export it to ONNX and give that file",
        ) from error
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        schema = json.loads(source.read("schema.json"))
        members = set(source.namelist()) - {"schema.json"}
        renamed: dict[str, str] = {}
        schema = _canonical(schema, {}, members, renamed)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as target:
            for old, new in renamed.items():
                _write(target, new, _without_padding(new, source.read(old)))
            _write(target, "schema.json", json.dumps(schema).encode())


def _canonical(node: Any, ids: dict[int, int], members: set[str], renamed: dict[str, str]) -> Any:
    """The schema with object ids and member names replaced by running numbers."""
    if isinstance(node, list):
        return [_canonical(item, ids, members, renamed) for item in node]
    if isinstance(node, dict):
        return {
            key: ids.setdefault(value, len(ids) + 1)
            if key == "__id__" and isinstance(value, int)
            else _canonical(value, ids, members, renamed)
            for key, value in node.items()
        }
    if isinstance(node, str) and node in members:
        return renamed.setdefault(node, f"{len(renamed):06d}{Path(node).suffix}")
    return node


def _without_padding(name: str, content: bytes) -> bytes:
    """Zeroes the unused bytes of a structured array: the nodes of trees have some, at random."""
    if not name.endswith(".npy"):
        return content
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if array.dtype.names is None:
        return content
    clean = np.zeros(array.shape, array.dtype)
    for field in array.dtype.names:
        clean[field] = array[field]
    stream = io.BytesIO()
    np.save(stream, clean, allow_pickle=False)
    return stream.getvalue()


def _write(target: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_DEFLATED
    target.writestr(info, content)


# functions that estimators hold as their settings and that only compute
_FUNCTIONS = ("sklearn.feature_selection", "sklearn.metrics", "sklearn.utils.validation")
_OTHERS = ("collections.OrderedDict", "collections.defaultdict", "functools.partial")


def _is_trusted(name: str) -> bool:
    """Whether it is a class of a known library: functions could do anything when called."""
    module, _, attribute = name.rpartition(".")
    if name in _OTHERS or module.startswith(_FUNCTIONS):
        return True
    if module.split(".")[0] not in _TRUSTED:
        return False
    return isinstance(getattr(importlib.import_module(module), attribute, None), type)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


def own_process() -> None:
    """Says that this process is trimgate's alone, so that skops may be imported lightly.

    skops lists the names of all estimators when it is imported, for which scikit-learn imports
    every module that it has, and torch and pytest where they are installed: seconds, and hundreds
    of megabytes that would count as the model's. `load` trusts by library and needs no such list.
    In a user's process the list stays, because the user's own calls of skops need it.
    """
    global _light
    _light = True


_light = False


def _skops_io() -> Any:
    try:
        if _light and "skops.io" not in sys.modules:
            import sklearn.utils

            full = sklearn.utils.all_estimators
            sklearn.utils.all_estimators = lambda *_, **__: []
            try:
                import skops.io
            finally:
                sklearn.utils.all_estimators = full
        import skops.io
    except ImportError as error:
        raise MissingExtra("skops", "sklearn") from error
    return skops.io
