"""Target profiles: what the winner will run on, which every claim names."""

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from trimgate.models.directory import RuntimeName

Device = Literal["cpu", "gpu", "mobile", "inferentia"]


class Price(BaseModel):
    """What a machine like the target costs.

    Attributes:
        name: As the price table has it.
        per_core_hour: Money for an hour of one logical core (of the whole machine for `gpu`).
        currency: Of the money.
        table: Name, source and date of the table, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: str
    per_core_hour: float = Field(gt=0)
    currency: str = "USD"
    table: str = ""


class Target(BaseModel):
    """Where the winner will run.

    Attributes:
        name: The profile's name.
        device: What computes. `mobile` and `inferentia` are not here: what can be checked of them
            is checked, and timings are this CPU's, which the records say.
        runtimes: The engines that are allowed there.
        threads: Intra-op threads a session gets; the benchmark uses as many.
        batch_sizes: Rows per call, the most important first: the objective is read there. Left
            out, 1 and 1000; 1 and 32 where a row is a text, an image or another array.
        concurrency: Callers at the same time; above 1 their throughput is measured too, and so
            many requests may be in work under load.
        callers: Whether they are threads of one process, or processes; each has its own session.
        rates: Requests per second at which the latency under load is measured, of the session
            and of the model server.
        memory_limit_mb: Peak resident memory that the served process may take, in MiB.
        cpus: Cores that it has, when that is not `threads`; a part of one is a quota.
        enforce: Hold the measuring processes to `cpus`, and those that load one model alone to
            `memory_limit_mb`.
        price_per_hour: Money for an hour of the target's threads; with it the card says what a
            million predictions cost.
        price: Instead: a name in the price table.
        price_table: A YAML file in place of the table that comes with trimgate.
        traffic: Predictions per second, for the cost of a month.
        watts_per_core: Of a busy logical core, where energy cannot be read but is estimated.
        operators: For `mobile`: the required-operators config of a reduced build of ONNX Runtime,
            as a file or its lines; left out, the full package.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: str
    device: Device = "cpu"
    runtimes: tuple[RuntimeName, ...] = get_args(RuntimeName)
    threads: int = Field(default=1, ge=1)
    batch_sizes: tuple[int, ...] = Field(default=(1, 1000), min_length=1)
    concurrency: int = Field(default=1, ge=1, le=256)
    callers: Literal["threads", "processes"] = "threads"
    rates: tuple[float, ...] = ()
    memory_limit_mb: int | None = Field(default=None, ge=1)
    cpus: float | None = Field(default=None, gt=0)
    enforce: bool = False
    price_per_hour: float | None = Field(default=None, gt=0)
    price: Price | str | None = None
    price_table: str | None = None
    traffic: float | None = Field(default=None, gt=0)
    watts_per_core: float | None = Field(default=None, gt=0)
    operators: str | tuple[str, ...] | None = None

    @property
    def is_here(self) -> bool:
        """Whether what computes on the target can be in this machine, so that times are its own."""
        return self.device in ("cpu", "gpu")


ARRAY_BATCH_SIZES = (1, 32)

# Made without a check of types, for which pydantic would be set up whenever this is imported.
_profile = Target.model_construct
PROFILES: dict[str, Target] = {
    "cloud-cpu": _profile(name="cloud-cpu", price="c7i.large"),
    "edge-cpu": _profile(
        name="edge-cpu",
        runtimes=("onnxruntime", "openvino", "openvino-ep"),
        batch_sizes=(1,),
        memory_limit_mb=512,
        enforce=True,
    ),
    "mobile": _profile(name="mobile", device="mobile", runtimes=("onnxruntime",), batch_sizes=(1,)),
    "gpu": _profile(
        name="gpu",
        device="gpu",
        runtimes=("onnxruntime",),
        batch_sizes=(1, 64),
        price="g5.xlarge",
    ),
    "inferentia": _profile(
        name="inferentia", device="inferentia", runtimes=("onnxruntime",), batch_sizes=(1, 64)
    ),
}


def standing(target: Target) -> dict[str, str]:
    """What of a target is measured on this kind of machine, and what is only checked.

    Args:
        target: The profile.

    Returns:
        By quantity, `measured: ...` or `checked: ...` with how; a quantity that is left out is not
        looked at.
    """
    here = "measured: side by side with the baseline on this machine, which stands for the target"
    if target.device == "gpu":
        return {
            "latency": "measured: on the GPU of this machine; without one a run is refused",
            "cost": "measured: wall time times the price of the machine",
            "memory": "measured: of the host process; what the GPU holds is not",
            "size": "measured: of the served files",
        }
    found = {
        "latency": here,
        "cost": "measured: CPU time times the price of a core",
        "memory": "measured: peak of a process that loads it alone",
        "size": "measured: of the served files",
        "cold start": "measured: in a fresh process",
    }
    if target.enforce:
        limit = f"{target.memory_limit_mb} MiB" if target.memory_limit_mb else "no limit of memory"
        found["limits"] = (
            f"measured: held to {target.cpus or target.threads:g} cores and {limit} "
            "while measuring (the record says how)"
        )
    if target.is_here:
        return found
    stand_in = "checked: on this CPU as a stand-in, which says little of the device"
    found.update(dict.fromkeys(("latency", "cost", "memory", "cold start"), stand_in))
    if target.device == "mobile":
        found["size"] = "measured: of the model in the ORT format"
        found["operators"] = "checked: converted to the ORT format, held against the build's list"
    else:
        found["operators"] = "checked: by rules on the graph; nothing of it is measurable here"
    return found
