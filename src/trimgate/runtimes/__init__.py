"""Engines that serve a model directory, behind one face: `load(directory) -> Session`.

A runtime is one private module of this package with a module attribute `RUNTIME`; it is found
by that. Engines are imported when a model is loaded, not before.
"""

import functools
import importlib
import pkgutil
from pathlib import Path

from trimgate import environment
from trimgate.errors import InvalidInput, NotApplicable
from trimgate.models.directory import ModelInfo, read
from trimgate.models.scores import to_scores
from trimgate.runtimes._base import Runtime, Session
from trimgate.runtimes._openvino import preload_tbb
from trimgate.runtimes._predict import predict
from trimgate.runtimes._switch import SwitchingSession

__all__ = [
    "Runtime",
    "Session",
    "available",
    "get",
    "load",
    "missing_device",
    "names",
    "predict",
    "preload_tbb",
    "refusal",
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
    return _load(directory, read(directory), threads)


def refusal(info: ModelInfo) -> str | None:
    """Why the runtime that a record names, or the one for many rows, cannot run it, or None."""
    for choice in info.runtime.engines():
        if lacking := [flag for flag in choice.cpu_flags if flag not in environment.cpu_flags()]:
            return (
                f"the graph was optimized offline for a CPU with {', '.join(lacking)}, which this "
                f"one ({environment.cpu_model()}) lacks; optimize it again for this CPU"
            )
        alone = choice.model_copy(update={"large": None})
        if reason := get(choice.name).refusal(info.model_copy(update={"runtime": alone})):
            return reason
    return None


def _load(directory: Path, info: ModelInfo, threads: int) -> Session:
    if reason := refusal(info):
        raise NotApplicable(reason, file=directory)
    large = info.runtime.large
    if large is None:
        return get(info.runtime.name).load(directory, info, threads=threads)
    few = info.model_copy(update={"runtime": info.runtime.model_copy(update={"large": None})})
    many = info.model_copy(update={"runtime": large.runtime})
    small = _load(directory, few, threads)
    try:
        return SwitchingSession(info, small, _load(directory, many, threads), large.rows)
    except BaseException:
        small.close()
        raise
