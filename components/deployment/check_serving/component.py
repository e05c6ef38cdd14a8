"""Loads the winner in the real model server and queries it."""

from kfp import dsl


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def check_serving(
    baseline: dsl.Input[dsl.Model],
    winner: dsl.Input[dsl.Model],
    rows: dsl.Input[dsl.Dataset],
    served: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    target: dict,
    settings: dict = {},  # noqa: B006
):
    """Serves winner and baseline, compares their answers with the library's, and times both.

    Args:
        baseline: The baseline's model directory.
        winner: The winner's model directory.
        rows: Rows that requests are made of.
        served: The record of checks and latencies.
        metrics: Served latencies.
        target: The target profile.
        settings: Settings of the timing protocol, those of the load test among them.
    """
    from trimgate import tasks

    observed = tasks.check_serving(
        baseline.path, winner.path, rows.path, served.path, target=target, settings=settings
    )
    tasks.log_metrics(metrics, observed)
