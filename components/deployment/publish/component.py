"""Scans, signs and stores a winner that passed the gate."""

from kfp import dsl


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def publish(
    winner: dsl.Input[dsl.Model],
    files: dsl.Input[dsl.Artifact],
    store: str,
    settings: dict,
    version: str = "",
    tracking_uri: str = "",
    registered_model: str = "",
    layout: str = "",
) -> str:
    """Refuses unsafe files, writes the provenance, signs, and uploads the winner.

    Args:
        winner: The winner's model directory.
        files: The card's files.
        store: Where models are kept by their digest.
        settings: The section `promote` of the config. Paths of keys are those in the pod;
            credentials of a store come from the variables AWS_ACCESS_KEY_ID, ...
        version: The winner's version in MLflow, which is told the URI; empty for none.
        tracking_uri: Where MLflow records.
        registered_model: Name in the registry.
        layout: triton or openvino, whose server is to read the model too; empty for none.

    Returns:
        The published model's immutable URI.
    """
    from trimgate import tasks

    return tasks.publish(
        winner.path,
        files.path,
        store=store,
        settings=settings,
        version=version,
        tracking_uri=tracking_uri,
        registered_model=registered_model,
        layout=layout,
    )
