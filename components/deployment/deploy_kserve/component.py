"""Releases a model on KServe, for those who have no GitOps repository."""

from kfp import dsl


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def deploy_kserve(
    uri: str,
    files: dsl.Input[dsl.Artifact],
    name: str,
    verdict: str,
    store: str,
    settings: dict,
    serving: dict,
    namespace: str = "",
    version: str = "",
    registered_model: str = "",
    tracking_uri: str = "",
    percent: int = 100,
    timeout: int = 600,
) -> str:
    """Verifies a published model, applies an InferenceService, and waits until it is ready.

    The pod's ServiceAccount needs the role `deployer`. A pipeline that promotes by Git does not
    need this component, and no right on the cluster.

    Args:
        uri: The published model's immutable URI.
        files: The card's files; the pod's resources are taken from the winner's benchmark.
        name: The InferenceService's name.
        verdict: The gate's outcome; only `pass` is deployed.
        store: Where models are kept by their digest.
        settings: The section `promote` of the config: whose signatures count.
        serving: The section `serving` of the config.
        namespace: Where; the pod's own when empty.
        version: The model's version in MLflow, which becomes the champion with all the traffic.
        registered_model: Name in the registry.
        tracking_uri: Where MLflow records.
        percent: Its share of the traffic; below 100 it is a canary beside the stable model.
        timeout: Seconds that it has to become ready.

    Returns:
        Where it answers.
    """
    from trimgate import tasks

    return tasks.deploy_kserve(
        uri,
        files.path,
        name=name,
        verdict=verdict,
        store=store,
        settings=settings,
        serving=serving,
        namespace=namespace,
        version=version,
        registered_model=registered_model,
        tracking_uri=tracking_uri,
        percent=percent,
        timeout=timeout,
    )
