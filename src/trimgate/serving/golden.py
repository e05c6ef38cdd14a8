"""Golden inputs: rows that a served model must answer as the library does."""

import json
from pathlib import Path

from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput, TrimgateError
from trimgate.models.directory import read
from trimgate.serving import _tensors
from trimgate.serving._client import HttpClient, RequestFailed
from trimgate.serving.smoke import same


class OtherModel(TrimgateError):
    """The server holds another model than the one that the golden inputs are of."""


class GoldenInputs:
    """Rows, and what a session in this process answers to them.

    Args:
        directory: Model directory; its files are verified against their digests.
        rows: The rows.
        threads: Intra-op threads of the session.
        tolerance: Largest difference of a score, relative; labels must be equal.

    Raises:
        InvalidInput: It is not a model directory, was altered, or has no answer to the rows.
    """

    def __init__(
        self, directory: str | Path, rows: Dataset, *, threads: int = 1, tolerance: float = 1e-6
    ) -> None:
        from trimgate import models, runtimes

        self.info = read(directory, verify=True)
        self.rows = len(rows)
        self._tolerance = tolerance
        session = runtimes.load(directory, threads=threads)
        try:
            scores = session.predict(models.build_inputs(self.info, rows.features))
        except InvalidInput:
            raise
        except Exception as error:  # engines have exceptions of their own
            told = " ".join(str(error).split())
            raise InvalidInput(
                f"the model gives no answer to the golden inputs: {told}", file=directory
            ) from error
        finally:
            session.close()
        self._expected = _tensors.outputs(self.info, scores)
        self._sent = _tensors.request_tensors(self.info, rows.features)

    def problem(self, url: str, name: str, timeout: float = 30.0) -> str | None:
        """What is not as it should be, in words; None when a server answers as the library does.

        Args:
            url: Base URL of the server.
            name: The model's name there.
            timeout: Seconds for each request.

        Raises:
            OtherModel: It is another model, so its answers say nothing.
            OSError: The server does not answer at all.
        """
        with HttpClient(url, name, timeout) as client:
            try:
                told = client.get(f"/v2/models/{client.name}")
                digest = told.get("parameters", {}).get("digest", self.info.digest)
                if digest != self.info.digest:
                    raise OtherModel(f"the server at {url} holds another model: {digest}")
                same(client.infer(self._sent), self._expected, self._tolerance)
            except RequestFailed as error:
                return f"the server refuses them: {error}"
            except (AssertionError, KeyError, json.JSONDecodeError) as error:
                return f"the served model answers otherwise than the library: {error}"
        return None
