"""Decides whether the winner may be released."""

from kfp import dsl


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def gate(
    baseline_evaluation: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.Artifact],
    selection: dsl.Input[dsl.Artifact],
    served: dsl.Input[dsl.Artifact],
    verdict: dsl.Output[dsl.Artifact],
    summary: dsl.Output[dsl.Markdown],
    policy: dict = {},  # noqa: B006
) -> str:
    """Holds the winner against the rules, on the test split; a rejection is a result.

    Args:
        baseline_evaluation: The baseline on test.
        evaluation: The winner on test.
        selection: The ranking, with the winner's benchmark.
        served: What the model server did with the winner.
        verdict: The verdict record.
        summary: The verdict, for people.
        policy: The rules.

    Returns:
        pass, fail, inconclusive, or baseline (nothing beats it).
    """
    from trimgate import tasks

    return tasks.gate(
        baseline_evaluation.path,
        evaluation.path,
        selection.path,
        served.path,
        verdict.path,
        summary.path,
        policy=policy,
    )
