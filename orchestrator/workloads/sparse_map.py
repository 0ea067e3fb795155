"""A sparse mapping that is touched and discarded: page tables, and next to nothing else."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, model_validator

from orchestrator.units import PAGE_BYTES, PMD_BYTES, Size
from orchestrator.workloads.base import DRIVERS
from orchestrator.workloads.program import ProgramDriver

# A multiple of 4 KiB, as madvise(2) wants addresses.
Piece: TypeAlias = Annotated[
    Literal["all"] | Annotated[Size, Field(multiple_of=PAGE_BYTES)], Field(union_mode="left_to_right")
]


@DRIVERS.register("sparse-map")
class SparseMap(ProgramDriver):
    """One page touched per stride over a span with THP off, then madvise(): of all of it, or of each `window`
    before the next is touched."""

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
    chunk: Piece = "all"
    backing: Literal["anonymous", "file"] = "anonymous"
    window: Piece = "all"

    @model_validator(mode="after")
    def _advice_that_there_is(self) -> SparseMap:
        if self.advice == "free" and self.backing == "file":
            raise ValueError("advice: free is for anonymous memory only (madvise(2), MADV_FREE)")
        if self.advice == "keep" and self.window != "all":
            raise ValueError("window: with advice: keep nothing is discarded, so it means nothing")
        return self

    def words(self, seed: int) -> list[str]:  # noqa: ARG002  # nothing in it is random
        options = {
            "stride": self.stride,
            "advice": self.advice,
            "chunk": _bytes(self.chunk),
            "backing": self.backing,
            "window": _bytes(self.window),
        }
        return [str(self.span), *(f"{name}={value}" for name, value in options.items())]


def _bytes(piece: Piece) -> int:
    """As the program takes it: 0 for all."""
    return 0 if piece == "all" else piece
