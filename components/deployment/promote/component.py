"""Releases a winner that passed the gate."""

from kfp import dsl


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def promote(
    winner: dsl.Input[dsl.Model],
    files: dsl.Input[dsl.Artifact],
    name: str,
    verdict: str,
    store: str,
    environment: str,
    settings: dict,
    version: str = "",
    registered_model: str = "",
    tracking_uri: str = "",
) -> str:
    """Publishes the winner and releases it to an environment by a commit.

    Args:
        winner: The winner's model directory.
        files: The card's files; the card is the text of a pull request.
        name: The model's name.
        verdict: The gate's outcome; only `pass` is promoted.
        store: Where models are kept by their digest.
        environment: Where it is released.
        settings: The section `promote` of the config. Without a repository releases are recorded
            in the store's folder; a token comes from the variable TRIMGATE_GIT_TOKEN.
        version: The model's version in MLflow.
        registered_model: The model's name in MLflow.
        tracking_uri: Where MLflow learns the version's URI.

    Returns:
        The published model's immutable URI.
    """
    from trimgate import tasks

    return tasks.promote(
        winner.path,
        files.path,
        name=name,
        verdict=verdict,
        version=version,
        registered_model=registered_model,
        tracking_uri=tracking_uri,
        store=store,
        environment=environment,
        settings=settings,
    )
