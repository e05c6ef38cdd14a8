"""Ends a run whose winner did not pass."""

from kfp import dsl


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def reject(verdict: str, fail_on_reject: bool = False):
    """Says that nothing was released; a rejection is a result, so the run stays green.

    Args:
        verdict: The gate's outcome.
        fail_on_reject: End red instead, for those who want it.

    Raises:
        RuntimeError: The verdict is not `pass` and `fail_on_reject` is set.
    """
    from trimgate import tasks

    tasks.reject(verdict, fail_on_reject=fail_on_reject)
