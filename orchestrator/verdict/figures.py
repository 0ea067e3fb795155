"""The figures of a run that a comparison needs: also what a baseline file holds."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.host_kinds import is_guest
from orchestrator.records.hosts import HostRecord
from orchestrator.records.meta import RunMeta
from orchestrator.records.plan import ArmRecord, PlanRecord
from orchestrator.records.summary import boot_name
from orchestrator.store import SCHEMA_VERSION, Run
from orchestrator.summary import METRIC, TrialSummary

# Reasons to leave a trial out that say nothing of how it would have ended.
_WARM_UP = "is a warm-up"
_NO_RESULT = {_WARM_UP, "did not complete: interrupted", "did not complete: unfinished"}


@dataclass(frozen=True)
class TrialFigures:
    """A trial that counts. `seed` is what its workloads had; `state` the saved boot that it started from,
    empty where it booted a guest of its own; `host` where it ran, empty where that is not known."""

    trial: str
    repeat: int
    seed: int
    state: str
    metrics: Mapping[str, float]
    host: str = ""

    @property
    def boot(self) -> str:
        """Names the boot that it is a trial of: trials of one saved boot have one."""
        return boot_name(self.trial, self.state, self.host)


@dataclass(frozen=True)
class ArmFigures:
    """An arm: what it is, its trials that count, and (trial, reason) of those that do not.

    `does` is all that decides what happens in a trial but the kernel, in parts (for `comparability.py`):
    guest, machine, setup, kernel_args, start, host, steps; empty where the plan does not say. `lost` has
    those of `left_out` that a comparison has to count, as they ended badly, and the boot of each; `gaps` why
    a metric is in no trial; `build` what `uname -v` says; `lost_hosts` the host of each of the `lost`. A
    baseline of an older version has none of them.
    """

    name: str
    kernel: str
    accel: str
    does: Mapping[str, str]
    trials: tuple[TrialFigures, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    build: str = ""
    lost: Mapping[str, str] | None = None
    gaps: Mapping[str, str] = field(default_factory=dict)
    lost_hosts: Mapping[str, str] = field(default_factory=dict)

    def values(self, metric: str) -> list[float]:
        """A metric in each trial that has it."""
        return [trial.metrics[metric] for trial in self.trials if metric in trial.metrics]

    def boots(self, metric: str = "") -> tuple[str, ...]:
        """The boot of each trial that counts, or of each that has a metric."""
        return tuple(trial.boot for trial in self.trials if not metric or metric in trial.metrics)

    @property
    def of_boots(self) -> str:
        """`8 trials of 5 boots`: those that count."""
        return of_boots(len(self.trials), len(set(self.boots())))

    @property
    def lost_boots(self) -> frozenset[str]:
        """Boots of which a trial was lost, timed out or did not settle.

        An older baseline does not say which boots its trials had that do not count: each then has its own.
        """
        if self.lost is not None:
            return frozenset(self.lost.values())
        return frozenset(trial for trial, why in self.left_out if ended_badly(why))

    @property
    def tried_boots(self) -> frozenset[str]:
        """All boots of which a trial came to an end, good or bad."""
        return self.lost_boots | frozenset(self.boots())

    @property
    def boot_hosts(self) -> dict[str, str]:
        """The host of each of the `tried_boots`."""
        lost = dict.fromkeys(self.lost_boots, "")
        lost |= {boot: self.lost_hosts.get(trial, "") for trial, boot in (self.lost or {}).items()}
        return lost | {trial.boot: trial.host for trial in self.trials}


def ended_badly(left_out: str) -> bool:
    """Whether a trial that is left out for this reason is a bad result, and not one that is still to come."""
    return left_out not in _NO_RESULT


def of_boots(trials: int, boots: int) -> str:
    """`8 trials of 5 boots`."""
    return f"{trials} trial{'' if trials == 1 else 's'} of {boots} boot{'' if boots == 1 else 's'}"


@dataclass(frozen=True)
class RunFigures:
    """A run, or a baseline that was made of one.

    `facts` is where and how it ran, in words: host_cpu, host_kernel, host_thp, qemu, libvirt, image. What is
    not known is not there. `hosts` has the hosts of its trials by name, and what identifies each.
    """

    run: str
    scenario: str
    schema_version: int
    commit: str
    arms: tuple[ArmFigures, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    hosts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def arm(self, name: str) -> ArmFigures | None:
        """The arm of that name."""
        return next((arm for arm in self.arms if arm.name == name), None)


def figures_of(run: Run, summaries: Sequence[TrialSummary]) -> RunFigures:
    """The figures of a run, arms in the order of the scenario, also of one that is unfinished."""
    by_arm: dict[str, list[TrialSummary]] = {name: [] for name in run.arm_names}
    warm_ups = [(trial.planned.arm, (trial.id, _WARM_UP)) for trial in run.warm_ups]
    for summary in summaries:
        by_arm.setdefault(summary.arm, []).append(summary)
    return RunFigures(
        run=run.id,
        scenario=run.scenario,
        schema_version=SCHEMA_VERSION,
        commit=run.meta.git_commit,
        arms=tuple(
            _arm(run, name, members, [what for arm, what in warm_ups if arm == name])
            for name, members in by_arm.items()
            if members
        ),
        facts=_facts(run.meta, run.plan),
        hosts=_hosts(run.meta, {summary.host for summary in summaries} - {""}),
    )


def planned_figures(run_id: str, plan: PlanRecord) -> RunFigures:
    """The figures of a run that has not begun: what it is, and no trials."""
    return RunFigures(
        run=run_id,
        scenario=plan.scenario,
        schema_version=SCHEMA_VERSION,
        commit="",
        arms=tuple(ArmFigures(arm.name, "", "", _does(plan, arm.name), ()) for arm in plan.arms),
    )


def _arm(
    run: Run, name: str, members: Sequence[TrialSummary], warm_ups: Sequence[tuple[str, str]]
) -> ArmFigures:
    seeds = {trial.id: trial.seed for trial in run.planned}
    counted = [one for one in members if not one.left_out]
    lost = [one for one in members if one.left_out and ended_badly(one.left_out)]
    shown = counted or members
    return ArmFigures(
        name=name,
        kernel=" and ".join(sorted({one.kernel_release for one in shown} - {""})),
        accel=" and ".join(sorted({str(one.metrics["accel"]) for one in shown if "accel" in one.metrics})),
        does=_does(run.plan, name),
        build=" and ".join(sorted({one.kernel_build for one in shown} - {""})),
        trials=tuple(
            TrialFigures(
                trial=one.trial,
                repeat=one.repeat,
                seed=seeds.get(one.trial, 0),
                state=one.state,
                metrics={
                    metric: float(value)
                    for metric, value in one.metrics.items()
                    if METRIC[metric].unit and isinstance(value, int | float)
                },
                host=one.host,
            )
            for one in counted
        ),
        left_out=(*warm_ups, *((one.trial, one.left_out) for one in members if one.left_out)),
        lost={one.trial: one.boot for one in lost},
        lost_hosts={one.trial: one.host for one in lost if one.host},
        gaps={
            metric: reason
            for one in reversed(counted)
            for metric, reason in one.gaps.items()
            if all(metric not in other.metrics for other in counted)
        },
    )


def _does(plan: PlanRecord, name: str) -> dict[str, str]:
    """As plan.json has it; it was written by a program, but may be of another version."""
    parts: dict[str, Any] = {"guest": plan.guest}
    if arm := plan.arm(name):
        parts |= {"machine": arm.machine, "setup": arm.setup, "kernel_args": arm.kernel_args}
        parts |= {"host": _host(plan, arm), "start": arm.start or plan.start}
    if trial := next((trial for trial in plan.trials if trial.arm == name), None):
        parts["steps"] = trial.steps
    return {key: json.dumps(part, sort_keys=True) for key, part in parts.items() if part is not None}


def _host(plan: PlanRecord, arm: ArmRecord) -> dict[str, Any]:
    """Where the plan has guests run. Of a host that is no guest, kernel and devices are not asked for."""
    host: dict[str, Any] = {"host": plan.host, "setup": arm.host_setup or {}}
    if is_guest(plan.host):
        host |= {"kernel": arm.host_kernel, "machine": plan.host_machine}
    return {key: part for key, part in host.items() if part is not None}


def _facts(meta: RunMeta, plan: PlanRecord) -> dict[str, str]:
    facts = {
        "host_cpu": meta.host.get("cpu"),
        "host_kernel": meta.host.get("kernel"),
        "host_thp": meta.host.get("thp"),
        "qemu": meta.hypervisor.get("qemu"),
        "libvirt": meta.hypervisor.get("libvirt"),
        "image": meta.image.get("key"),
    }
    if is_guest(plan.host):
        # Each trial has a host of its own, and meta.json is of the last one. `does` has what was asked for.
        del facts["host_kernel"], facts["host_thp"]
    return {key: str(fact) for key, fact in facts.items() if fact}


def _hosts(meta: RunMeta, names: Collection[str]) -> dict[str, dict[str, str]]:
    """The hosts of trials by name; of one host, meta.json says it of the run."""
    known = dict(meta.hosts)
    if len(names) == 1 and not known:
        known = {name: HostRecord.of("", meta.facts()) for name in names}
    return {name: known[name].in_words() if name in known else {} for name in sorted(names)}
