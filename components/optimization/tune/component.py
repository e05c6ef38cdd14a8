"""Tunes a model."""

from kfp import dsl


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def tune(
    model: dsl.Input[dsl.Model],
    train: dsl.Input[dsl.Dataset],
    validation: dsl.Input[dsl.Dataset],
    optimized: dsl.Output[dsl.Model],
    metric: str,
    target: dict,
    parameters: dict = {},  # noqa: B006
    seed: int = 0,
    recipes: list = [],  # noqa: B006
    screened: dict = {},  # noqa: B006
):
    """Searches better hyperparameters of the training, or better parameters of another step.

    A model or target that it does not apply to is not an error: the reason is left in place of
    the model, and `select` reports it.

    Args:
        model: The model directory to begin with.
        train: Rows that may be learnt and calibrated from.
        validation: Rows that choices are made on.
        optimized: The new model directory.
        metric: The primary metric.
        target: The target profile.
        parameters: Parameters of the technique, by name.
        seed: Makes the result reproducible.
        recipes: The recipes that go through this step.
        screened: What `halve` returned; empty when there was no trial on a sample.
    """
    from trimgate import tasks

    step = {"technique": "tune", **parameters}
    optimized.metadata.update(
        tasks.apply_technique(
            model.path,
            train.path,
            validation.path,
            optimized.path,
            step,
            metric=metric,
            target=target,
            seed=seed,
            recipes=recipes,
            screened=screened,
        )
    )
