"""Target profiles: what the winner will run on, which every claim names."""

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from trimgate.models.directory import RuntimeName


class Target(BaseModel):
    """Where the winner will run.

    Attributes:
        name: The profile's name.
        device: What computes.
        runtimes: The engines that are allowed there.
        threads: Intra-op threads a session gets; the benchmark uses as many.
        batch_sizes: Rows per call, the most important first: the objective is read there. Left
            out, 1 and 1000; 1 and 32 where a row is a text, an image or another array.
        memory_limit_mb: Peak resident memory that the served process may take, in MiB.
        price_per_hour: Money for an hour of the target's threads; with it the card says what a
            million predictions cost.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: str
    device: Literal["cpu", "gpu"] = "cpu"
    runtimes: tuple[RuntimeName, ...] = get_args(RuntimeName)
    threads: int = Field(default=1, ge=1)
    batch_sizes: tuple[int, ...] = Field(default=(1, 1000), min_length=1)
    memory_limit_mb: int | None = Field(default=None, ge=1)
    price_per_hour: float | None = Field(default=None, gt=0)


ARRAY_BATCH_SIZES = (1, 32)

PROFILES: dict[str, Target] = {
    "cloud-cpu": Target(name="cloud-cpu"),
    "edge-cpu": Target(
        name="edge-cpu",
        runtimes=("onnxruntime", "openvino", "openvino-ep"),
        batch_sizes=(1,),
        memory_limit_mb=512,
    ),
    "gpu": Target(name="gpu", device="gpu", runtimes=("onnxruntime",), batch_sizes=(1, 64)),
}
