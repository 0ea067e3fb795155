"""A sparse mapping that is touched and let go: page tables, and nothing else."""

from __future__ import annotations

import json
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from orchestrator.deadline import Deadline
from orchestrator.errors import CommandError, CommandTimeoutError
from orchestrator.guest.shell import GuestShell
from orchestrator.units import PMD_BYTES, Size
from orchestrator.workloads.base import DRIVERS, WorkloadDriver

_MEASURED = (
    "pages_touched",
    "page_table_bytes_touched",
    "page_table_bytes_let_go",
    "touch_seconds",
    "let_go_seconds",
)


@DRIVERS.register("sparse-map")
class SparseMap(WorkloadDriver):
    """One page touched per stride over a span with THP off, then madvise()."""

    processes: ClassVar = ("sparse-map",)

    span: Size
    stride: Size = PMD_BYTES
    advice: Literal["dontneed", "free", "keep"] = "dontneed"
    chunk: Annotated[Literal["all"] | Size, Field(union_mode="left_to_right")] = "all"

    def start(self, shell: GuestShell, *, seed: int, deadline: Deadline) -> dict[str, float]:  # noqa: ARG002  # nothing in it is random
        chunk = 0 if self.chunk == "all" else self.chunk
        argv = ["/usr/local/bin/sparse-map", str(self.span), str(self.stride), self.advice, str(chunk)]
        text = shell.run(argv, seconds=deadline.remaining).text
        try:
            answer = json.loads(text)
            return {name: float(answer[name]) for name in _MEASURED}
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise CommandError("sparse-map printed no result", details=text[:500]) from None

    def stop(self, shell: GuestShell, *, deadline: Deadline) -> None:
        shell.run(["pkill", "-x", "sparse-map"], seconds=deadline.remaining, check=False)
        while shell.run(["pgrep", "-x", "sparse-map"], seconds=deadline.remaining, check=False).code == 0:
            if deadline.expired:
                raise CommandTimeoutError("sparse-map did not end")
