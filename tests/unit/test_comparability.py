"""What two runs may differ in: keys that were added since are no difference, hosts and images are one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import BadInputError
from orchestrator.host.machine import HostSetup, Machine
from orchestrator.records.meta import RunMeta
from orchestrator.records.plan import PlanRecord
from orchestrator.records.versions import SCHEMA_VERSION
from orchestrator.scenario.model import Setup
from orchestrator.store import Run
from orchestrator.verdict import Gate, RunFigures, compare_runs, figures_of, read_baseline
from orchestrator.verdict.comparability import VARIES
from orchestrator.verdict.figures import planned_figures

GOLDEN = Path(__file__).parent / "golden"
# As `orchestrator baseline` of b3be36e wrote them, of runs that were made before it.
OLD = ("baseline-quickstart.json", "baseline-second-level.json")


def plan_of(old: RunFigures) -> PlanRecord:
    """The plan of the run of an old baseline as this version writes it: with every key that there is now."""
    plan: dict[str, Any] = {"scenario": old.scenario, "start": "warm", "arms": [], "trials": []}
    for arm in old.arms:
        does = {key: json.loads(part) for key, part in arm.does.items()}
        host, kernel, setup, machine = does.get("host", ["local", "7.x", {}, None])
        plan |= {"guest": does["guest"], "host": host}
        plan |= {"host_machine": _whole(Machine, machine)} if machine else {}
        plan["arms"].append(
            {
                "name": arm.name,
                "kernel_args": "",
                "machine": _whole(Machine, does["machine"]),
                "setup": _whole(Setup, does["setup"]),
                "host_kernel": kernel,
                "host_setup": _whole(HostSetup, setup),
            }
        )
        plan["trials"].append({"id": arm.name, "arm": arm.name, "steps": does["steps"]})
    return PlanRecord.model_validate(plan)


def today(old: RunFigures) -> RunFigures:
    """The same run again, planned and recorded by this version."""
    planned = planned_figures("now", plan_of(old)).arms
    arms = tuple(
        replace(now, kernel=arm.kernel, accel=arm.accel, trials=arm.trials)
        for now, arm in zip(planned, old.arms, strict=True)
    )
    facts = dict.fromkeys(("host_cpu", "host_kernel", "host_thp", "qemu", "libvirt", "image"), "x")
    return replace(old, run="now", arms=arms, facts=facts)


def _whole(model: Any, part: dict[str, Any]) -> Any:
    return model.model_validate(part, context={"resolved": True}).model_dump(mode="json")


@pytest.mark.parametrize("name", OLD)
def test_a_baseline_of_the_version_before_is_compared(name: str) -> None:
    old = read_baseline(GOLDEN / name)
    now = today(old)
    # Else this could not fail: as text, the parts are not what they were.
    assert all(one.does != arm.does for one, arm in zip(old.arms, now.arms, strict=True))
    found = compare_runs(old, now)
    assert found.forced == ()
    assert [note for note in found.notes if note.startswith(f"{old.run} does not say its ")]
    assert {pair.pairing for pair in found.pairs} == {"state"}
    # Its trials are of one boot, and the words say so.
    trials = len(old.arms[0].trials)
    outcome = Gate(old, "regression").judge(now)
    assert not outcome.refused
    assert f"{trials} trial{'s' if trials > 1 else ''} of 1 boot of each arm" in outcome.changes[0].reason


@pytest.mark.parametrize("name", OLD)
def test_a_baseline_of_the_version_before_fits_a_plan_of_today(name: str) -> None:
    old = read_baseline(GOLDEN / name)
    gate, plan = Gate(old, "regression"), plan_of(old)
    gate.must_fit(plan)
    document = json.loads(plan.to_json())
    document["arms"][0]["machine"]["balloon"]["deflate_on_oom"] = True
    with pytest.raises(BadInputError) as refused:
        gate.must_fit(PlanRecord.model_validate(document))
    key = f"machine of {old.arms[0].name}: balloon.deflate_on_oom false against true"
    assert str(refused.value).endswith(key)


def run(*, name: str = "r1", **meta: Any) -> RunFigures:
    """A run without trials, of one arm."""
    arm = {
        "name": "a",
        "machine": {"memory": 1 << 30},
        "setup": {},
        "kernel_args": "",
        "host_setup": meta.pop("host_setup", {}),
    }
    plan = {
        "guest": "debian-13",
        "start": "warm",
        "arms": [arm],
        "trials": [{"id": "a-01", "arm": "a", "steps": []}],
    }
    plan |= meta.pop("plan", {})
    record = PlanRecord.model_validate(plan)
    known = RunMeta.model_validate({"schema_version": SCHEMA_VERSION, **meta})
    return replace(figures_of(Run(Path(name), known, record), []), arms=planned_figures("", record).arms)


META: dict[str, Any] = {
    "host": {"cpu": "AMD EPYC", "kernel": "6.18.44", "thp": "madvise"},
    "hypervisor": {"libvirt": "11.3.0", "qemu": "10.0.2"},
    "image": {"key": "fb63c5a1c752dbc4"},
}


@pytest.mark.parametrize(
    ("part", "key", "value", "varies", "why"),
    [
        ("host", "cpu", "Xeon", "host_cpu", "host CPU (host_cpu): AMD EPYC against Xeon"),
        ("host", "kernel", "7.0", "host_kernel", "host kernel (host_kernel): 6.18.44 against 7.0"),
        ("host", "thp", "never", "host_thp", "host transparent huge pages (host_thp): madvise against never"),
        ("hypervisor", "qemu", "10.1", "qemu", "QEMU (qemu): 10.0.2 against 10.1"),
        ("hypervisor", "libvirt", "12", "libvirt", "libvirt (libvirt): 11.3.0 against 12"),
        ("image", "key", "0", "image", "image (image): fb63c5a1c752dbc4 against 0"),
    ],
)
def test_what_a_run_ran_on_must_be_alike_or_named(
    part: str, key: str, value: str, varies: str, why: str
) -> None:
    other = run(name="r2", **{**META, part: {**META[part], key: value}})
    with pytest.raises(BadInputError) as refused:
        compare_runs(run(**META), other)
    assert str(refused.value).endswith(why)
    wider = "guest" if part == "image" else "host"
    for word in (varies, wider):
        assert compare_runs(run(**META), other, varies=[word]).forced == ()
    with pytest.raises(BadInputError):
        compare_runs(run(**META), other, varies=[word for word in VARIES if word not in {varies, wider}])
    assert compare_runs(run(**META), other, force=True).forced == (why,)
    # What an older run does not say is no difference, and is noted.
    unsaid = run(name="r2", **{**META, part: {k: v for k, v in META[part].items() if k != key}})
    assert compare_runs(run(**META), unsaid).notes == (f"r2 does not say its {varies}: taken for the same",)


def test_a_host_whose_huge_pages_the_arms_set_is_alike_whatever_it_had() -> None:
    never: dict[str, Any]
    always: dict[str, Any]
    never, always = ({**META, "host": {**META["host"], "thp": word}} for word in ("never", "always"))
    with pytest.raises(BadInputError, match="host_thp"):
        compare_runs(run(**never), run(name="r2", **always))
    set_to: dict[str, Any] = {"host_setup": {"thp": "never"}}
    assert compare_runs(run(**never, **set_to), run(name="r2", **always, **set_to)).forced == ()
    with pytest.raises(BadInputError, match=r'host of a: setup\.thp "never" against "host"'):
        compare_runs(run(**never, **set_to), run(name="r2", **never))


def test_how_trials_start_must_be_alike() -> None:
    """A restore shifts some metrics: QEMU's page tables by 39 %."""
    cold = run(name="r2", **META, plan={"start": "cold"})
    with pytest.raises(BadInputError, match='start of a: "warm" against "cold"'):
        compare_runs(run(**META), cold)
    assert compare_runs(run(**META), cold, varies=["start"]).forced == ()


def test_of_many_differences_the_first_are_named() -> None:
    one, other = (
        run(name=name, **META, plan={"trials": [{"id": "a-01", "arm": "a", "steps": steps}]})
        for name, steps in (
            ("r1", [{"action": "wait", "params": {"time": seconds}} for seconds in range(1, 8)]),
            ("r2", [{"action": "wait", "params": {"time": seconds}} for seconds in range(2, 9)]),
        )
    )
    with pytest.raises(BadInputError) as refused:
        compare_runs(one, other)
    said = str(refused.value)
    assert "steps of a: step 1.wait.time 1.0 against 2.0, step 2.wait.time 2.0 against 3.0" in said
    assert said.endswith("and 3 more")


def test_steps_that_this_version_cannot_read_are_compared_as_they_stand() -> None:
    gone = [{"action": "gone", "params": {"x": 1}}]
    one, same, other = (
        run(name=name, **META, plan={"trials": [{"id": "a-01", "arm": "a", "steps": steps}]})
        for name, steps in (("r1", gone), ("r2", gone), ("r3", [{"action": "gone", "params": {"x": 2}}]))
    )
    assert compare_runs(one, same).forced == ()
    with pytest.raises(BadInputError, match=r"steps of a: step 1\.params\.x 1 against 2"):
        compare_runs(one, other)


def test_a_kernel_that_was_built_again_is_another() -> None:
    one, other = run(**META), run(name="r2", **META)
    built = [
        replace(figures, arms=(replace(figures.arms[0], kernel="7.1.0", build=build),))
        for figures, build in ((one, "#1 SMP"), (other, "#2 SMP"))
    ]
    with pytest.raises(BadInputError, match="kernel of a: #1 SMP against #2 SMP"):
        compare_runs(*built)
    assert compare_runs(*built, varies=["kernel"]).forced == ()
    unknown = replace(built[0], arms=(replace(built[0].arms[0], build=""),))
    assert compare_runs(unknown, built[1]).forced == ()
