"""A sparse mapping that is touched and discarded: page tables, and next to nothing else."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from orchestrator.units import PMD_BYTES, Size
from orchestrator.workloads.base import DRIVERS
from orchestrator.workloads.program import ProgramDriver


@DRIVERS.register("sparse-map")
class SparseMap(ProgramDriver):
    """One page touched per stride over a span with THP off, then madvise()."""

    figures: ClassVar = (
        "held_bytes",
        "pages_touched",
        "page_table_bytes_touched",
        "page_table_bytes_discarded",
        "touch_seconds",
        "discard_seconds",
    )

    span: Annotated[Size, Field(ge=1)]
    stride: Annotated[Size, Field(ge=1)] = PMD_BYTES
    advice: Literal["dontneed", "free", "keep"] = "dontneed"
    chunk: Annotated[Literal["all"] | Size, Field(union_mode="left_to_right")] = "all"
    backing: Literal["anonymous", "file"] = "anonymous"

    @model_validator(mode="after")
    def _advice_that_there_is(self) -> SparseMap:
        if self.advice == "free" and self.backing == "file":
            raise ValueError("advice: free is for anonymous memory only (madvise(2), MADV_FREE)")
        return self

    def words(self, seed: int) -> list[str]:  # noqa: ARG002  # nothing in it is random
        chunk = 0 if self.chunk == "all" else self.chunk
        options = {"stride": self.stride, "advice": self.advice, "chunk": chunk, "backing": self.backing}
        return [str(self.span), *(f"{name}={value}" for name, value in options.items())]
