"""Begins a canary, and takes its rollout to the end."""

from kfp import dsl


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def watch_rollout(
    rows: dsl.Input[dsl.Dataset],
    name: str,
    source: str,
    store: str,
    target: dict,
    settings: dict,
    policy: dict,
) -> str:
    """Gives a canary more of the traffic as its evidence comes in, or rolls it back.

    Args:
        rows: Rows for the golden inputs, and for both models to answer.
        name: The model's name.
        source: The environment in which the model was released already.
        store: Where models are kept.
        target: The target profile.
        settings: The section `promote` of the config.
        policy: The section `rollout` of the config.

    Returns:
        `promoted`, `rolled back`, `proposed` (the pull request is not merged yet) or `nothing`
        (the model is stable there already).
    """
    from trimgate import tasks

    return tasks.watch_rollout(
        rows.path,
        name=name,
        source=source,
        store=store,
        threads=target["threads"],
        settings=settings,
        policy=policy,
    )
