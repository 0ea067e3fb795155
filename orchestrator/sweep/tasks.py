"""A sweep cut into tasks: each is small, says all that it needs, and gives rows of the table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Final, TypeAlias

from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import BadInputError
from orchestrator.model.cost import CostRange, CostTable
from orchestrator.model.guest_population import GuestClass, GuestPopulation
from orchestrator.model.overcommit import HostMemory, OvercommitResult, OvercommitSetting, answer, crowds_of
from orchestrator.model.policies import OverTrace
from orchestrator.model.replay import EvictionAction, replay
from orchestrator.model.trace import Trace
from orchestrator.scenario.sweep import CompareSweepText, Sweep, policies_of
from orchestrator.store.trace_file import read_trace
from orchestrator.units import PAGE_BYTES

Cell: TypeAlias = str | int | float | None
Row: TypeAlias = dict[str, Cell]

_RANGED = ("low", "typical", "high")


class SweepTask(ABC):
    """One point of the grid. `key` are its columns."""

    @abstractmethod
    def rows(self) -> list[Row]:
        """A row for each policy and action, in the order of the sweep. The same task gives the same rows."""


@dataclass(frozen=True)
class OvercommitTask(SweepTask):
    """How many guests fit, for one host and crowd."""

    point: int
    key: Mapping[str, Cell]
    question: OvercommitSetting
    choices: tuple[tuple[str, EvictionAction], ...]
    seeds: int
    costs: CostTable

    def rows(self) -> list[Row]:
        host, asked = self.question.host, self.question
        crowds = _crowds(asked.guests, asked.arrive_seconds, asked.seconds, asked.tick_seconds, self.seeds)
        return [
            {"point": self.point, **self.key, **_of_overcommit(answer(host, crowds, *choice, self.costs))}
            for choice in self.choices
        ]


@dataclass(frozen=True)
class CompareTask(SweepTask):
    """What each policy does to one trace under one budget."""

    point: int
    key: Mapping[str, Cell]
    trace: Path
    budget_bytes: int
    other_node_bytes: int | None
    seed: int
    policies: tuple[str, ...]
    actions: tuple[EvictionAction, ...]
    costs: tuple[tuple[str, CostTable], ...]

    def rows(self) -> list[Row]:
        trace = _trace(self.trace)
        made: list[Row] = []
        for policy in self.policies:
            evicts = OverTrace.named(policy).evicts_in_use
            for action in self.actions if evicts else self.actions[:1]:
                counts = replay(
                    trace,
                    policy,
                    self.budget_bytes,
                    action=action,
                    seed=self.seed,
                    other_nodes_bytes=self.other_node_bytes,
                )
                sizes = {
                    f"{name}_bytes": number * PAGE_BYTES
                    for name, number in (
                        ("freed", counts.freed),
                        ("evicted", counts.evicted),
                        ("peak", counts.peak_tables),
                    )
                }
                for number, (name, table) in enumerate(self.costs):
                    made.append(
                        {
                            "point": self.point * len(self.costs) + number,
                            **self.key,
                            "costs": name,
                            "policy": policy,
                            "action": str(action) if evicts else None,
                            **counts.as_dict(),
                            **sizes,
                            **_range("added_mean_seconds", table.added(counts).mean),
                        }
                    )
        return made


def tasks_of(sweep: Sweep, costs: Mapping[str, CostTable]) -> list[SweepTask]:
    """All tasks, in the order of their rows in the table. `costs`: what the names in the file stand for."""
    if sweep.text.compare:
        return [*_comparisons(sweep, sweep.text.compare, costs)]
    return [
        OvercommitTask(
            number,
            {**point.values, "costs": name},
            point.asked.question,
            tuple(point.asked.choices),
            point.asked.seeds,
            costs[name],
        )
        for number, (point, name) in enumerate(product(sweep.points, sweep.text.costs))
    ]


def _comparisons(sweep: Sweep, asked: CompareSweepText, costs: Mapping[str, CostTable]) -> list[SweepTask]:
    rooms: list[int | None] = [*asked.other_node] if asked.other_node else [None]
    grid = product(asked.traces, asked.budgets, rooms, range(asked.seeds))
    return [
        CompareTask(
            number,
            {"trace": trace, "budget_bytes": budget, "other_node_bytes": room, "seed": seed},
            sweep.path(trace),
            budget,
            room,
            seed,
            policies_of(asked),
            tuple(asked.actions),
            tuple((name, costs[name]) for name in sweep.text.costs),
        )
        for number, (trace, budget, room, seed) in enumerate(grid)
    ]


_KINDS: Final[Mapping[str, TypeAdapter[Any]]] = {
    "overcommit": TypeAdapter(OvercommitTask),
    "compare": TypeAdapter(CompareTask),
}


def task_to_json(task: SweepTask) -> str:
    """All of it as text, for another process; a trace by its path."""
    kind = "compare" if isinstance(task, CompareTask) else "overcommit"
    return f"{kind} {_KINDS[kind].dump_json(task).decode()}"


def task_from_json(text: str) -> SweepTask:
    """What `task_to_json` had. Raises BadInputError for anything else."""
    kind, _, fields = text.partition(" ")
    try:
        task: SweepTask = _KINDS[kind].validate_json(fields)
    except (KeyError, ValidationError):
        raise BadInputError("this is no task of a sweep") from None
    return task


# The next task most often has the same guests, or the same trace.
@lru_cache(maxsize=2)
def _crowds(
    guests: tuple[GuestClass, ...], arrive: float, seconds: float, tick: float, seeds: int
) -> tuple[GuestPopulation, ...]:
    nowhere = HostMemory(0)
    return crowds_of(OvercommitSetting(nowhere, guests, arrive, seconds, tick), seeds)


@lru_cache(maxsize=2)
def _trace(path: Path) -> Trace:
    return read_trace(path)


def _of_overcommit(one: OvercommitResult) -> Row:
    return {
        "policy": one.policy,
        "action": str(one.action) if one.evicts_in_use else None,
        **_range("fit", one.fit),
        **_range("killed", one.killed),
        **_range("table_bytes_peak", one.table_bytes_peak),
        **_range("tables_kept_least", one.tables_kept_least),
        **_range("added_mean_seconds", one.added.mean),
        **_range("added_p50_seconds", one.added.p50),
        **_range("added_p99_seconds", one.added.p99),
    }


def _range(name: str, value: CostRange) -> Row:
    return {f"{name}_{end}": float(number) for end, number in zip(_RANGED, value, strict=True)}
