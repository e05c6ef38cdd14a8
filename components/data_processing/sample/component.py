"""Takes a sample of the training rows."""

from kfp import dsl


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def sample(
    train: dsl.Input[dsl.Dataset],
    sampled: dsl.Output[dsl.Dataset],
    rows: int,
    effort: float = 1.0,
    seed: int = 0,
) -> int:
    """Takes a sample of the training rows, with the same share of each class.

    Args:
        train: The training rows.
        sampled: The sample; techniques find in it how much of the usual work to spend.
        rows: At most so many rows.
        effort: Share of the usual epochs and trials that techniques spend on it.
        seed: Makes the choice reproducible.

    Returns:
        How many rows it has.
    """
    from trimgate import tasks

    return tasks.sample(train.path, sampled.path, rows=rows, effort=effort, seed=seed)
