"""`trimgate deploy`."""

import argparse

from trimgate.cli._common import console, need
from trimgate.cli._promote import find_published
from trimgate.cli._releases import CONFIG, keep_champion, said
from trimgate.config import load_config
from trimgate.errors import InvalidInput
from trimgate.tasks import serving_for, trust_of


def run(arguments: argparse.Namespace) -> int:
    """Verifies a model that passed, applies its InferenceService, and waits until it is ready."""
    need("kubernetes", "kserve-cluster")
    from trimgate.ops.kserve import Cluster, deploy
    from trimgate.ops.promotion import Promotion
    from trimgate.ops.publish import check

    file = arguments.config or CONFIG
    config = load_config(file)
    if config.deploy is None:
        raise InvalidInput(
            "the key is missing: this config releases by Git", file=file, key="deploy",
            mend="use `trimgate promote`, or add `deploy: {namespace: ...}`",
        )  # fmt: skip
    mlflow = config.mlflow if config.mlflow.enabled else None
    published = find_published(arguments, config.promote, mlflow)
    if published is None:
        raise InvalidInput(
            "is no run, no version in the registry and no URI", key="what", value=arguments.what
        )
    name, model, card = published
    if name != config.name:
        raise InvalidInput("is another model than the config's", key="what", value=name,
                           mend=config.name)  # fmt: skip
    found = check(
        model.storage_uri,
        digest=model.digest or None,
        trust=trust_of(config.promote),
        mounts=config.promote.mounts,
    )
    model = model.model_copy(
        update={"digest": found.digest, "run": found.run, "verdict": found.verdict}
    )
    cluster = Cluster.connect(config.deploy.namespace)
    release = deploy(
        cluster, model, name=name, serving=serving_for(config.serving, card),
        percent=arguments.percent or config.deploy.percent,
    )  # fmt: skip
    out = console()
    status = cluster.wait_ready(
        name, timeout=config.deploy.timeout,
        on_change=lambda status: out.print(str(status), highlight=False, soft_wrap=True),
    )  # fmt: skip
    out.print(f"{said(release)}: {status.url}", highlight=False, soft_wrap=True)
    if release.canary is None:
        keep_champion(mlflow, Promotion(release))
    return 0
