"""From a trained model to a gated, released winner.

check inputs → baseline → per recipe: technique steps, quality and speed on validation → select →
the winner in the real server and on the test split → gate → card → MLflow → sign, publish and
promote (or deploy), or reject.

The recipes are unrolled into a static graph in which shared beginnings stand once.
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from kfp import compiler, dsl
from trimgate.components.data_processing.load_data import load_data
from trimgate.components.data_processing.sample import sample
from trimgate.components.deployment.check_serving import check_serving
from trimgate.components.deployment.deploy_kserve import deploy_kserve
from trimgate.components.deployment.promote import promote
from trimgate.components.deployment.publish import publish
from trimgate.components.deployment.register import register
from trimgate.components.deployment.reject import reject
from trimgate.components.deployment.watch_rollout import watch_rollout
from trimgate.components.evaluation.benchmark import benchmark
from trimgate.components.evaluation.evaluate import evaluate
from trimgate.components.evaluation.gate import gate
from trimgate.components.evaluation.halve import halve
from trimgate.components.evaluation.report import report
from trimgate.components.evaluation.screen import screen
from trimgate.components.evaluation.select import select
from trimgate.components.training.import_model import import_model
from trimgate.pipelines._lint import check
from trimgate.pipelines.optimize._platform import on_cluster
from trimgate.pipelines.optimize._steps import technique_task

from trimgate.config import DATA_PATHS
from trimgate.judge.objective import dump
from trimgate.plan import Plan, files_digest
from trimgate.recipes import Node, trie


class Parameters(TypedDict, total=False):
    """What can be said anew when the compiled pipeline is run."""

    model_uri: str
    data_uri: str
    train_uri: str
    validation_uri: str
    test_uri: str
    mlflow_tracking_uri: str
    store: str
    run: str
    fail_on_reject: bool


class _Outputs(NamedTuple):
    verdict: str
    files: dsl.Artifact
    winner: dsl.Model
    rows: dsl.Dataset


def build(plan: Plan, *, code: str = "") -> Callable[..., Any]:
    """The pipeline function of a plan.

    Args:
        plan: What will be done.
        code: Digest of the library's code; set for local runs, whose cache would otherwise
            not notice that the library was edited. On a cluster the image's tag says it.
    """
    config = plan.config
    target = config.target.model_dump(mode="json", exclude_none=True)
    policy = plan.policy.model_dump(mode="json", exclude_none=True)
    timing = config.benchmark.model_dump(mode="json", exclude_none=True)
    split = config.data.split
    uris = {
        f"{'data' if key == 'path' else key}_uri": getattr(config.data, key)
        for key in DATA_PATHS
        if getattr(config.data, key) is not None
    }
    root = trie(plan.recipes)

    def settle(
        task: dsl.PipelineTask, name: str, *, cache: bool = True, files: Sequence[Path] = ()
    ) -> dsl.PipelineTask:
        task.set_display_name(name)
        task.set_caching_options(cache)
        if code:
            # what a task reads besides its inputs counts as part of its code
            read = [files_digest(files)] if files else []
            task.set_env_variable("TRIMGATE_CODE", "-".join([code, *read]))
        else:
            on_cluster(task, plan)
        return task

    def optimize(
        model_uri: str = config.model.path if code else plan.model_uri or config.model.path,
        data_uri: str = uris.get("data_uri", ""),
        train_uri: str = uris.get("train_uri", ""),
        validation_uri: str = uris.get("validation_uri", ""),
        test_uri: str = uris.get("test_uri", ""),
        mlflow_tracking_uri: str = config.mlflow.tracking_uri,
        store: str = config.promote.store,
        run: str = dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
        fail_on_reject: bool = False,
    ) -> _Outputs:
        given = {
            "data_uri": data_uri,
            "train_uri": train_uri,
            "validation_uri": validation_uri,
            "test_uri": test_uri,
        }
        model_file = dsl.importer(artifact_uri=model_uri, artifact_class=dsl.Model, reimport=False)
        model_file.set_display_name("model file")
        files = {}
        for key in uris:
            files[key] = dsl.importer(
                artifact_uri=given[key], artifact_class=dsl.Dataset, reimport=False
            )
            files[key].set_display_name(f"{key.removesuffix('_uri')} file")
        rows = settle(
            load_data(
                **{
                    "rows" if key == "data_uri" else f"{key.removesuffix('_uri')}_rows": task.output
                    for key, task in files.items()
                },
                label=config.data.label,
                drop=list(config.data.drop),
                keep=list(config.evaluation.columns),
                method=split.method if split else "stratified",
                by=(split.by if split else None) or "",
                validation_share=split.validation if split else 0.2,
                test_share=split.test if split else 0.2,
                overlap=config.data.overlap,
                regression=plan.model.task == "regression",
                seed=config.seed,
                source_digest=plan.data_digest if code else "",
            ),
            "check and split rows",
        )
        splits = {name: rows.outputs[name] for name in ("train", "validation", "test")}
        baseline = settle(
            import_model(
                file=model_file.output,
                train=splits["train"],
                name=config.name,
                builder=config.model.builder or "",
                builder_arguments=config.model.builder_arguments,
                allow_pickle=config.model.allow_pickle,
                task=plan.model.task,
                scores=config.model.scores or "",
                source_digest=plan.model_digest if code else "",
            ),
            "baseline",
        ).outputs["model"]

        def judged(model: Any, name: str, on: str, beside: Any = None) -> Any:
            return settle(
                evaluate(
                    model=model,
                    rows=splits[on],
                    split=on,
                    name=name,
                    metric=plan.metric,
                    extra_metrics=sorted(plan.policy.metrics),
                    settings=plan.evaluation.model_dump(
                        mode="json", exclude_defaults=True, exclude_none=True
                    ),
                    seed=config.seed,
                    **(
                        {}
                        if plan.evaluation.operating_point is None
                        else {"chosen_on": splits["validation"]}
                    ),
                    **({} if beside is None else {"baseline": beside}),
                ),
                f"{name}: quality on {on}",
            ).outputs["evaluation"]

        baseline_validation = judged(baseline, "baseline", "validation")
        objective = dump(config.goal)
        candidates = []
        screened: Any = None

        def apply(node: Node, model: Any, train: Any, title: str) -> Any:
            if node.step is None:
                raise AssertionError("only the root has no step")
            task = technique_task(
                node.step,
                model=model,
                train=train,
                validation=splits["validation"],
                metric=plan.metric,
                target=target,
                seed=config.seed,
                **(
                    {}
                    if screened is None
                    else {"recipes": node.all_recipes(), "screened": screened}
                ),
            )
            return settle(task, title, files=node.step.files).outputs["optimized"]

        def judge_all(node: Node, model: Any) -> None:
            for name in node.recipes:
                evaluation = judged(model, name, "validation", baseline_validation)
                timed = settle(
                    benchmark(
                        baseline=baseline,
                        model=model,
                        evaluation=evaluation,
                        rows=splits["validation"],
                        name=name,
                        target=target,
                        settings=timing,
                    ),
                    f"{name}: speed",
                )
                candidates.append(timed.outputs["Output"])
            for child in node.children:
                judge_all(child, apply(child, model, splits["train"], child.title))

        def try_all(node: Node, model: Any, train: Any, rung: int, trials: list[Any]) -> None:
            for name in node.recipes:
                tried = settle(
                    screen(
                        baseline=baseline,
                        model=model,
                        train=train,
                        validation=splits["validation"],
                        name=name,
                        metric=plan.metric,
                        objective=objective,
                        target=target,
                        seed=config.seed,
                    ),
                    f"{name}: trial {rung}",
                )
                trials.append(tried.outputs["Output"])
            for child in node.children:
                made = apply(child, model, train, f"{child.title} (sample {rung})")
                try_all(child, made, train, rung, trials)

        search = plan.search
        for rung in range(1, search.rungs + 1):
            sampled = settle(
                sample(
                    train=splits["train"],
                    rows=round(search.rows * search.keep ** (1 - rung)),
                    effort=search.effort,
                    seed=config.seed,
                ),
                f"sample {rung}",
            ).outputs["sampled"]
            trials: list[Any] = []
            try_all(root, baseline, sampled, rung, trials)
            last_rung = rung == search.rungs
            screened = settle(
                halve(
                    trials=trials,
                    metric=plan.metric,
                    keep=search.keep,
                    hopeless=search.hopeless,
                    most=(search.budget.trials or 0) if last_rung else 0,
                    seconds=(search.budget.seconds or 0.0) if last_rung else 0.0,
                ),
                f"who goes on {rung}",
            ).outputs["Output"]
        judge_all(root, baseline)
        chosen = settle(
            select(
                baseline=baseline,
                baseline_evaluation=baseline_validation,
                candidates=candidates,
                objective=objective,
                policy=policy,
            ),
            "select the winner",
        )
        winner_file = dsl.importer(
            artifact_uri=chosen.outputs["Output"], artifact_class=dsl.Model, reimport=True
        )
        winner_file.set_display_name("winner")
        winner = winner_file.output
        baseline_test = judged(baseline, "baseline", "test")
        winner_test = judged(winner, "winner", "test", baseline_test)
        served = settle(
            check_serving(
                baseline=baseline,
                winner=winner,
                rows=splits["validation"],
                target=target,
                settings=timing,
            ),
            "serve and query",
        ).outputs["served"]
        gated = settle(
            gate(
                baseline_evaluation=baseline_test,
                evaluation=winner_test,
                selection=chosen.outputs["selection"],
                served=served,
                policy=policy,
            ),
            "gate",
        )
        verdict = gated.outputs["Output"]
        card = settle(
            report(
                baseline=baseline,
                winner=winner,
                baseline_validation=baseline_validation,
                baseline_test=baseline_test,
                winner_test=winner_test,
                selection=chosen.outputs["selection"],
                served=served,
                verdict=gated.outputs["verdict"],
                run=run,
                data=rows.outputs["Output"],
                target=target,
                refused=plan.refused,
                seed=config.seed,
                # rows go to the card only where the config asks for them
                **(
                    {
                        "rows": splits["test"],
                        "example_rows": config.report.example_rows,
                        "hide": list(config.report.hide),
                    }
                    if config.report.example_rows
                    else {}
                ),
            ),
            "card",
        )
        last = card
        registered: dict[str, Any] = {}
        if config.mlflow.enabled:
            registered_model = config.mlflow.registered_model or config.name
            last = settle(
                register(
                    files=card.outputs["files"],
                    winner=winner,
                    verdict=verdict,
                    tracking_uri=mlflow_tracking_uri,
                    experiment=config.mlflow.experiment,
                    registered_model=registered_model,
                ),
                "record in MLflow",
                cache=False,
            )
            registered = {
                "version": last.output,
                "registered_model": registered_model,
                "tracking_uri": mlflow_tracking_uri,
            }
        settings = config.promote.model_dump(mode="json", exclude={"store"}, exclude_none=True)
        with dsl.If(verdict == "pass", name="passed"):
            published = settle(
                publish(
                    winner=winner,
                    files=card.outputs["files"],
                    store=store,
                    settings=settings,
                    **registered,
                    **({"layout": config.layout} if config.layout else {}),
                ),
                "sign and publish",
                cache=False,
            )
            release = {
                "uri": published.output,
                "files": card.outputs["files"],
                "name": config.name,
                "verdict": verdict,
                "store": store,
                "settings": settings,
            }
            if config.deploy is not None:
                settle(
                    deploy_kserve(
                        **release,
                        **registered,
                        serving=config.serving.model_dump(mode="json", exclude_unset=True),
                        **config.deploy.model_dump(exclude_none=True),
                    ),
                    "deploy",
                    cache=False,
                )
            else:
                promoted = settle(
                    promote(
                        **release,
                        environment=config.promote.first,
                        **({"version": last.output} if config.mlflow.enabled else {}),
                    ),
                    "promote",
                    cache=False,
                )
                if config.rollout.environment is not None:
                    settle(
                        watch_rollout(
                            rows=splits["validation"],
                            name=config.name,
                            source=config.promote.first,
                            store=store,
                            target=target,
                            settings=settings,
                            policy=config.rollout.model_dump(mode="json", exclude_none=True),
                        ),
                        "roll out",
                        cache=False,
                    ).after(promoted)
        with dsl.Else(name="not passed"):
            settle(
                reject(verdict=verdict, fail_on_reject=fail_on_reject), "reject", cache=False
            ).after(last)
        return _Outputs(verdict, card.outputs["files"], winner, splits["validation"])

    pipeline: Callable[..., Any] = dsl.pipeline(
        name=f"optimize-{config.name}", description=f"trimgate: {config.name} for {target['name']}"
    )(optimize)
    return pipeline


def compile_yaml(plan: Plan, path: str | Path, *, images: str = "") -> None:
    """Compiles a plan's pipeline to a file that Kubeflow takes.

    Args:
        plan: What will be done.
        path: The YAML file; replaced when it is there.
        images: Registry (and folder) that holds the images, such as
            `registry.example.com/team/`; empty for the public ones.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial.yaml")
    try:
        compiler.Compiler().compile(build(plan), str(partial))
        # components name the smallest image that might do; the plan knows which one does
        text = re.sub(r"image: trimgate/[\w-]+:[\w.]+", f"image: {plan.image}", partial.read_text())
        if images:
            prefix = images if images.endswith("/") else images + "/"
            text = text.replace("image: trimgate/", f"image: {prefix}trimgate/")
        partial.write_text(text)
        check(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
