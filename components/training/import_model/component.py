"""Makes the baseline from the file that the user brings."""

from kfp import dsl


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def import_model(
    file: dsl.Input[dsl.Model],
    train: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    name: str,
    builder: str = "",
    builder_arguments: dict = {},  # noqa: B006
    allow_pickle: bool = False,
    task: str = "",
    scores: str = "",
    source_digest: str = "",
):
    """Makes the baseline model directory from the model file that the user brings.

    Args:
        file: scikit-learn, XGBoost, LightGBM, torch or ONNX model file.
        train: Rows to try it on.
        model: The baseline: a model directory without any pickle.
        name: The model's name.
        builder: For torch: `package.module:function` that returns the module.
        builder_arguments: Keyword arguments for the builder.
        allow_pickle: Load a pickle; it runs code from the file.
        task: binary, multiclass or regression; found out when empty.
        scores: What a torch or ONNX model puts out; found out when empty.
        source_digest: SHA-256 of the file; when given, another file is refused.
    """
    from trimgate import tasks

    tasks.import_model(
        file.path,
        train.path,
        model.path,
        name=name,
        builder=builder,
        builder_arguments=builder_arguments,
        allow_pickle=allow_pickle,
        task=task,
        scores=scores,
        source_digest=source_digest,
    )
    model.metadata.update(tasks.describe_model(model.path))
