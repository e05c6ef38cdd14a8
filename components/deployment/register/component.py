"""Records the run in MLflow and registers the winner."""

from kfp import dsl


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def register(
    files: dsl.Input[dsl.Artifact],
    winner: dsl.Input[dsl.Model],
    verdict: str,
    tracking_uri: str,
    experiment: str,
    registered_model: str,
) -> str:
    """Records the run and its candidates in MLflow; a winner that passed becomes a version.

    Args:
        files: The card's folder.
        winner: The winner's model directory.
        verdict: The gate's outcome.
        tracking_uri: Where MLflow records.
        experiment: Name of the experiment.
        registered_model: Name in the registry.

    Returns:
        The model's version, or an empty text when it did not pass.
    """
    from trimgate import tasks

    return tasks.register(
        files.path,
        winner.path,
        verdict=verdict,
        tracking_uri=tracking_uri,
        experiment=experiment,
        registered_model=registered_model,
    )
