"""What a second-level table costs that is made again, in a guest that is a KVM host."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import Field

from orchestrator.units import GIB, PMD_BYTES, Size
from orchestrator.workloads.base import DRIVERS
from orchestrator.workloads.page_table_bench import quartile_distance, rounds_of
from orchestrator.workloads.program import ProgramDriver, answer_of, checked_figures

PHASES: Final = ("table", "entry", "walk")
_MOST_ROUNDS: Final = 64
_COUNTS: Final = ("ranges", "second_level_bytes_dropped", "second_level_bytes_made")


@DRIVERS.register("second-level-bench")
class SecondLevelBench(ProgramDriver):
    """A small VM that touches its memory after KVM has dropped all second-level tables, in rounds.

    Nothing is held when `start` returns.
    """

    span: Annotated[Size, Field(ge=PMD_BYTES, le=2 * GIB, multiple_of=PMD_BYTES)]
    """Bytes of the VM's memory, whole ranges of 2 MiB."""
    rounds: Annotated[int, Field(strict=True, ge=1, le=_MOST_ROUNDS)] = 20
    warm_up: Annotated[int, Field(strict=True, ge=0, le=_MOST_ROUNDS)] = 5

    def words(self, seed: int) -> list[str]:  # noqa: ARG002  # nothing in it is random
        return [str(self.span), f"rounds={self.rounds}", f"warm_up={self.warm_up}"]

    def measured(self, text: str) -> dict[str, float]:
        return parse_rounds(text, rounds=self.rounds)


def parse_rounds(text: str, *, rounds: int) -> dict[str, float]:
    """What the program measured, by name with unit: of each phase the median of its rounds for each range
    of 2 MiB, the distance of their quartiles, every round, and KVM's counts of exits and faults.

    Raises ValueError for anything else.

    `second_level_instructions_per_table` is what a range's table adds to that of an entry: the difference of
    the medians of phases `table` and `entry`.
    """
    answer = answer_of(text)
    if not isinstance(answer, dict) or "ranges" not in answer:
        raise ValueError("it is no object with ranges")
    counts = checked_figures({name: answer.get(name) for name in _COUNTS}, _COUNTS)
    ranges = counts["ranges"]
    if not ranges:
        raise ValueError("it has no ranges")
    measured = {phase: rounds_of(answer, "rounds", phase, rounds) for phase in PHASES}
    found = dict(counts)
    for phase in PHASES:
        found |= dict(_of_phase(f"second_level_{phase}_instructions", measured[phase], ranges))
        for what in ("exits", "faults"):
            count = _count_of(answer, what, phase)
            found[f"second_level_{phase}_{what}_per_range"] = count / ranges / rounds
    per_range = {phase: found[f"second_level_{phase}_instructions_per_range"] for phase in PHASES}
    return {**found, "second_level_instructions_per_table": per_range["table"] - per_range["entry"]}


def _of_phase(name: str, rounds: Sequence[float], ranges: float) -> Iterator[tuple[str, float]]:
    yield f"{name}_per_range", statistics.median(rounds) / ranges
    yield f"{name}_quartile_distance_per_range", quartile_distance(rounds) / ranges
    for number, value in enumerate(rounds, start=1):
        yield f"{name}_round_{number:02d}", value


def _count_of(answer: Mapping[str, Any], what: str, phase: str) -> float:
    phases = answer.get(what)
    value = phases.get(phase) if isinstance(phases, Mapping) else None
    return checked_figures({"count": value}, ("count",))["count"]
