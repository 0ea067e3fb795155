"""Rounds of a plan: what one host does as a whole, so that arms are balanced over hosts.

A round is one trial of each arm, of the same repeat. Its trials are what pairs are made of, and a pair within
one host has nothing of the difference between hosts in it. So whoever hands trials out to several hosts hands
out rounds. Pure: the same plan and the same trials give the same rounds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from orchestrator.plan import Plan, PlannedTrial


@dataclass(frozen=True)
class Round:
    """Trials of one repeat, in the order in which one host shall do them.

    `host` is where the other trials of the repeat ran, if all of these were on one host: on another one, what
    is left of the round makes no pairs. Empty where any host will do.
    """

    repeat: int
    trials: tuple[PlannedTrial, ...]
    host: str = ""

    @property
    def warm_up(self) -> bool:
        """Whether it is one of those before the first, which count nowhere."""
        return self.repeat < 1


def rounds(
    plan: Plan, left: Collection[str] | None = None, hosts: Mapping[str, str] | None = None
) -> tuple[Round, ...]:
    """Cut the trials of a plan into rounds, or those of the ids `left`; `hosts` says where others ran.

    Rounds are in the order of their repeats. In each, the plan's order is kept: its seed has shuffled the
    arms of every repeat anew (`orchestrator.plan.shuffled`), and so those of whatever rounds a host gets.
    Raises KeyError for an id that is none of the plan's.
    """
    known = {trial.id: trial for trial in plan.trials}
    wanted = list(known.values()) if left is None else [known[one] for one in left]
    by_repeat: dict[int, list[PlannedTrial]] = {}
    for trial in sorted(wanted, key=lambda one: (one.repeat, one.order)):
        by_repeat.setdefault(trial.repeat, []).append(trial)
    ids = {trial.id for trial in wanted}
    where: dict[int, set[str]] = {}
    for one, host in (hosts or {}).items():
        if one not in ids:
            where.setdefault(known[one].repeat, set()).add(host)
    return tuple(
        Round(repeat, tuple(trials), _only(where.get(repeat, set()))) for repeat, trials in by_repeat.items()
    )


def _only(hosts: Collection[str]) -> str:
    return next(iter(hosts)) if len(hosts) == 1 else ""
