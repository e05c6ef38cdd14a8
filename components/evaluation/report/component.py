"""Makes the card."""

from kfp import dsl


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def report(
    baseline: dsl.Input[dsl.Model],
    winner: dsl.Input[dsl.Model],
    baseline_validation: dsl.Input[dsl.Artifact],
    baseline_test: dsl.Input[dsl.Artifact],
    winner_test: dsl.Input[dsl.Artifact],
    selection: dsl.Input[dsl.Artifact],
    served: dsl.Input[dsl.Artifact],
    verdict: dsl.Input[dsl.Artifact],
    files: dsl.Output[dsl.Artifact],
    card: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
    run: str,
    data: str,
    target: dict,
    refused: dict = {},  # noqa: B006
    seed: int = 0,
    rows: dsl.Input[dsl.Dataset] = None,  # type: ignore[assignment]
    example_rows: int = 0,
    hide: list = [],  # noqa: B006
):
    """Makes the card: what was done, how it was judged, and what the verdict is.

    Args:
        baseline: The baseline's model directory.
        winner: The winner's model directory.
        baseline_validation: The baseline on validation.
        baseline_test: The baseline on test.
        winner_test: The winner on test.
        selection: The ranking and the candidates' records.
        served: What the model server did with the winner.
        verdict: The verdict record.
        files: The card as HTML, Markdown and JSON, in one folder.
        card: The card as HTML.
        summary: The card as Markdown.
        run: Id of the run.
        data: What `load_data` returned.
        target: The target profile.
        refused: Recipes that were not tried, with the reason, by name.
        seed: The run's seed.
        rows: The test rows; given only when examples of them are to be shown.
        example_rows: So many of those on which the models disagree are shown with their values.
        hide: Columns whose values are not shown.
    """
    from trimgate import tasks

    tasks.report(
        baseline.path,
        winner.path,
        baseline_validation.path,
        baseline_test.path,
        winner_test.path,
        selection.path,
        served.path,
        verdict.path,
        files.path,
        card.path,
        summary.path,
        run=run,
        data=data,
        target=target,
        refused=refused,
        seed=seed,
        rows=rows.path if rows else None,
        example_rows=example_rows,
        hide=hide,
    )
