"""Reads, divides and checks the rows."""

from kfp import dsl


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def load_data(
    train: dsl.Output[dsl.Dataset],
    validation: dsl.Output[dsl.Dataset],
    test: dsl.Output[dsl.Dataset],
    label: str,
    rows: dsl.Input[dsl.Dataset] = None,  # type: ignore[assignment]
    train_rows: dsl.Input[dsl.Dataset] = None,  # type: ignore[assignment]
    validation_rows: dsl.Input[dsl.Dataset] = None,  # type: ignore[assignment]
    test_rows: dsl.Input[dsl.Dataset] = None,  # type: ignore[assignment]
    drop: list = [],  # noqa: B006
    keep: list = [],  # noqa: B006
    method: str = "stratified",
    by: str = "",
    validation_share: float = 0.2,
    test_share: float = 0.2,
    overlap: str = "refuse",
    regression: bool = False,
    seed: int = 0,
    source_digest: str = "",
) -> str:
    """Reads, divides and checks the rows that every later step works on.

    Techniques see `train` and `validation`; the gate alone sees `test`.

    Args:
        train: Rows that techniques may learn and calibrate from.
        validation: Rows that choices are made on (one half) and candidates ranked on (the other).
        test: Rows that the gate looks at, once.
        label: The column (or array) to predict.
        rows: One Parquet, CSV or .npz file to divide; or else give the next three.
        train_rows: The train rows.
        validation_rows: The validation rows.
        test_rows: The test rows.
        drop: Columns that the model does not take.
        keep: Columns that slices are made of; they may be among those of `drop`.
        method: temporal, stratified or random.
        by: The column that orders the rows of a temporal split.
        validation_share: Share of the rows.
        test_share: Share of the rows.
        overlap: What to do with rows that splits share: refuse, drop or allow.
        regression: Labels are values, not classes.
        seed: Makes the split reproducible.
        source_digest: SHA-256 over the files; when given, other files are refused.

    Returns:
        A description of the data (JSON, base64url) for the report.
    """
    from trimgate import tasks

    given = [rows] if rows else [train_rows, validation_rows, test_rows]
    return tasks.load_data(
        [artifact.path for artifact in given],
        {"train": train.path, "validation": validation.path, "test": test.path},
        label=label,
        drop=drop,
        keep=keep,
        method=method,
        by=by,
        validation=validation_share,
        test=test_share,
        overlap=overlap,
        regression=regression,
        seed=seed,
        source_digest=source_digest,
    )
