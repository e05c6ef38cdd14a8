"""Tries a recipe's model roughly."""

from kfp import dsl


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def screen(
    baseline: dsl.Input[dsl.Model],
    model: dsl.Input[dsl.Model],
    train: dsl.Input[dsl.Dataset],
    validation: dsl.Input[dsl.Dataset],
    name: str,
    metric: str,
    objective: dict,
    target: dict,
    seed: int = 0,
) -> str:
    """Tries the model that a recipe made from a sample: quality and speed, roughly.

    Args:
        baseline: The baseline's model directory.
        model: The recipe's model directory.
        train: The sample that it was made from.
        validation: The validation rows; the half that techniques choose on is looked at.
        name: Name of the recipe.
        metric: The primary metric.
        objective: What to be best at, as for `select`; limits are not looked at.
        target: The target profile.
        seed: Makes the bootstrap reproducible.

    Returns:
        The trial for `halve` (compressed JSON, base64url).
    """
    from trimgate import tasks

    return tasks.screen(
        baseline.path,
        model.path,
        train.path,
        validation.path,
        name=name,
        metric=metric,
        objective=objective,
        target=target,
        seed=seed,
    )
