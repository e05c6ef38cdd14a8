"""What predictions cost: CPU time (a GPU's wall time) times a price."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trimgate._yaml import read_yaml
from trimgate.errors import InvalidInput
from trimgate.judge.records import BatchBenchmark, Cost
from trimgate.targets import Price, Target

TABLE = Path(__file__).with_name("prices.yaml")
HOURS_PER_MONTH = 730
UTILISATION = 0.6
"""Share of a machine's time that is planned with: above it queues grow long."""


class _Machine(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    per_hour: float = Field(gt=0)
    cores: int = Field(ge=1)


class PriceTable(BaseModel):
    """A price table as it stands in YAML.

    Attributes:
        name: Of the table.
        source: Where the prices come from.
        date: When they held.
        currency: Of all of them.
        machines: By name, the price of an hour and the logical cores that it buys (1 for a
            machine whose accelerator computes).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: str
    source: str
    date: str
    currency: str
    machines: dict[str, _Machine] = Field(min_length=1)


def price(name: str, file: str | Path | None = None) -> Price:
    """A price from a table.

    Args:
        name: Of the machine in the table.
        file: The table; by default the one that comes with trimgate.

    Raises:
        InvalidInput: The file is not a price table, or has no such machine.
    """
    path = Path(file) if file else TABLE
    try:
        table = PriceTable.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(
            f"is not a price table: {first['msg']}",
            file=path,
            key=".".join(map(str, first["loc"])) or None,
            mend="give name, source, date, currency and machines: {name: {per_hour, cores}}",
        ) from error
    if name not in table.machines:
        raise InvalidInput(
            "the price table has no such machine",
            key="target.price",
            value=name,
            mend=f"use one of {', '.join(table.machines)}, or name a `price_table`",
        )
    machine = table.machines[name]
    return Price(
        name=name,
        per_core_hour=machine.per_hour / machine.cores,
        currency=table.currency,
        table=f"{table.name}, {table.source}, {table.date}",
    )


def price_of(target: Target) -> Price | None:
    """The price that a target names, or None where it names none.

    Raises:
        InvalidInput: It names one that the table does not have.
    """
    if target.price_per_hour is not None:
        cores = 1 if target.device == "gpu" else target.threads
        return Price(name="price_per_hour", per_core_hour=target.price_per_hour / cores)
    if isinstance(target.price, str):
        return price(target.price, target.price_table)
    return target.price


def cost(batches: Sequence[BatchBenchmark], target: Target) -> Cost | None:
    """Money per million predictions and per month; None where no price is known.

    Args:
        batches: The timings; the first counts. A void one gives no cost.
        target: Gives price, threads and traffic.
    """
    found, first = price_of(target), batches[0]
    if found is None or first.state == "void":
        return None
    clock: Literal["p50", "cpu"] = "p50" if target.device == "gpu" else "cpu"
    cores = 1 if target.device == "gpu" else target.threads
    seconds = {
        role: getattr(getattr(first, role), clock) / first.batch_size
        for role in ("baseline", "candidate")
    }
    million = {role: 1e6 * s * found.per_core_hour / 3600 for role, s in seconds.items()}
    month: dict[str, float | None] = dict.fromkeys(seconds)
    if target.traffic is not None:
        month = {
            role: max(1, math.ceil(target.traffic * s / (cores * UTILISATION) - 1e-9))
            * cores
            * found.per_core_hour
            * HOURS_PER_MONTH
            for role, s in seconds.items()
        }
    return Cost(
        baseline=million["baseline"],
        candidate=million["candidate"],
        ratio=first.wall if target.device == "gpu" else first.cpu,
        currency=found.currency,
        price=found.name,
        price_per_core_hour=found.per_core_hour,
        table=found.table,
        traffic=target.traffic,
        baseline_month=month["baseline"],
        candidate_month=month["candidate"],
        utilisation=UTILISATION,
    )
