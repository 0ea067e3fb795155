"""The figures of a run that a comparison needs: also what a baseline file holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.store import SCHEMA_VERSION, Run
from orchestrator.summary import METRIC, TrialSummary


@dataclass(frozen=True)
class TrialFigures:
    """A trial that counts. `seed` is what its workloads had; `state` the saved guest that it started from."""

    trial: str
    repeat: int
    seed: int
    state: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class ArmFigures:
    """An arm: what it is, its trials that count, and (trial, reason) of those that do not.

    `does` is all that decides what happens in a trial but the kernel, in parts that can be told apart:
    guest, machine, setup, kernel_args, host (of any but this machine), steps; empty where the plan does not
    say.
    """

    name: str
    kernel: str
    accel: str
    does: Mapping[str, str]
    trials: tuple[TrialFigures, ...]
    left_out: tuple[tuple[str, str], ...] = ()

    def values(self, metric: str) -> list[float]:
        """A metric in each trial that has it."""
        return [trial.metrics[metric] for trial in self.trials if metric in trial.metrics]


@dataclass(frozen=True)
class RunFigures:
    """A run, or a baseline that was made of one."""

    run: str
    scenario: str
    schema_version: int
    commit: str
    arms: tuple[ArmFigures, ...]

    def arm(self, name: str) -> ArmFigures | None:
        """The arm of that name."""
        return next((arm for arm in self.arms if arm.name == name), None)


def figures_of(run: Run, summaries: Sequence[TrialSummary]) -> RunFigures:
    """The figures of a run, arms in the order of the scenario, also of one that is unfinished."""
    by_arm: dict[str, list[TrialSummary]] = {name: [] for name in run.arm_names}
    warm_ups = [(trial.planned.arm, (trial.id, "is a warm-up")) for trial in run.warm_ups]
    for summary in summaries:
        by_arm.setdefault(summary.arm, []).append(summary)
    return RunFigures(
        run=run.id,
        scenario=run.scenario,
        schema_version=int(run.meta.get("schema_version", 0)),
        commit=str(run.meta.get("git_commit", "")),
        arms=tuple(
            _arm(run, name, members, [what for arm, what in warm_ups if arm == name])
            for name, members in by_arm.items()
            if members
        ),
    )


def planned_figures(run_id: str, plan: Mapping[str, Any]) -> RunFigures:
    """The figures of a run that has not begun: what it is, and no trials. `plan` as in plan.json."""
    names = [str(arm.get("name", "")) for arm in _mappings(plan.get("arms"))]
    return RunFigures(
        run=run_id,
        scenario=str(plan.get("scenario", "")),
        schema_version=SCHEMA_VERSION,
        commit="",
        arms=tuple(ArmFigures(name, "", "", _does(plan, name), ()) for name in names),
    )


def _arm(
    run: Run, name: str, members: Sequence[TrialSummary], warm_ups: Sequence[tuple[str, str]]
) -> ArmFigures:
    seeds = {trial.id: trial.seed for trial in run.planned}
    counted = [one for one in members if not one.left_out]
    told = counted or members
    return ArmFigures(
        name=name,
        kernel=" and ".join(sorted({one.kernel_release for one in told} - {""})),
        accel=" and ".join(sorted({str(one.metrics["accel"]) for one in told if "accel" in one.metrics})),
        does=_does(run.plan, name),
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
            )
            for one in counted
        ),
        left_out=(*warm_ups, *((one.trial, one.left_out) for one in members if one.left_out)),
    )


def _does(plan: Mapping[str, Any], name: str) -> dict[str, str]:
    """As plan.json has it; it was written by a program, but may be of another version."""
    arms = [arm for arm in _mappings(plan.get("arms")) if arm.get("name") == name]
    trials = [trial for trial in _mappings(plan.get("trials")) if trial.get("arm") == name]
    parts: dict[str, Any] = {"guest": plan.get("guest")}
    for arm in arms[:1]:
        parts |= {key: arm.get(key) for key in ("machine", "setup", "kernel_args")}
        if plan.get("host", "local") != "local":
            parts["host"] = [plan["host"], *(arm.get(key) for key in ("host_kernel", "host_setup"))]
            parts["host"].append(plan.get("host_machine"))
    for trial in trials[:1]:
        parts["steps"] = trial.get("steps")
    return {key: json.dumps(part, sort_keys=True) for key, part in parts.items() if part is not None}


def _mappings(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
