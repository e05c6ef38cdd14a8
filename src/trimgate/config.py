"""`optimize.yaml`: what a user writes, typed; unknown keys are refused."""

import difflib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from trimgate._yaml import read_yaml
from trimgate.errors import InvalidInput
from trimgate.judge.benchmark import BenchmarkSettings
from trimgate.judge.objective import Constrained, Goal, Objective, goal
from trimgate.judge.policy import GatePolicy
from trimgate.judge.settings import EvaluationSettings
from trimgate.models.directory import ScoreKind, Task
from trimgate.ops.kserve import ENGINES, Layout, Serving
from trimgate.ops.release import ModelName
from trimgate.ops.rollout.policy import RolloutPolicy
from trimgate.targets import PROFILES, Target


class Section(BaseModel):
    """A part of the config: frozen, typed, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class ModelSection(Section):
    """The trained model.

    Attributes:
        path: scikit-learn `.skops` (or `.joblib`/`.pkl` with `allow_pickle`), XGBoost
            `.json`/`.ubj`, LightGBM `.txt`, torch `.safetensors`/`.pt` with `builder`, `.onnx`,
            or the folder of a text classifier of `transformers` with its `tokenizer.json`; or a
            model that was published: `models:/NAME/VERSION`, `models:/NAME@ALIAS`, or its folder.
        builder: For torch: `package.module:function` that returns the module.
        builder_arguments: Keyword arguments for the builder.
        allow_pickle: Load a pickle. It runs code from the file: only for files you made.
        task: What it predicts; found out from the model and the labels when left out.
        scores: What a torch or ONNX model puts out; found out from the graph when left out.
    """

    path: str
    builder: str | None = Field(default=None, pattern=r"^[\w.]+:\w+$")
    builder_arguments: dict[str, Any] = Field(default_factory=dict)
    allow_pickle: bool = False
    task: Task | None = None
    scores: ScoreKind | None = None


class SplitSection(Section):
    """How one file of rows is divided into train, validation and test.

    Attributes:
        method: `temporal` goes by the order of `by` (the newest rows are the test); `stratified`
            keeps the share of each class; `random` does neither.
        by: For `temporal`: the column that orders the rows.
        validation: Share of rows that choices are made on (half of them) and candidates are
            ranked on (the other half).
        test: Share of rows that the gate looks at, once. The model must not have been
            trained on them.
    """

    method: Literal["temporal", "stratified", "random"] = "stratified"
    by: str | None = None
    validation: float = Field(default=0.2, gt=0, lt=1)
    test: float = Field(default=0.2, gt=0, lt=1)

    @model_validator(mode="after")
    def _whole(self) -> "SplitSection":
        if self.validation + self.test >= 1:
            raise ValueError("validation + test must leave rows for train (be below 1)")
        if (self.method == "temporal") != (self.by is not None):
            raise ValueError("`by` names the time column of a temporal split, and of no other")
        return self


class DataSection(Section):
    """The rows: Parquet, CSV, or `.npz` (arrays by name).

    Attributes:
        path: One file, divided by `split`; or else give all of the next three.
        train: Rows that techniques may learn and calibrate from.
        validation: Rows that choices are made on (half of them) and candidates are ranked on.
        test: Rows that the gate looks at.
        label: The column (or array) to predict.
        drop: Columns that the model does not take.
        split: How `path` is divided.
        overlap: What to do when rows of one split also stand in an earlier one (train before
            validation before test): `refuse`, `drop` them from the later one, or `allow` (the
            card says so).
    """

    path: str | None = None
    train: str | None = None
    validation: str | None = None
    test: str | None = None
    label: str
    drop: tuple[str, ...] = ()
    split: SplitSection | None = None
    overlap: Literal["refuse", "drop", "allow"] = "refuse"

    @model_validator(mode="after")
    def _one_form(self) -> "DataSection":
        parts = (self.train, self.validation, self.test)
        if self.path is None and None in parts:
            raise ValueError("give either `path`, or all of `train`, `validation` and `test`")
        if self.path is not None and any(parts):
            raise ValueError("`path` and `train`/`validation`/`test` exclude each other")
        if self.path is None and self.split is not None:
            raise ValueError("`split` divides `path`; the rows are divided already")
        return self


class RecipeSection(Section):
    """An ordered list of technique steps.

    Attributes:
        name: As the leaderboard shows it; made from the steps when left out.
        steps: Each a mapping with `technique` and its parameters.
    """

    name: str | None = Field(default=None, pattern=r"^[\w .,+×→%-]{1,60}$")
    steps: tuple[dict[str, Any], ...] = Field(min_length=1)


class BudgetSection(Section):
    """What a run may take at most.

    Attributes:
        minutes: Wall time of the run: recipes that do not fit are left out, and when it is up no
            further step begins.
        trials: So many recipes get their full cost.
        cost: Money, at `price_per_hour`; it is turned into minutes.
        price_per_hour: Of the machine that runs the steps.
    """

    minutes: float | None = Field(default=None, gt=0)
    trials: int | None = Field(default=None, ge=1)
    cost: float | None = Field(default=None, gt=0)
    price_per_hour: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _priced(self) -> "BudgetSection":
        if (self.cost is None) != (self.price_per_hour is None):
            raise ValueError("`cost` and `price_per_hour` go together")
        return self

    @property
    def seconds(self) -> float | None:
        """The wall time that is allowed, by `minutes` and by `cost`."""
        limits = [] if self.minutes is None else [self.minutes * 60]
        if self.cost is not None and self.price_per_hour is not None:
            limits.append(self.cost / self.price_per_hour * 3600)
        return min(limits, default=None)


class SearchSection(Section):
    """Successive halving: recipes are tried on a sample, and the better ones go on.

    Attributes:
        recipes: `recipes: search` tries at most so many.
        rows: Training rows of the first rung; each further rung has `1 / keep` times as many.
        effort: Share of the usual epochs and trials that a technique spends there.
        rungs: How often the recipes are tried before the last get all rows; 0 for never.
        keep: Share of the recipes that goes on from a rung; at least two do.
        hopeless: A recipe that loses more of the metric than this on the sample, even at the
            good end of its interval, does not go on (a share for errors without a scale).
        budget: What the run may take.
    """

    recipes: int = Field(default=40, ge=2)
    rows: int = Field(default=2000, ge=50)
    effort: float = Field(default=0.5, gt=0, le=1)
    rungs: int = Field(default=1, ge=0, le=4)
    keep: float = Field(default=0.34, gt=0, lt=1)
    hopeless: float = Field(default=0.1, gt=0)
    budget: BudgetSection = Field(default_factory=BudgetSection)

    @model_validator(mode="after")
    def _screened(self) -> "SearchSection":
        if self.rungs == 0 and self.budget.trials is not None:
            raise ValueError("`budget.trials` chooses by a trial on a sample: set `rungs` to 1")
        return self


class MlflowSection(Section):
    """Where runs and model versions are recorded.

    Attributes:
        tracking_uri: A folder-relative `sqlite:///file.db`, or a server's `http(s)://` URI.
            Without it: `sqlite:///mlflow.db` beside the config.
        experiment: Name of the experiment.
        registered_model: Name in the registry; the config's `name` when left out.
        enabled: Set to false to record nothing.
    """

    tracking_uri: str = "sqlite:///mlflow.db"
    experiment: str = "trimgate"
    registered_model: str | None = None
    enabled: bool = True

    @field_validator("tracking_uri")
    @classmethod
    def _no_secret(cls, value: str) -> str:
        if "@" in urlsplit(value).netloc:
            raise InvalidInput(
                "holds a password, which would end up in the compiled pipeline",
                mend="leave it out and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
            )
        return value


def is_remote(uri: str) -> bool:
    """Whether a path of the config is an URI that only a cluster's storage can read."""
    return "://" in uri


def is_version(uri: str) -> bool:
    """Whether a path of the config names a version in MLflow's registry."""
    return uri.startswith("models:/")


class SigningSection(Section):
    """Who signs published models, and whose signatures count.

    Attributes:
        key: Private key (PEM) that models are signed with.
        verify_key: Public key (PEM) that they are verified with; that of `key` when left out.
        identity: Without keys: who signs, by Sigstore.
        issuer: The OpenID Connect issuer that vouches for the identity.
    """

    key: str | None = None
    verify_key: str | None = None
    identity: str | None = None
    issuer: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> "SigningSection":
        if (self.identity is None) != (self.issuer is None):
            raise ValueError("`identity` and `issuer` go together")
        return self


class EnvironmentSection(Section):
    """How an environment takes releases.

    Attributes:
        mode: `commit` to the branch at once, or `pull-request` that people merge.
        namespace: Namespace that its overlays set; none when left out.
    """

    mode: Literal["commit", "pull-request"] = "commit"
    namespace: str | None = Field(default=None, pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")


class PromoteSection(Section):
    """Where a winner goes that passed the gate.

    Attributes:
        store: Where models are kept by their digest: a folder, `s3://bucket/prefix`,
            `pvc://claim/path` or `oci-layout:///path`.
        mounts: Where volume claims are mounted on this machine.
        signing: Who signs models.
        repository: The Git repository that says what is released where: `https://...`,
            `git@host:path`, `file://...` or a folder. Left out: one in the store's folder.
        branch: The branch that the environments follow.
        environments: In the order of promotion; `trimgate run` releases to the first.
        forge: What opens pull requests; by the repository's host when left out.
        forge_url: URL of its API; that of the host when left out.
        author: `Name <mail>` of the commits; Git's own identity when left out.
        commit_key: Commits are signed with it: file of an SSH private key, or id of a GPG key.
        deployment_mode: KServe's mode of new models.
    """

    store: str = "trimgate-store"
    mounts: dict[str, str] = Field(default_factory=dict)
    signing: SigningSection = Field(default_factory=SigningSection)
    repository: str | None = None
    branch: str = "main"
    environments: dict[
        Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")], EnvironmentSection
    ] = Field(
        default_factory=lambda: {
            "staging": EnvironmentSection(),
            "production": EnvironmentSection(mode="pull-request"),
        },
        min_length=1,
    )
    forge: Literal["github", "gitlab"] | None = None
    forge_url: str | None = Field(default=None, pattern=r"^https?://\S+$")
    author: str | None = Field(default=None, pattern=r"^[^<>\n]+ <[^<>\s]+>$")
    commit_key: str | None = None
    deployment_mode: Literal["Standard", "Knative"] = "Standard"

    @field_validator("repository")
    @classmethod
    def _no_secret(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "")
        if parts.password or (parts.username and parts.scheme in ("http", "https")):
            raise InvalidInput(
                "holds a user or a password, which would end up in the compiled pipeline",
                mend="leave it out and set TRIMGATE_GIT_TOKEN",
            )
        return value

    @property
    def first(self) -> str:
        """The environment that `trimgate run` releases to."""
        return next(iter(self.environments))


class DeploySection(Section):
    """Deploys winners on KServe directly, where no repository says what is released.

    Attributes:
        namespace: Of the InferenceService; that of the pod or the kubeconfig when left out.
        percent: The winner's share of the traffic; below 100 it is a canary beside the model that
            is served, which `trimgate deploy` gives the rest.
        timeout: Seconds that it has to become ready.
    """

    namespace: str | None = Field(default=None, pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    percent: int = Field(default=100, ge=1, le=100)
    timeout: int = Field(default=600, ge=1)


class ReportSection(Section):
    """What the card shows besides what it always does.

    Attributes:
        example_rows: So many test rows on which the two models disagree are shown, with their
            values. None by default: cards travel further than data may.
        hide: Columns whose values are not shown in them.
    """

    example_rows: int = Field(default=0, ge=0, le=100)
    hide: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _asked_for(self) -> "ReportSection":
        if self.hide and not self.example_rows:
            raise ValueError("`hide` is about `example_rows`, and none are asked for")
        return self


def _form_of_objective(value: object) -> str:
    """Which form an objective is meant to have, so that a mistake is explained in its terms."""
    if isinstance(value, Mapping):
        return "[limits]" if {"minimize", "subject_to"} & set(value) else "[weights]"
    return "[limits]" if isinstance(value, Constrained) else "[name]"


class RolloutSection(RolloutPolicy):
    """What a canary has to show, and who begins one.

    Attributes:
        environment: The pipeline begins a canary there once the model is released to the first
            environment, and watches it. Left out, only `trimgate rollout` does.
        namespace: Of the InferenceService; left out, the models are served on this machine.
        prometheus: URL of the Prometheus that scrapes the model servers.
    """

    environment: str | None = Field(default=None, pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    namespace: str | None = Field(default=None, pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    prometheus: str | None = Field(default=None, pattern=r"^https?://[^@\s]+$")

    @model_validator(mode="after")
    def _on_a_cluster(self) -> "RolloutSection":
        if (self.namespace is None) != (self.prometheus is None):
            raise ValueError("`namespace` and `prometheus` go together")
        return self


class Toleration(Section):
    """A taint of a node that a task may stand; without a value, any value of the key."""

    key: str
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


_Named = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
"""The name of a Kubernetes object."""


class ClusterSection(Section):
    """What the compiled pipeline tells a cluster.

    Attributes:
        node_selector: Labels of the nodes that models are timed on: those that will serve.
        tolerations: Taints of those nodes.
        secrets: By name of a Secret: which of its keys become which environment variables of the
            tasks that record, publish, promote and roll out.
        secret_files: By name of a Secret: the folder of those tasks in which its keys are files,
            such as the one that `promote.signing.key` lies in.
        cache_volume: A PersistentVolumeClaim that runs share, for the results of steps.
        timeout_minutes: After which a task is ended.
    """

    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    secrets: dict[_Named, dict[str, str]] = Field(default_factory=dict)
    secret_files: dict[_Named, Annotated[str, Field(pattern=r"^/")]] = Field(default_factory=dict)
    cache_volume: _Named | None = None
    timeout_minutes: int = Field(default=240, ge=1)


class Config(Section):
    """The whole file.

    Attributes:
        name: The model's name: in the registry, the release and the served URL.
        model: The trained model.
        data: The rows.
        metric: The primary metric; chosen by task and class balance when left out.
        objective: What the winner is best at, among candidates that are good enough: one of
            `latency`, `throughput`, `size`, `memory`, `cost`; several with their weights;
            `cheapest-that-passes` (the gate's rules, shown on validation); or `minimize` one of
            them `subject_to` upper limits.
        target: Name of a profile, or a mapping with `profile` and what differs from it.
        recipes: `default` (from the model's family, the target and this CPU), `search` (all
            combinations of what the techniques suggest, screened by `search`) or a list.
        search: How recipes are tried on a sample before any gets its full cost. Left out, the
            recipes of `search` are screened and others are not.
        evaluation: The operating point, costs and slices.
        benchmark: Settings of the timing protocol.
        gate: The rules that the winner must pass on the test split. Left out: the primary
            metric drops by no more than a point (1 % for errors), and it is faster.
        mlflow: Tracking and registry.
        promote: Where a winner goes.
        serving: How KServe serves it: in the base of the repository's scaffold, and by `deploy`.
        deploy: Deploy it directly instead of promoting it by Git.
        rollout: What a canary has to show before it gets more of the traffic.
        report: What the card shows besides what it always does.
        cluster: What the compiled pipeline tells a cluster.
        seed: Makes splits, techniques and intervals reproducible.
    """

    version: Literal[1] = 1
    name: ModelName
    model: ModelSection
    data: DataSection
    metric: str | None = None
    objective: Annotated[
        Annotated[Literal[Objective, "cheapest-that-passes"], Tag("[name]")]
        | Annotated[dict[Objective, Annotated[float, Field(gt=0)]], Tag("[weights]")]
        | Annotated[Constrained, Tag("[limits]")],
        Discriminator(_form_of_objective),
    ] = "latency"
    target: Target = Field(default_factory=lambda: PROFILES["cloud-cpu"])
    recipes: Literal["default", "search"] | tuple[RecipeSection, ...] = "default"
    search: SearchSection | None = None
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    benchmark: BenchmarkSettings = Field(default_factory=BenchmarkSettings)
    gate: GatePolicy | None = None
    mlflow: MlflowSection = Field(default_factory=MlflowSection)
    promote: PromoteSection = Field(default_factory=PromoteSection)
    serving: Serving = Field(default_factory=Serving)
    deploy: DeploySection | None = None
    rollout: RolloutSection = Field(default_factory=RolloutSection)
    report: ReportSection = Field(default_factory=ReportSection)
    cluster: ClusterSection = Field(default_factory=ClusterSection)
    seed: int = Field(default=0, ge=0, lt=2**32)

    @property
    def goal(self) -> Goal:
        """The objective, as selection takes it."""
        return goal(self.objective)

    @property
    def layout(self) -> Layout | None:
        """The model server for which winners are published too, beside trimgate's own."""
        return next((kind for kind in ENGINES if kind == self.serving.runtime), None)

    @model_validator(mode="before")
    @classmethod
    def _one_mode(cls, raw: Any) -> Any:
        """`serving.mode` is `promote.deployment_mode`, which decides how it may scale."""
        if not isinstance(raw, Mapping):
            return raw
        serving, promote = raw.get("serving") or {}, raw.get("promote") or {}
        if isinstance(serving, Mapping) and isinstance(promote, Mapping):
            mode = promote.get("deployment_mode", "Standard")
            return {**raw, "serving": {"mode": mode, **serving}}
        return raw

    @model_validator(mode="after")
    def _one_way(self) -> "Config":
        promote = self.promote
        if self.serving.mode != promote.deployment_mode:
            raise InvalidInput(
                f"the mode is {promote.deployment_mode}, as promote.deployment_mode has it",
                key="serving.mode", value=self.serving.mode, mend="leave it out",
            )  # fmt: skip
        if self.layout is not None:
            self._check_layout(self.layout)
        if self.deploy is None:
            if promote.repository is None and is_remote(promote.store):
                raise InvalidInput(
                    "a `store` elsewhere needs a `repository` that records releases, or `deploy`",
                    key="promote.store", value=promote.store, mend="name the repository",
                )  # fmt: skip
            return self
        other = [f"promote.{key}" for key in ("repository", "environments")
                 if key in promote.model_fields_set]  # fmt: skip
        other += ["rollout.environment"] if self.rollout.environment is not None else []
        if other:
            raise InvalidInput(
                f"deploys without Git, and `{other[0]}` is about releases by Git", key="deploy",
                mend="keep one of them",
            )  # fmt: skip
        if not promote.store.startswith(("s3://", "pvc://")):
            raise InvalidInput(
                "is not to be read by the cluster's pods, which `deploy` needs",
                key="promote.store", value=promote.store,
                mend="give s3://bucket/prefix or pvc://claim/path",
            )  # fmt: skip
        return self

    def _check_layout(self, layout: Layout) -> None:
        engine = ENGINES[layout]
        if self.target.runtimes != (engine,):
            raise InvalidInput(
                f"{layout} runs models on {engine}, so that no other engine is to win",
                key="target.runtimes", value=list(self.target.runtimes), mend=f"set [{engine}]",
            )  # fmt: skip
        if self.rollout.namespace is not None:
            raise InvalidInput(
                "a canary is watched by what trimgate's own server says of itself",
                key="serving.runtime", value=layout,
                mend="leave it out, or drop rollout.namespace and promote by hand",
            )  # fmt: skip

    @field_validator("target", mode="before")
    @classmethod
    def _profile(cls, value: object) -> object:
        if isinstance(value, str):
            value = {"profile": value}
        known = tuple(PROFILES)  # unlike in a mapping, a list may be looked for
        if isinstance(value, Mapping) and "profile" in value:
            changes = dict(value)
            name = changes.pop("profile")
            if name not in known:
                raise ValueError(f"no target profile {name!r}; there are {', '.join(PROFILES)}")
            # what is left out may depend on the model
            return {**PROFILES[name].model_dump(exclude_unset=True), **changes}
        if isinstance(value, Mapping) and value.get("name") in known:
            name = value["name"]
            raise ValueError(f"takes nothing from the profile {name}: write `profile: {name}`")
        return value

    @field_validator("recipes")
    @classmethod
    def _known_steps(cls, value: object) -> object:
        from trimgate.techniques import parse_step

        if isinstance(value, tuple):
            if not value:
                raise ValueError("give at least one recipe, or `default`")
            for recipe in value:
                for step in recipe.steps:
                    parse_step(step)
        return value

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, value: str | None) -> str | None:
        from trimgate.judge.metrics import higher_is_better

        if value is not None:
            higher_is_better(value)
        return value


def load_config(path: str | Path) -> Config:
    """Reads a config file; paths in it are taken relative to the file's folder.

    Raises:
        InvalidInput: The file is missing, is not YAML, has an unknown key or a wrong value.
    """
    path = Path(path)
    return resolve_paths(parse_config(read_yaml(path), file=path), path.resolve().parent)


def parse_config(raw: Mapping[str, Any], *, file: str | Path | None = None) -> Config:
    """Checks a config given as a mapping.

    Raises:
        InvalidInput: An unknown key or a wrong value; the message names it and the mend.
    """
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise _explain(error, raw, file) from error


class _Rules(Section):
    gate: GatePolicy


def load_policy(path: str | Path) -> GatePolicy:
    """Reads the gate's rules from a YAML file: the rules alone, or a config that has `gate`.

    Raises:
        InvalidInput: The file is missing, is not YAML, has an unknown key or a wrong value.
    """
    raw = read_yaml(Path(path))
    rules = raw.get("gate", raw)
    try:
        return _Rules.model_validate({"gate": rules}).gate
    except ValidationError as error:
        raise _explain(error, {"gate": rules}, path) from error


def resolve_paths(config: Config, folder: Path) -> Config:
    """Makes the relative paths of a config absolute."""

    def absolute(value: str | None) -> str | None:
        if value is None or is_remote(value) or is_version(value):
            return value
        return os.path.normpath(folder / Path(value).expanduser())

    data = config.data.model_copy(update={k: absolute(getattr(config.data, k)) for k in DATA_PATHS})
    model = config.model.model_copy(update={"path": absolute(config.model.path)})
    promote = _placed_promote(config.promote, absolute)
    named = {k: v for k in TARGET_FILES if isinstance(v := getattr(config.target, k), str)}
    target = config.target.model_copy(update={k: absolute(v) for k, v in named.items()})
    uri = config.mlflow.tracking_uri
    if uri.startswith("sqlite:///"):
        uri = "sqlite:///" + str(absolute(uri.removeprefix("sqlite:///")))
    mlflow = config.mlflow.model_copy(update={"tracking_uri": uri})
    changes: dict[str, Any] = {
        "data": data,
        "model": model,
        "target": target,
        "promote": promote,
        "mlflow": mlflow,
    }
    if isinstance(config.recipes, tuple):
        changes["recipes"] = tuple(
            recipe.model_copy(update={"steps": tuple(_placed(s, absolute) for s in recipe.steps)})
            for recipe in config.recipes
        )
    return config.model_copy(update=changes)


def _placed_promote(
    promote: PromoteSection, absolute: Callable[[str | None], str | None]
) -> PromoteSection:
    """The section with the files and folders that it names made absolute."""
    repository, commit_key = promote.repository, promote.commit_key
    if repository is not None and not re.match(r"([\w.-]+@)?[\w.-]+:", repository):
        repository = absolute(repository)
    if commit_key is not None and "/" in commit_key:
        commit_key = absolute(commit_key)
    signing = {key: absolute(getattr(promote.signing, key)) for key in ("key", "verify_key")}
    return promote.model_copy(
        update={
            "store": absolute(promote.store),
            "repository": repository,
            "commit_key": commit_key,
            "signing": promote.signing.model_copy(update=signing),
            "mounts": {claim: str(absolute(place)) for claim, place in promote.mounts.items()},
        }
    )


def _placed(
    step: Mapping[str, Any], absolute: Callable[[str | None], str | None]
) -> dict[str, Any]:
    """A step with the files that it names made absolute."""
    from trimgate.techniques import parse_step

    files = {str(file) for file in parse_step(step).files}
    return {k: absolute(v) if isinstance(v, str) and v in files else v for k, v in step.items()}


TARGET_FILES = ("price_table", "operators")
DATA_PATHS = ("path", "train", "validation", "test")


def json_schema() -> str:
    """The JSON Schema of the config file, steps of every technique included."""
    from trimgate import techniques
    from trimgate.judge import metrics

    schema = Config.model_json_schema()
    steps = []
    for name in techniques.names():
        step = techniques.get(name).config.model_json_schema(ref_template="#/$defs/{model}")
        schema["$defs"].update(step.pop("$defs", {}))
        schema["$defs"][f"step_{name}"] = step
        steps.append({"$ref": f"#/$defs/step_{name}"})
    schema["$defs"]["RecipeSection"]["properties"]["steps"]["items"] = {"anyOf": steps}
    schema["properties"]["metric"]["anyOf"][0]["enum"] = metrics.names()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2) + "\n"


def _explain(
    error: ValidationError, raw: Mapping[str, Any], file: str | Path | None
) -> InvalidInput:
    """The first problem as one line: where, what, and how to mend it."""
    # A misspelt key shows up as an unknown one and often a missing one: name the typo.
    # Where a key takes one of several forms, the form that the value came closest to fails deepest.
    problems = sorted(
        error.errors(), key=lambda e: (e["type"] != "extra_forbidden", -len(e["loc"]))
    )
    first = problems[0]
    location = [
        str(part)
        for part in first["loc"]
        if not str(part).startswith(("literal[", "tuple[", "dict[", "["))
    ]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InvalidInput):
        key = ".".join([*location, *([cause.key] if cause.key else [])])
        return InvalidInput(cause.problem, file=file, key=key, value=cause.value, mend=cause.mend)
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    value = None if isinstance(first["input"], dict | list) else first["input"]
    mend = None
    if first["type"] == "extra_forbidden":
        known = _known_keys(first["loc"][:-1])
        close = difflib.get_close_matches(location[-1], known, n=1)
        message = "unknown key"
        mend = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
    elif first["type"] == "missing":
        message, mend, value = "the key is missing", f"add `{location[-1]}: ...`", None
    return InvalidInput(message, file=file, key=".".join(location) or None, value=value, mend=mend)


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys that the section at `location` has."""
    section: Any = Config
    for part in location:
        field = section.model_fields.get(part) if isinstance(part, str) else None
        if field is None:
            continue
        inner = [
            a
            for a in (field.annotation, *getattr(field.annotation, "__args__", ()))
            for a in (a, *getattr(a, "__args__", ()))
            if isinstance(a, type) and issubclass(a, BaseModel)
        ]
        section = inner[0] if inner else section
    return sorted(section.model_fields)
