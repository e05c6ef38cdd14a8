"""A model directory as a KServe model."""

import asyncio
import functools
import logging
import uuid
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelRepository
from kserve.errors import ModelNotReady

from trimgate import models, runtimes
from trimgate.errors import InvalidInput
from trimgate.models._tokenizer import batches
from trimgate.models.directory import ModelInfo, TensorSpec, read
from trimgate.runtimes import Session
from trimgate.serving import _metrics, _rows, _tensors
from trimgate.serving._tensors import DATATYPES, Array

logger = logging.getLogger("trimgate.serving")

T = TypeVar("T")


class ServedModel(Model):  # type: ignore[misc]
    """Answers V1 rows and V2 tensors with one session.

    The session lives in `executor`, which has a single thread: that is what makes it safe, and
    the event loop stays free to answer probes.

    Args:
        directory: The model directory.
        name: Its name in the URLs.
        executor: The thread that loads and calls the session.
        threads: Intra-op threads of the session.
        max_rows: The most rows of one request.
        warm_up: Whether to call the session once before the model is ready.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str,
        executor: Executor,
        threads: int,
        max_rows: int,
        warm_up: bool,
    ) -> None:
        super().__init__(name)
        self.directory = directory
        self.info: ModelInfo = read(directory)
        self.threads = threads
        self.max_rows = max_rows
        self.warm_up = warm_up
        self.score_dtype = "float32"
        self._executor = executor
        self._session: Session | None = None

    @property
    def version(self) -> str:
        """The first 12 digits of the content digest."""
        return self.info.digest.removeprefix("sha256:")[:12]

    def load(self) -> bool:
        """Loads the session; blocks, and belongs into the executor's thread."""
        session = runtimes.load(self.directory, threads=self.threads)
        if self.warm_up:
            self._warm(session)
        self._session = session
        self._set_ready(True)
        return True

    def stop(self) -> None:
        """Takes the model out of service; requests that are queued already are answered."""
        self._set_ready(False)
        self._executor.submit(self._close)

    def start(self) -> None:
        """Does nothing: unlike KServe's own, a model is ready when it is loaded."""

    def get_input_types(self) -> list[dict[str, Any]]:
        """Input tensors, as KServe's metadata endpoints want them."""
        return [_describe(spec) for spec in _tensors.request_specs(self.info)]

    def get_output_types(self) -> list[dict[str, Any]]:
        """Output tensors, as KServe's metadata endpoints want them."""
        described = [_describe(spec) for spec in _tensors.output_specs(self.info)]
        described[0]["datatype"] = DATATYPES[self.score_dtype]
        return described

    async def predict(
        self, payload: dict[str, Any] | InferRequest, headers: dict[str, str] | None = None
    ) -> dict[str, Any] | InferResponse:
        """Answers the body of a V1 request or a V2 request.

        Raises:
            InvalidInput: The request does not fit the model.
        """
        answer: Callable[[Any], Any]
        answer = self._tensor_answer if isinstance(payload, InferRequest) else self._row_answer
        return await self.run(functools.partial(answer, payload))

    async def run(self, call: Callable[[], T]) -> T:
        """Calls a function in the session's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def _row_answer(self, payload: object) -> dict[str, Any]:
        if not isinstance(payload, dict) or "instances" not in payload:
            raise InvalidInput('the request must be {"instances": [...]} with a list of rows')
        features = _rows.from_instances(self.info, payload["instances"], self.max_rows)
        scores = self._scores(models.build_inputs(self.info, features))
        return {"predictions": _tensors.predictions(self.info, scores)}

    def _tensor_answer(self, request: InferRequest) -> InferResponse:
        outputs = _tensors.outputs(self.info, self._scores(self._inputs(request)))
        for wanted in request.request_outputs or ():
            if wanted.name not in outputs:
                raise InvalidInput(
                    f"the model has no such output; it has {', '.join(outputs)}",
                    key="outputs",
                    value=wanted.name,
                )
        names = [wanted.name for wanted in request.request_outputs or ()] or list(outputs)
        return InferResponse(
            response_id=request.id or str(uuid.uuid4()),
            model_name=self.name,
            model_version=self.version,
            infer_outputs=[_output(name, outputs[name], request) for name in names],
            use_binary_outputs=request.use_binary_outputs,
            requested_outputs=request.request_outputs,
        )

    def _inputs(self, request: InferRequest) -> dict[str, Array]:
        given = {tensor.name: tensor for tensor in request.inputs}
        if len(given) != len(request.inputs):
            raise InvalidInput("two inputs have the same name", key="inputs")
        wanted = {spec.name: spec for spec in _tensors.request_specs(self.info)}
        for name in given:
            if name not in wanted:
                raise InvalidInput(
                    f"the model has no such input; it has {', '.join(wanted)}",
                    key="inputs",
                    value=name,
                )
        inputs: dict[str, Array] = {}
        for name, spec in wanted.items():
            if name not in given:
                raise InvalidInput(f"the input {name!r} is missing", key="inputs")
            tensor = given[name]
            shape = _tensors.check_shape(spec, tensor.datatype, tensor.shape)
            _tensors.check_rows(shape[0], self.max_rows)
            if tensor._raw_data is not None:  # as_numpy would neither check it nor spare lists
                inputs[name] = _tensors.from_bytes(spec, shape, tensor._raw_data)
            else:
                inputs[name] = _tensors.from_list(spec, shape, tensor.data)
        if len({len(values) for values in inputs.values()}) != 1:
            raise InvalidInput("the inputs have different numbers of rows", key="inputs")
        return _tensors.model_inputs(self.info, inputs)

    def _scores(self, inputs: dict[str, Array]) -> Array:
        if self._session is None:
            raise ModelNotReady(self.name)
        odd = _tensors.check_finite(self.info, inputs)
        try:
            parts = [self._session.predict(part) for part in batches(self.info, inputs)]
            scores = parts[0] if len(parts) == 1 else np.concatenate(parts)
        except ValueError as error:  # such as a category that the encoder does not know
            raise InvalidInput(f"the model refuses the values: {error}", key="inputs") from error
        if not np.isfinite(scores).all():
            if odd:
                raise InvalidInput("the model has no answer to NaN or infinity", key="inputs")
            raise ArithmeticError("the model's scores are not finite")
        _metrics.count_rows(self, scores)
        return scores

    def _warm(self, session: Session) -> None:
        blank = {spec.name: _blank(spec) for spec in _tensors.request_specs(self.info)}
        inputs = _tensors.model_inputs(self.info, blank)
        try:
            for _ in range(3):
                scores = session.predict(inputs)
        except Exception as error:
            # A row of zeros and empty strings need not be one that the model knows, and engines
            # have exceptions of their own.
            logger.info("no warm-up: the model refused a blank row (%s)", error)
        else:
            self.score_dtype = scores.dtype.name

    def _close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _set_ready(self, ready: bool) -> None:
        self.ready = ready
        _metrics.READY.labels(self.name, self.info.digest).set(ready)


class Repository(ModelRepository):  # type: ignore[misc]
    """KServe's repository, but a model that was unloaded is not ready instead of unknown."""

    def unload(self, name: str) -> None:
        """Takes a model out of service."""
        self.models[name].stop()

    async def load(self, name: str) -> bool:
        """Takes a model into service again."""
        model: ServedModel = self.models[name]
        return model.ready or await model.run(model.load)


def _describe(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": list(spec.shape)}


def _blank(spec: TensorSpec) -> Array:
    shape = [1 if size == -1 else size for size in spec.shape]
    if spec.dtype == "string":
        return np.full(shape, spec.missing or "", dtype=object)
    return np.zeros(shape, dtype=spec.dtype)


def _output(name: str, array: Array, request: InferRequest) -> InferOutput:
    output = InferOutput(name, list(array.shape), _tensors.datatype_of(array), array)
    if request.from_grpc and request.use_binary_outputs:
        output.data = None  # KServe's own conversion fails on arrays
        output._raw_data = _tensors.to_bytes(array)
    elif request.from_grpc:
        output.data = array.reshape(-1).tolist()  # who sends contents wants contents back
    return output
