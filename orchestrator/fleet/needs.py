"""What a trial needs of a host, and what a host has not. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.errors import BadInputError
from orchestrator.fleet.card import HostCard, Program
from orchestrator.host_kinds import is_shared, takes_our_memory
from orchestrator.plan import Plan, TrialSpec
from orchestrator.run.budget import machine_here, memory_of
from orchestrator.run.execute import sets_the_host
from orchestrator.scenario.model import Requires
from orchestrator.units import format_size

_SHOWN_HOSTS = 20


@dataclass(frozen=True)
class Needs:
    """Of one trial. `memory` and `disk` in bytes; `exclusive`: nothing else is to run on its host."""

    memory: int
    cores: int
    disk: int
    exclusive: bool
    kvm: bool
    requires: Requires

    def takes(self, card: HostCard) -> Resources:
        """What is not there for others while it runs there."""
        cores = card.cores if self.exclusive else min(self.cores, card.cores)
        return Resources(self.memory, max(1, cores), self.disk)


@dataclass(frozen=True)
class Resources:
    """What a host has, or trials on it take."""

    memory: int = 0
    cores: int = 0
    disk: int = 0

    @classmethod
    def of(cls, card: HostCard) -> Resources:
        """All that a host has."""
        return cls(card.memory, card.cores, card.disk)

    def __add__(self, other: Resources) -> Resources:
        return Resources(self.memory + other.memory, self.cores + other.cores, self.disk + other.disk)

    def fits(self, all_there_is: Resources) -> bool:
        """Whether so much is there."""
        both = zip(self.as_tuple, all_there_is.as_tuple, strict=True)
        return all(wanted <= there for wanted, there in both)

    @property
    def as_tuple(self) -> tuple[int, int, int]:
        """Memory, cores, disk."""
        return self.memory, self.cores, self.disk


def needs_of(spec: TrialSpec, plan: Plan) -> Needs:
    """What its machine implies, and what the scenario requires beyond that.

    vCPUs want a core each where there are so many: a guest may have more than its host, as on one machine.
    """
    machine, requires = machine_here(spec), plan.requires or Requires()
    # What is saved of a guest for others to start from is at most its memory.
    state = machine.boot_maximum if spec.start == "warm" else 0
    return Needs(
        memory=max(memory_of(machine), requires.memory or 0),
        cores=requires.cores or machine.vcpus,
        disk=max(state, requires.disk or 0),
        exclusive=plan.times == "measured" or (is_shared(plan.host) and sets_the_host(spec)),
        kvm=requires.kvm or plan.accel == "kvm",
        requires=requires,
    )


def missing(needs: Needs, card: HostCard) -> list[str]:
    """What a host has not of it, even where nothing else runs there."""
    wanted, found = needs.requires, []
    for what, want, have in (("memory", needs.memory, card.memory), ("free disk", needs.disk, card.disk)):
        if want > have:
            found.append(f"{what}: {format_size(have)} of {format_size(want)}")
    if wanted.cores and card.cores < wanted.cores:
        found.append(f"cores: {card.cores} of {wanted.cores}")
    if needs.kvm and card.kvm:
        found.append(f"KVM: {card.kvm}")
    if wanted.second_level and card.second_level != wanted.second_level:
        found.append(f"{wanted.second_level}: it has {card.second_level}")
    if wanted.nested and not card.nested:
        found.append("nested KVM")
    if wanted.architecture and card.architecture != wanted.architecture:
        found.append(f"architecture {wanted.architecture}: it is {card.architecture}")
    if wanted.kernel and _numbers(card.kernel) < _numbers(wanted.kernel):
        found.append(f"Linux {wanted.kernel}: it has {card.kernel}")
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]+", version.partition("-")[0])[:3])


def must_run_on_its_host(plan: Plan) -> None:
    """Raise BadInputError where a plan names a host itself: there is nothing to spread."""
    if not takes_our_memory(plan.host):
        raise BadInputError(
            f"its trials run on {plan.host}, and not on a fleet",
            hint="a fleet's hosts are those with a worker: use `host: local` or `host: nested`",
        )


def needs_by_arm(plan: Plan) -> dict[str, Needs]:
    """What trials of each arm need: they differ in what is done, and not in where."""
    first = {trial.arm: trial.id for trial in reversed(plan.trials)}
    return {arm: needs_of(plan.trial(trial_id), plan) for arm, trial_id in first.items()}


def must_be_able(needs: Mapping[str, Needs], cards: Sequence[HostCard], program: Program) -> None:
    """Raise BadInputError, with what each host has not, where no host can do the trials of an arm."""
    for arm, wanted in needs.items():
        lacks = {card.name: [*program.differences(card.program), *missing(wanted, card)] for card in cards}
        if not all(lacks.values()):
            continue
        lines = [f"{name}: {'; '.join(lack)}" for name, lack in lacks.items()]
        more = len(lines) - _SHOWN_HOSTS
        raise BadInputError(
            f"no host of the fleet can do trials of {arm}",
            details="\n".join([*lines[:_SHOWN_HOSTS], *([f"and {more} more"] if more > 0 else [])]),
            hint="orchestrator fleet status   says what each can",
        )
