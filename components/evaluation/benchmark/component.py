"""Times a candidate beside the baseline."""

from kfp import dsl


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def benchmark(
    baseline: dsl.Input[dsl.Model],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    rows: dsl.Input[dsl.Dataset],
    record: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    name: str,
    target: dict,
    settings: dict = {},  # noqa: B006
) -> str:
    """Times a candidate beside the baseline, interleaved in fresh processes.

    Also memory and cold start, energy and cost; several callers at once, load and limits where the
    target says so.

    Args:
        baseline: The baseline's model directory.
        model: The candidate's model directory.
        evaluation: The candidate's evaluation on validation.
        rows: Rows that the calls are made of.
        record: The benchmark record.
        metrics: Speed-ups and footprints, under the same names for every technique.
        name: Name of the recipe.
        target: The target profile.
        settings: Settings of the timing protocol.

    Returns:
        The candidate for `select` (compressed JSON, base64url).
    """
    from trimgate import tasks

    candidate, observed = tasks.benchmark(
        baseline.path,
        model.path,
        evaluation.path,
        rows.path,
        record.path,
        name=name,
        uri=model.uri,
        target=target,
        settings=settings,
    )
    tasks.log_metrics(metrics, observed)
    return candidate
