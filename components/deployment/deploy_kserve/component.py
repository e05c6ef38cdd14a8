"""Releases a model on KServe, for those who have no GitOps repository."""

from kfp import dsl


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def deploy_kserve(
    uri: str,
    name: str,
    digest: str,
    run: str,
    verdict: str,
    serving: dict,
    benchmark: dsl.Input[dsl.Artifact] = None,
    namespace: str = "",
    version: str = "",
    percent: int = 100,
    timeout: int = 600,
) -> str:
    """Applies an InferenceService by server-side apply, and waits until it is ready.

    The pod's ServiceAccount needs the role `deployer`. A pipeline that promotes by Git does not
    need this component, and no right on the cluster.

    Args:
        uri: The model's immutable place in a store.
        name: The InferenceService's name.
        digest: Digest of the model.
        run: Id of the run that judged it.
        verdict: The gate's outcome; only `pass` is deployed.
        serving: How it is served: fields of `trimgate.ops.kserve.Serving`.
        benchmark: The benchmark of the model, from which its resources are taken.
        namespace: Where; the pod's own when empty.
        version: Its version in the registry.
        percent: Its share of the traffic; below 100 it is a canary beside the stable model.
        timeout: Seconds that it has to become ready.

    Returns:
        Where it answers.
    """
    from trimgate import tasks

    return tasks.deploy_kserve(
        uri,
        name=name,
        digest=digest,
        run=run,
        verdict=verdict,
        serving=serving,
        benchmark=benchmark.path if benchmark else "",
        namespace=namespace,
        version=version,
        percent=percent,
        timeout=timeout,
    )
