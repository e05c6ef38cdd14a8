"""Releases a published model."""

from kfp import dsl


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def promote(
    uri: str,
    files: dsl.Input[dsl.Artifact],
    name: str,
    verdict: str,
    store: str,
    environment: str,
    settings: dict,
    version: str = "",
) -> str:
    """Verifies a published model and releases it to an environment by a commit.

    Args:
        uri: The published model's immutable URI.
        files: The card's files; the card is the text of a pull request.
        name: The model's name.
        verdict: The gate's outcome; only `pass` is promoted.
        store: Where models are kept by their digest.
        environment: Where it is released.
        settings: The section `promote` of the config. Without a repository releases are recorded
            in the store's folder; a token comes from the variable TRIMGATE_GIT_TOKEN.
        version: The model's version in MLflow.

    Returns:
        The URI.
    """
    from trimgate import tasks

    return tasks.promote(
        uri,
        files.path,
        name=name,
        verdict=verdict,
        version=version,
        store=store,
        environment=environment,
        settings=settings,
    )
