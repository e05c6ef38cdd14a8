"""Releases a winner that passed the gate."""

from kfp import dsl


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def promote(
    winner: dsl.Input[dsl.Model],
    name: str,
    run: str,
    verdict: str,
    store: str,
) -> str:
    """Copies the winner into the immutable store and points the release at it.

    Args:
        winner: The winner's model directory.
        name: The model's name.
        run: Id of the run.
        verdict: The gate's outcome; only `pass` is promoted.
        store: Folder of the local target.

    Returns:
        The model's place in the store.
    """
    from trimgate import tasks

    return tasks.promote(winner.path, name=name, run=run, verdict=verdict, store=store)
