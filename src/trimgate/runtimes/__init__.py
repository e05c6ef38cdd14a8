"""Engines that serve a model directory, behind one face: `load(directory) -> Session`.

A runtime is one private module of this package with a module attribute `RUNTIME`; it is found
by that. Engines are imported when a model is loaded, not before.
"""

import functools
import importlib
import pkgutil
from pathlib import Path

from trimgate.errors import InvalidInput, NotApplicable
from trimgate.models.directory import read
from trimgate.models.scores import to_scores
from trimgate.runtimes._base import Runtime, Session
from trimgate.runtimes._predict import predict

__all__ = [
    "Runtime",
    "Session",
    "available",
    "get",
    "load",
    "missing_device",
    "names",
    "predict",
    "to_scores",
]


@functools.cache
def _runtimes() -> dict[str, Runtime]:
    modules = (
        importlib.import_module(f"{__name__}.{found.name}")
        for found in pkgutil.iter_modules(__path__)
    )
    runtimes = [module.RUNTIME for module in modules if hasattr(module, "RUNTIME")]
    return {runtime.name: runtime for runtime in sorted(runtimes, key=lambda r: str(r.name))}


def names() -> list[str]:
    """Names of all runtimes, sorted, whether or not this machine can run them."""
    return list(_runtimes())


def get(name: str) -> Runtime:
    """The runtime of that name.

    Raises:
        InvalidInput: There is none.
    """
    if name not in _runtimes():
        raise InvalidInput(
            "there is no such runtime",
            key="runtime",
            value=name,
            mend=f"choose one of {', '.join(names())}",
        )
    return _runtimes()[name]


def available() -> dict[str, str | None]:
    """By name: None where this machine can run it, else why not."""
    return {name: runtime.missing() for name, runtime in _runtimes().items()}


def missing_device(device: str) -> str | None:
    """Why no runtime here can compute on a target's device (`cpu` or `gpu`), or None."""
    from trimgate.runtimes._onnxruntime import missing_gpu

    return missing_gpu() if device == "gpu" else None


def load(directory: str | Path, *, threads: int = 1) -> Session:
    """Loads a model directory with the runtime that its `model.json` names.

    Args:
        directory: The model directory.
        threads: Intra-op threads. Some engines share one pool per process (see their modules).

    Raises:
        InvalidInput: It is not a model directory.
        NotApplicable: The runtime cannot run this model.
        MissingExtra: The runtime's package is not installed.
    """
    directory = Path(directory)
    info = read(directory)
    runtime = get(info.runtime.name)
    if reason := runtime.refusal(info):
        raise NotApplicable(reason, file=directory)
    return runtime.load(directory, info, threads=threads)
