"""Ranks the candidates and names the winner."""

from typing import List  # noqa: UP035 (KFP reads the annotation)

from kfp import dsl


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def select(
    baseline: dsl.Input[dsl.Model],
    baseline_evaluation: dsl.Input[dsl.Artifact],
    candidates: List[str],  # noqa: UP006
    selection: dsl.Output[dsl.Artifact],
    leaderboard: dsl.Output[dsl.Markdown],
    objective: dict,
    policy: dict = {},  # noqa: B006
) -> str:
    """Ranks the candidates on the validation split and names the winner.

    Args:
        baseline: The baseline's model directory; it wins when nothing beats it.
        baseline_evaluation: The baseline on validation.
        candidates: What each `benchmark` returned.
        selection: The ranking and the candidates' records.
        leaderboard: The ranking, for people.
        objective: What to be best at (latency, throughput, size, memory, cost), with weights; or
            `minimize` one of them, `subject_to` upper limits.
        policy: The gate's rules; a candidate that breaks them on validation cannot win.

    Returns:
        URI of the winner's model directory.
    """
    from trimgate import tasks

    return tasks.select(
        baseline.path,
        baseline.uri,
        baseline_evaluation.path,
        candidates,
        selection.path,
        leaderboard.path,
        objective=objective,
        policy=policy,
    )
