"""torch.compile: the module that was trained, compiled to C++ for this CPU.

Options (`RuntimeChoice.options`):

- `max_autotune` (False): also try other kernels for matrix products; compiles for minutes.

Precision is `f32`, or `bf16` by autocast where the CPU has it.

Notes:
    It compiles when it is loaded, once for one row and once for any other number of rows, and
    keeps what it compiled in torch's own cache, so a later load on the same machine takes
    seconds. A C++ compiler and Python's headers must be there wherever it is served.

    `threads` is set for the whole process: torch has one pool.
"""

import os
import shutil
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trimgate import environment
from trimgate.errors import NotApplicable
from trimgate.models.directory import ModelInfo, TensorSpec
from trimgate.models.scores import to_scores
from trimgate.runtimes._base import Array, Runtime, Session
from trimgate.runtimes._support import Option, absent, bad_option, require, writable

_DEFAULTS: dict[str, Option] = {"max_autotune": False}
_COMPILERS = ("g++", "clang++", "c++")
# Tokens of a text while it warms up: any number that is not one.
_TOKENS = 16
_WARM_ROWS = (1, 3)


class CompiledSession(Session):
    """A module compiled by torch."""

    def __init__(self, compiled: Any, info: ModelInfo) -> None:
        self.info = info
        self._compiled = compiled
        self._names = [tensor.name for tensor in info.inputs]
        self._bf16 = info.runtime.precision == "bf16"

    def predict(self, inputs: Mapping[str, Array]) -> Array:
        """See `Session.predict`."""
        import torch

        given = [torch.from_numpy(writable(inputs[name])) for name in self._names]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            output = self._compiled(*given)
        if not isinstance(output, torch.Tensor):
            output = output[0]
        # the compiled code reuses its buffers
        return to_scores(output.float().numpy().copy(), self.info)

    def close(self) -> None:
        """Frees the model; the session cannot be used afterwards."""
        self._compiled = None


class TorchCompile(Runtime):
    """A torch module, compiled."""

    name = "torch"

    def missing(self) -> str | None:
        """See `Runtime.missing`."""
        if reason := absent("torch", "torch"):
            return reason
        named = os.environ.get("CXX")
        if not any(shutil.which(compiler) for compiler in ([named] if named else _COMPILERS)):
            return "torch.compile needs a C++ compiler, and there is none on the PATH (g++)"
        if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
            return "torch.compile needs the headers of Python (Python.h), and they are not there"
        return None

    def refusal(self, info: ModelInfo) -> str | None:
        """See `Runtime.refusal`."""
        if info.framework != "torch":
            return f"torch.compile needs a torch module, and this model is {info.framework}"
        if info.runtime.precision == "f16":
            return "torch.compile computes in f32 or bf16 here"
        if info.runtime.precision == "bf16" and not environment.has_bfloat16():
            return (
                f"this CPU ({environment.cpu_model()}) has no bfloat16 instructions "
                "(avx512_bf16 or amx_bf16), so it would be emulated and slow"
            )
        if problem := bad_option(info.runtime.options, _DEFAULTS):
            return f"torch {problem}"
        return None

    def load(self, directory: Path, info: ModelInfo, *, threads: int) -> Session:
        """See `Runtime.load`."""
        require("torch", "torch")
        if reason := self.missing():
            raise NotApplicable(reason, mend="install g++ and the headers, or use native")
        import torch

        from trimgate.models import load_trainable

        torch.set_num_threads(threads)
        tune = bool(info.runtime.options.get("max_autotune", _DEFAULTS["max_autotune"]))
        module = load_trainable(directory, info)
        compiled = torch.compile(
            module, dynamic=True, mode="max-autotune-no-cudagraphs" if tune else None
        )
        session = CompiledSession(compiled, info)
        try:
            for rows in _WARM_ROWS:
                session.predict({spec.name: _rows(spec, rows) for spec in info.inputs})
        # the compiler has errors of many kinds, as has the module that it runs
        except Exception as error:
            line = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise NotApplicable(
                f"torch cannot compile the module: {line[:300]}", file=directory
            ) from error
        return session


def _rows(spec: TensorSpec, rows: int) -> Array:
    """Some rows to warm up with: ones, as a mask of zeros would hide a whole text."""
    sizes = [_TOKENS if size < 0 else size for size in spec.shape[1:]]
    return np.ones((rows, *sizes), dtype=spec.dtype)


RUNTIME = TorchCompile()
