"""What becomes of a judged winner."""

import logging
from pathlib import Path

from trimgate.tasks._common import start

_log = logging.getLogger("trimgate.tasks")


def register(
    files: str,
    winner: str,
    *,
    verdict: str,
    tracking_uri: str,
    experiment: str,
    registered_model: str,
) -> str:
    """Records the run in MLflow; see `trimgate.ops.mlflow.record_run`."""
    from trimgate.ops.mlflow import record_run
    from trimgate.report import CardInput

    start()
    card = CardInput.model_validate_json((Path(files) / "card.json").read_bytes())
    version = record_run(
        card,
        Path(files),
        Path(winner),
        outcome=verdict,
        tracking_uri=tracking_uri,
        experiment=experiment,
        registered_model=registered_model,
    )
    _log.info("recorded in %s%s", experiment, f"; {registered_model} v{version}" if version else "")
    return version


def promote(winner: str, *, name: str, run: str, verdict: str, store: str) -> str:
    """Releases the winner to the local target; see `trimgate.ops.local_target.promote`."""
    from trimgate.ops.local_target import promote

    start()
    release = promote(winner, store, name=name, run=run, verdict=verdict)
    _log.info("released %s %s", name, release.digest)
    return str(Path(store) / release.uri)


def reject(verdict: str, *, fail_on_reject: bool) -> None:
    """Says that nothing was released.

    Raises:
        RuntimeError: `fail_on_reject` is set.
    """
    start()
    _log.info("nothing was released: the verdict is %s", verdict)
    if fail_on_reject:
        raise RuntimeError(f"the gate's verdict is {verdict}")
