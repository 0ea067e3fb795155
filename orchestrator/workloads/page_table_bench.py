"""What page tables cost: rounds of the same phases on one mapping, in instructions or in seconds."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from orchestrator.metric import COST_PHASES
from orchestrator.units import PMD_BYTES, Size
from orchestrator.workloads.base import DRIVERS
from orchestrator.workloads.program import ProgramDriver, answer_of, checked_figures

_MOST_ROUNDS: Final = 64
_COUNTS: Final = (
    "ranges",
    "pages",
    "cpu",
    "page_table_bytes_mapped",
    "page_table_bytes_touched",
    "page_table_bytes_discarded",
)
_IN_THE_ROOT_CGROUP: Final = 'echo 0 >/sys/fs/cgroup/cgroup.procs && exec "$@"'  # cgroup v2
# Of what the program calls the unit: how figures have it, and its value in that.
_UNITS: Final = {"instructions": ("instructions", 1.0), "nanoseconds": ("seconds", 1e-9)}


@DRIVERS.register("page-table-bench")
class PageTableBench(ProgramDriver):
    """A mapping that is touched, discarded, touched again, copied by fork(), moved and unmapped, in rounds.

    Nothing is held when `start` returns.
    """

    span: Annotated[Size, Field(ge=PMD_BYTES, multiple_of=PMD_BYTES)]
    """Bytes of the mapping, whole ranges of 2 MiB."""
    layout: Literal["sparse", "dense"] = "sparse"
    backing: Literal["anonymous", "shared", "file"] = "anonymous"
    discard: Literal["dontneed", "free"] = "dontneed"
    chunk: Literal["all", "pmd", "page"] = "all"
    thp: Literal["guest", "always", "never"] = "never"
    threads: Annotated[int, Field(strict=True, ge=1, le=4)] = 1
    rounds: Annotated[int, Field(strict=True, ge=1, le=_MOST_ROUNDS)] = 20
    warm_up: Annotated[int, Field(strict=True, ge=0, le=_MOST_ROUNDS)] = 5
    unit: Literal["instructions", "nanoseconds"] = "instructions"
    cgroup: Literal["session", "root"] = "session"
    """`root`: no page and no table is charged to a memory cgroup (__memcg_kmem_charge_page() and
    charge_memcg() leave the root out, mm/memcontrol.c)."""

    @model_validator(mode="after")
    def _what_there_is(self) -> PageTableBench:
        if self.discard == "free" and self.backing != "anonymous":
            raise ValueError("discard: free is for anonymous memory only (madvise(2), MADV_FREE)")
        if self.threads * PMD_BYTES > self.span:
            raise ValueError("each thread takes at least 2 MiB of span")
        return self

    def words(self, seed: int) -> list[str]:  # noqa: ARG002  # nothing in it is random
        names = ("unit", "layout", "backing", "discard", "chunk", "thp", "threads", "rounds", "warm_up")
        return [str(self.span), *(f"{name}={getattr(self, name)}" for name in names)]

    def argv(self, seed: int) -> list[str]:
        argv = super().argv(seed)
        return ["sh", "-c", _IN_THE_ROOT_CGROUP, "sh", *argv] if self.cgroup == "root" else argv

    def measured(self, text: str) -> dict[str, float]:
        return parse_rounds(text, unit=self.unit, rounds=self.rounds, warm_up=self.warm_up)


def parse_rounds(text: str, *, unit: str, rounds: int, warm_up: int) -> dict[str, float]:
    """What the program measured, by name with unit: of each phase the median of its rounds for each table and
    each page, the distance of their quartiles, and every round. Raises ValueError for anything else.

    `tables` are the ranges of 2 MiB, each of which takes a last-level table where base pages map it.
    """
    answer = answer_of(text)
    if not isinstance(answer, dict) or answer.get("unit") != unit:
        raise ValueError(f"it is no object of {unit}")
    counts = checked_figures({name: answer.get(name) for name in _COUNTS}, _COUNTS)
    if not counts["ranges"] or not counts["pages"]:
        raise ValueError("it has no pages")
    word, one = _UNITS[unit]
    measured = {phase: rounds_of(answer, "rounds", phase, rounds) for phase in COST_PHASES}
    before = {phase: rounds_of(answer, "warm_up", phase, warm_up) for phase in COST_PHASES}
    total = sum(map(sum, measured.values()))
    return {
        "tables": counts["ranges"],
        "pages": counts["pages"],
        **{name: counts[name] for name in _COUNTS if name.startswith("page_table_bytes")},
        "others_share": max(0.0, 1 - counts["cpu"] / total) if total else 0.0,
        **{
            name: value * one
            for phase in COST_PHASES
            for name, value in _of_phase(f"{phase}_{word}", before[phase], measured[phase], counts)
        },
    }


def _of_phase(
    name: str, before: Sequence[float], rounds: Sequence[float], counts: Mapping[str, float]
) -> Iterator[tuple[str, float]]:
    middle = statistics.median(rounds)
    yield f"{name}_per_table", middle / counts["ranges"]
    yield f"{name}_per_page", middle / counts["pages"]
    yield f"{name}_quartile_distance_per_table", quartile_distance(rounds) / counts["ranges"]
    for number, value in enumerate(before, start=1):
        yield f"{name}_warm_up_{number:02d}", value
    for number, value in enumerate(rounds, start=1):
        yield f"{name}_round_{number:02d}", value


def quartile_distance(rounds: Sequence[float]) -> float:
    """The upper less the lower quartile; 0 of one round."""
    quarters = statistics.quantiles(rounds, n=4, method="inclusive") if len(rounds) > 1 else [0.0] * 3
    return quarters[2] - quarters[0]


def rounds_of(answer: Mapping[str, Any], part: str, phase: str, count: int) -> list[float]:
    """The rounds of a phase, exactly as many as were asked for. Raises ValueError."""
    phases = answer.get(part)
    values = phases.get(phase) if isinstance(phases, Mapping) else None
    if not isinstance(values, list) or len(values) != count:
        raise ValueError(f"{part}.{phase} is no list of {count} figures")
    return [checked_figures({"round": value}, ("round",))["round"] for value in values]
