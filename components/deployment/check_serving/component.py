"""Loads the winner in the real model server and queries it."""

from kfp import dsl


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def check_serving(
    baseline: dsl.Input[dsl.Model],
    winner: dsl.Input[dsl.Model],
    rows: dsl.Input[dsl.Dataset],
    served: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
):
    """Serves winner and baseline, compares their answers with the library's, and times both.

    Args:
        baseline: The baseline's model directory.
        winner: The winner's model directory.
        rows: Rows that requests are made of.
        served: The record of checks and latencies.
        metrics: Served latencies.
    """
    from trimgate import tasks

    tasks.log_metrics(
        metrics, tasks.check_serving(baseline.path, winner.path, rows.path, served.path)
    )
