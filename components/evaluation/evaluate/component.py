"""Judges a model's quality on one split."""

from kfp import dsl


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def evaluate(
    model: dsl.Input[dsl.Model],
    rows: dsl.Input[dsl.Dataset],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    classes: dsl.Output[dsl.ClassificationMetrics],
    split: str,
    name: str,
    metric: str,
    baseline: dsl.Input[dsl.Artifact] = None,  # type: ignore[assignment]
    chosen_on: dsl.Input[dsl.Dataset] = None,  # type: ignore[assignment]
    settings: dict = {},  # noqa: B006
    confidence: float = 0.95,
    extra_metrics: list = [],  # noqa: B006
    seed: int = 0,
):
    """Scores every row and judges the model, paired with the baseline on the same rows.

    Args:
        model: The model directory.
        rows: The rows of the split.
        evaluation: The record, and the per-row predictions as Parquet.
        metrics: Every metric, under the same names for every technique.
        classes: Confusion matrix and ROC curve of a classifier.
        split: validation or test.
        name: Name of the recipe, or `baseline`.
        metric: The primary metric.
        baseline: The baseline's evaluation on the same rows; empty for the baseline itself.
        chosen_on: The validation rows, on which the operating point is chosen; empty for none.
        settings: The operating point, costs and slices.
        confidence: Two-sided level of the intervals.
        extra_metrics: Metrics to report besides the task's own.
        seed: Makes the bootstrap reproducible.
    """
    from trimgate import tasks

    observed = tasks.evaluate(
        model.path,
        rows.path,
        evaluation.path,
        split=split,
        name=name,
        metric=metric,
        baseline=baseline.path if baseline else None,
        chosen_on=chosen_on.path if chosen_on else None,
        settings=settings,
        confidence=confidence,
        extra_metrics=extra_metrics,
        seed=seed,
    )
    tasks.log_metrics(metrics, observed)
    tasks.log_classification(classes, evaluation.path)
