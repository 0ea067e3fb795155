"""OOM kills for people: who was killed, with how much memory, and in which arms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.analysis.arms import ArmView, RunView
from orchestrator.analysis.text import clean, count, size
from orchestrator.records.summary import KilledProcess

END: Final = "guest_page_table_bytes_end"
"""The figure that is of a workload only as long as that lives."""
OWNER_KILLED: Final = "owner killed"
_MOST_ROWS: Final = 100
_MOST_NAMED: Final = 4
_SIDES: Final = (("guest", "guest_oom_kills", "in the guest"), ("host", "host_oom_kills", "on the host"))


@dataclass(frozen=True)
class KillRow:
    """A line of the table."""

    trial: str
    of: str
    who: str
    workload: str
    page_tables: str
    anonymous: str
    out_of: str
    adjusted: str


def kill_rows(view: RunView) -> list[KillRow]:
    """The first kills of all trials, arm by arm."""
    rows = [_row(trial.summary.trial, one) for trial in view.trials for one in trial.summary.oom_kills]
    return rows[:_MOST_ROWS]


def kill_sentences(view: RunView) -> Iterator[str]:
    """In which arms processes were killed, and which; in which none was."""
    for of, metric, where in _SIDES:
        counts = [(arm, arm.typical(metric)) for arm in view.arms]
        killed = [(arm, most) for arm, most in counts if most]
        if killed:
            parts = [_of_arm(arm, of, metric, most) for arm, most in killed]
            spared = [clean(arm.name, 60) for arm, most in counts if most == 0]
            rest = f"; none with {', '.join(spared)}" if spared else ""
            yield f"OOM kills {where}: {'; '.join(parts)}{rest}."


def killed_workloads(arm: ArmView) -> tuple[str, ...]:
    """Workloads of which a process was killed, in any trial that counts."""
    found = (one.workload for trial in arm.counted for one in trial.summary.oom_kills if one.workload)
    return tuple(dict.fromkeys(found))


def _of_arm(arm: ArmView, of: str, metric: str, most: float) -> str:
    trials = [trial.summary for trial in arm.trials]
    hit = sum(bool(one.number(metric)) for one in trials)
    times = f" at most, in {hit} of {len(trials)} trials" if len(trials) > 1 else ""
    everyone = [one for trial in trials for one in trial.oom_kills if one.of == of]
    return f"{count(most)}{times} with {clean(arm.name, 60)} ({_names(everyone)})"


def _names(kills: Sequence[KilledProcess]) -> str:
    """Workloads first, each with the most page tables that it had."""
    times = Counter((one.workload or one.comm) for one in kills)
    ordered = sorted(times, key=lambda name: (not any(one.workload == name for one in kills), -times[name]))
    named = [_name(name, times[name], kills) for name in ordered[:_MOST_NAMED]]
    more = [f"{len(ordered) - _MOST_NAMED} more"] if len(ordered) > _MOST_NAMED else []
    return ", ".join((*named, *more)) or "no kernel log has a name"


def _name(name: str, times: int, kills: Sequence[KilledProcess]) -> str:
    of_it = [one for one in kills if (one.workload or one.comm) == name]
    worst = max(of_it, key=lambda one: one.page_table_bytes or 0)
    word = clean(name, 40) if times == 1 else f"{clean(name, 40)} {times} times"
    if worst.page_table_bytes is None or not worst.workload:
        return word
    return f"{word} with {size(worst.page_table_bytes)} of page tables"


def _row(trial: str, one: KilledProcess) -> KillRow:
    def of(value: int | None) -> str:
        return "" if value is None else size(value)

    return KillRow(
        clean(trial, 60),
        clean(one.of, 10),
        f"{clean(one.comm, 64)} ({one.pid})",
        clean(one.workload, 64),
        of(one.page_table_bytes),
        of(one.anon_rss_bytes),
        clean(one.out_of, 10),
        "" if one.oom_score_adj is None else str(one.oom_score_adj),
    )
