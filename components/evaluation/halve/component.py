"""Says which recipes go on."""

from typing import List  # noqa: UP035 (KFP reads the annotation)

from kfp import dsl


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def halve(
    trials: List[str],  # noqa: UP006
    record: dsl.Output[dsl.Artifact],
    summary: dsl.Output[dsl.Markdown],
    metric: str,
    keep: float,
    hopeless: float,
    most: int = 0,
    seconds: float = 0.0,
) -> dict:
    """Says which recipes go on after a trial on a sample (successive halving).

    Args:
        trials: What each `screen` returned.
        record: The rung: every recipe, whether it goes on, and why.
        summary: The same for people.
        metric: The primary metric.
        keep: Share of the recipes that goes on.
        hopeless: Loss of the metric on the sample beyond which a recipe does not go on.
        most: At most so many go on; 0 for any number.
        seconds: What the recipes may take in full, all together; 0 for any time.

    Returns:
        By recipe, why it does not go on; an empty text for those that do.
    """
    from trimgate import tasks

    return tasks.halve(
        trials,
        record.path,
        summary.path,
        metric=metric,
        keep=keep,
        hopeless=hopeless,
        most=most,
        seconds=seconds,
    )
