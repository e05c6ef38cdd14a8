"""Where a model comes from, as an in-toto Statement with a SLSA provenance predicate.

`provenance.json` stands in the model directory and is signed with it. The statement follows
in-toto Statement v1 and SLSA Provenance v1; what those have no field for, the gate's verdict, is
an extension field of ours, as SLSA's rules for extensions ask (`trimgate_gate`).
"""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trimgate.errors import InvalidInput
from trimgate.judge.records import RuleResult
from trimgate.models import directory
from trimgate.report import CardInput

PROVENANCE = "provenance.json"
BUILD_TYPE = "https://trimgate.dev/optimize/v1"
BUILDER = "https://trimgate.dev/trimgate"


class _Record(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", defer_build=True, ser_json_inf_nan="null"
    )


class Resource(_Record):
    """An in-toto ResourceDescriptor: a name and the SHA-256 of what it stands for."""

    name: str
    digest: dict[str, str]
    annotations: dict[str, Any] = Field(default_factory=dict)


class BuildDefinition(_Record):
    """What was asked for, and what it was made from.

    Attributes:
        build_type: Says how to read the parameters.
        external_parameters: What the user decided: recipe with its parameters, target, metric,
            objective, seed.
        internal_parameters: What the machine added: its environment.
        resolved_dependencies: The baseline model and the rows of each split.
    """

    build_type: Literal["https://trimgate.dev/optimize/v1"] = Field(alias="buildType")
    external_parameters: dict[str, Any] = Field(alias="externalParameters")
    internal_parameters: dict[str, Any] = Field(alias="internalParameters")
    resolved_dependencies: tuple[Resource, ...] = Field(alias="resolvedDependencies")


class Builder(_Record):
    """Who built it, with versions."""

    id: str
    version: dict[str, str]


class Metadata(_Record):
    """The run: its id, and when it ended (ISO 8601)."""

    invocation_id: str = Field(alias="invocationId")
    finished_on: str = Field(alias="finishedOn")


class RunDetails(_Record):
    """The run that made it."""

    builder: Builder
    metadata: Metadata


class GateResult(_Record):
    """What the gate said."""

    outcome: str
    summary: str
    rules: tuple[RuleResult, ...]


class Predicate(_Record):
    """SLSA Provenance v1, with the gate's verdict."""

    build_definition: BuildDefinition = Field(alias="buildDefinition")
    run_details: RunDetails = Field(alias="runDetails")
    gate: GateResult = Field(alias="trimgate_gate")


class Provenance(_Record):
    """An in-toto Statement v1.

    Attributes:
        type: Of the statement.
        subject: The model by its content digest, and then each of its files.
        predicate_type: SLSA's.
        predicate: Where it comes from.
    """

    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: tuple[Resource, ...] = Field(min_length=1)
    predicate_type: Literal["https://slsa.dev/provenance/v1"] = Field(alias="predicateType")
    predicate: Predicate

    @property
    def digest(self) -> str:
        """Content digest of the model (`sha256:...`)."""
        return "sha256:" + self.subject[0].digest.get("sha256", "")

    @property
    def run(self) -> str:
        """Id of the run that made and judged it."""
        return self.predicate.run_details.metadata.invocation_id

    @property
    def verdict(self) -> str:
        """The gate's outcome."""
        return self.predicate.gate.outcome

    def encoded(self) -> bytes:
        """The statement as JSON; equal statements give equal bytes."""
        content = self.model_dump(mode="json", by_alias=True)
        return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def statement(card: CardInput, model: str | Path) -> Provenance:
    """The provenance of a run's winner.

    Args:
        card: The finished run.
        model: The winner's directory.

    Raises:
        InvalidInput: The run chose another model.
    """
    info = directory.read(model)
    if card.winner is None or card.winner.digest != info.digest:
        raise InvalidInput(
            f"is not the winner of the run {card.run}", file=model, key="digest", value=info.digest
        )
    ranked = next((r for r in card.selection.ranking if r.name == card.selection.winner), None)
    rows = [
        _resource(f"{s.name} rows", s.digest, rows=s.rows, source=card.data.source)
        for s in card.data.splits
    ]
    files = [_resource(name, f"sha256:{file.sha256}") for name, file in info.files.items()]
    return Provenance.model_validate(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [_resource(info.name, info.digest), *files],
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {
                        "model": card.name,
                        "recipe": {
                            "name": card.selection.winner,
                            "steps": list(ranked.steps if ranked else info.recipe),
                            "applied": list(info.recipe),
                        },
                        "target": card.target.model_dump(mode="json"),
                        "metric": card.selection.metric,
                        "objective": card.selection.objective,
                        "seed": card.seed,
                    },
                    "internalParameters": {"environment": card.environment},
                    "resolvedDependencies": [_resource("baseline", card.baseline.digest), *rows],
                },
                "runDetails": {
                    "builder": {"id": BUILDER, "version": {"trimgate": card.code_version}},
                    "metadata": {
                        "invocationId": card.run,
                        "finishedOn": card.created.isoformat(),
                    },
                },
                "trimgate_gate": {
                    "outcome": card.status,
                    "summary": card.verdict.summary if card.verdict else "",
                    "rules": [rule.model_dump(mode="json") for rule in card.rules],
                },
            },
        }
    )


def _resource(name: str, digest: str, **annotations: Any) -> dict[str, Any]:
    algorithm, _, value = digest.partition(":")
    known = {algorithm: value} if value else {}
    return {"name": name, "digest": known, "annotations": annotations}


def write(card: CardInput, model: str | Path) -> Path:
    """Writes the provenance of a run's winner into its directory.

    Args:
        card: The finished run.
        model: The winner's directory; sign it afterwards.

    Returns:
        The file.

    Raises:
        InvalidInput: The run chose another model.
    """
    made = statement(card, model)
    target = Path(model) / PROVENANCE
    partial = target.with_name(f".{PROVENANCE}.partial")
    partial.write_bytes(made.encoded())
    return partial.replace(target)


def read(model: str | Path) -> Provenance:
    """Reads the provenance in a model directory.

    Raises:
        InvalidInput: There is none, or it is no provenance statement.
    """
    file = Path(model) / PROVENANCE
    if not file.is_file():
        raise InvalidInput(
            f"the model has no provenance (no {PROVENANCE})",
            file=model,
            mend="publish it from the run that judged it",
        )
    try:
        return Provenance.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(
            f"is no provenance statement ({first['msg']})",
            file=file,
            key=".".join(map(str, first["loc"])) or None,
        ) from error


def check(model: str | Path) -> Provenance:
    """Checks that a model directory may be promoted by what its provenance says.

    Whether the provenance itself is to be believed is for `signing.verify` to say.

    Returns:
        The provenance.

    Raises:
        InvalidInput: There is none, it is about another model, or the gate's verdict is not
            `pass`.
    """
    found = read(model)
    info = directory.read(model)
    files = {resource.name: resource.digest.get("sha256") for resource in found.subject[1:]}
    if found.digest != info.digest or files != {n: f.sha256 for n, f in info.files.items()}:
        raise InvalidInput(
            "is about another model", file=Path(model) / PROVENANCE, key="subject",
            value=found.digest,
        )  # fmt: skip
    if found.verdict != "pass":
        raise InvalidInput(
            "only a model that passed the gate is promoted", file=Path(model) / PROVENANCE,
            key="verdict", value=found.verdict,
        )  # fmt: skip
    return found
