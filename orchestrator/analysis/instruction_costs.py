"""Costs of the model in instructions, of a run of scenarios/costs.yaml: which phase less which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from orchestrator.errors import BadInputError
from orchestrator.stats import of_few
from orchestrator.store import Run
from orchestrator.store.costs_file import Counted
from orchestrator.suggestion import suggest
from orchestrator.summary import TrialSummary, load
from orchestrator.verdict import compare_arms, figures_of

KEEPS: Final = "6.12-sparse"
FREES: Final = "7.x-sparse"

_TOUCH_AGAIN: Final = "touch_again_instructions_per_table"
_HINT: Final = "orchestrator run scenarios/costs.yaml"


def instruction_costs(run: Run, keeps: str = KEEPS, frees: str = FREES) -> dict[str, Counted]:
    """Instructions for each table, by the cost that they are of.

    `keeps` is an arm whose kernel keeps a table that it has emptied, `frees` one that frees it; both run
    page-table-bench on one page in each table. Raises BadInputError where the run has no such counts.
    """
    trials = [one for one in load(run) if not one.left_out]
    for arm in (keeps, frees):
        if arm not in run.arm_names:
            raise BadInputError(f"{run.id} has no arm {arm!r}", hint=suggest(arm, list(run.arm_names)))
    if keeps == frees:
        raise BadInputError(f"{keeps} cannot both keep emptied tables and free them", hint="name two arms")
    return {
        "free_seconds": _freed(run, trials, keeps),
        "fault_seconds": _made_again(run, trials, keeps, frees),
    }


def _freed(run: Run, trials: list[TrialSummary], keeps: str) -> Counted:
    """Both phases unmap the pages of all tables; munmap() frees the tables as well, which madvise() keeps."""

    def more(trial: TrialSummary) -> float | None:
        munmap, discard = (trial.number(f"{phase}_instructions_per_table") for phase in ("munmap", "discard"))
        return None if munmap is None or discard is None else munmap - discard

    values = list(_by_boot(run, trials, keeps, more).values())
    interval = of_few(np.array(values), range(len(values)))
    low, high = (interval.low, interval.high) if interval else (min(values), max(values))
    of = f"munmap() less madvise(MADV_DONTNEED) in {keeps}, of which only the first frees the tables"
    return Counted(low=low, typical=sum(values) / len(values), high=high, boots=len(values), of=of)


def _made_again(run: Run, trials: list[TrialSummary], keeps: str, frees: str) -> Counted:
    boots = [
        len(_by_boot(run, trials, arm, lambda trial: trial.number(_TOUCH_AGAIN))) for arm in (keeps, frees)
    ]
    (pair,) = (
        pair for pair in compare_arms(figures_of(run, trials), base=keeps).pairs if pair.second.name == frees
    )
    found = pair.metrics[_TOUCH_AGAIN]
    ends = (found.interval.low, found.interval.high) if found.interval else (found.estimate, found.estimate)
    of = (
        f"touching a page again after madvise(MADV_DONTNEED) in {frees} less {keeps}: a last-level table of "
        "a process is made again. No second-level table, and no exit of a guest"
    )
    return Counted(low=ends[0], typical=found.estimate, high=ends[1], boots=min(boots), of=of)


def _by_boot(
    run: Run, trials: list[TrialSummary], arm: str, read: Callable[[TrialSummary], float | None]
) -> dict[str, float]:
    boots: dict[str, list[float]] = {}
    for trial in trials:
        value = read(trial) if trial.arm == arm else None
        if value is not None:
            boots.setdefault(trial.boot, []).append(value)
    if not boots:
        raise BadInputError(f"no trial of {arm} in {run.id} counted instructions of page tables", hint=_HINT)
    return {boot: sum(values) / len(values) for boot, values in boots.items()}
