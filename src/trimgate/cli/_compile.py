"""`trimgate compile`."""

import argparse
from pathlib import Path

from trimgate.cli._common import check_output, console, plan_from


def run(arguments: argparse.Namespace) -> int:
    """Checks everything as `run` does, then writes the pipeline."""
    check_output(Path(arguments.output))
    plan = plan_from(arguments.config)
    from trimgate.pipelines.optimize import compile_yaml

    compile_yaml(plan, arguments.output, images=arguments.images)
    names = ", ".join(recipe.name for recipe in plan.recipes)
    console().print(f"{arguments.output}: {len(plan.recipes)} recipes ({names})", highlight=False)
    return 0
