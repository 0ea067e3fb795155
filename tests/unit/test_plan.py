"""Plans: read back exactly, decided by the seed alone, and fair to every arm."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.actions.base import Action
from orchestrator.errors import BadInputError
from orchestrator.plan import Plan, TrialSpec, make_plan
from orchestrator.registry import Registry
from orchestrator.scenario import Scenario, load_scenario
from orchestrator.units import Duration, Size, write_size

ACTIONS: Registry[type[Action]] = Registry("action", "tests.no_package")
ACTIONS._loaded = True


@ACTIONS.register("grow")
class Grow(Action):
    """Plug to a size."""

    to: Size
    timeout: Duration = 60.0

    def describe(self) -> str:
        return f"grow to {self.to}"

    def run(self, trial: object) -> NoReturn:
        raise NotImplementedError


def scenario(
    arms: dict[str, object], *, extra: str = "", grow_to: int = 1 << 30, more_steps: str = ""
) -> Scenario:
    text = f"""\
version: 1
name: quick
guest: debian-13
machine: {{memory: 1GiB, virtio_mem: {{size: 2GiB}}}}
{extra}
arms: {json.dumps(arms)}
steps:
  - grow: {{to: {write_size(grow_to)}}}
  - grow: {{to: 0B, timeout: 250ms}}
{more_steps}"""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.yaml"
        path.write_text(text)
        return load_scenario(path, kernels_of=lambda _: ["6.12", "7.x"], actions=ACTIONS)


def test_a_clock_that_counts_instructions_leaves_no_times_and_reaches_every_trial() -> None:
    extra = "accel: tcg\nclock: instructions"
    plan = make_plan(scenario({"a": {"machine": {"vcpus": 1}}}, extra=extra))
    assert (plan.accel, plan.clock, plan.times, plan.acceleration) == (
        "tcg",
        "instructions",
        "ignored",
        "tcg-icount",
    )
    assert Plan.from_json(plan.to_json()) == plan
    # As a process for one trial has it, once the run has found out what executes it.
    found = plan.model_copy(update={"accel": "tcg-icount"})
    assert found.acceleration == "tcg-icount"
    for trial in (plan.trial("a-01"), found.trial("a-01")):
        assert trial.accel == "tcg-icount"
        assert TrialSpec.from_json(trial.to_json()) == trial
    timed = make_plan(scenario({"a": {}}, extra="accel: tcg"))
    assert (timed.clock, timed.times, timed.acceleration) == ("time", "measured", "tcg")


names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,12}", fullmatch=True)
arms_of = st.dictionaries(
    names,
    st.fixed_dictionaries(
        {},
        optional={
            "kernel": st.sampled_from(["6.12", "7.x"]),
            "kernel_args": st.sampled_from(["quiet", "page_owner=on quiet", ""]),
            "setup": st.fixed_dictionaries(
                {"thp": st.sampled_from(["always", "never"])},
                optional={
                    "online_policy": st.sampled_from(["online", "auto-movable"]),
                    "sysctl": st.just({"vm.max_map_count": 70000, "kernel.core_pattern": "x y"}),
                },
            ),
            "machine": st.fixed_dictionaries({"vcpus": st.integers(1, 8)}),
        },
    ),
    min_size=1,
    max_size=5,
)
seeds = st.integers(0, 2**63 - 1)


@given(arms_of, seeds, st.integers(1, 4), st.integers(0, 1 << 50))
def test_a_plan_and_its_trials_are_read_back_exactly(
    arms: dict[str, object], seed: int, repeats: int, grow_to: int
) -> None:
    plan = make_plan(scenario(arms, grow_to=grow_to), seed=seed, repeats=repeats)
    text = plan.to_json()
    assert Plan.from_json(text) == plan
    assert Plan.from_json(text).to_json() == text
    for planned in plan.trials:
        trial = plan.trial(planned.id)
        assert TrialSpec.from_json(trial.to_json()) == trial
        first, second = (step.load(ACTIONS) for step in trial.steps)
        assert isinstance(first, Grow)
        assert isinstance(second, Grow)
        assert (first.to, first.timeout) == (grow_to, 60.0)
        assert (second.to, second.timeout) == (0, 0.25)


@given(arms_of, seeds, st.integers(1, 5))
def test_each_block_has_each_arm_once_and_the_seed_decides_the_order(
    arms: dict[str, object], seed: int, repeats: int
) -> None:
    made = scenario(arms)
    plan = make_plan(made, seed=seed, repeats=repeats)
    assert make_plan(made, seed=seed, repeats=repeats) == plan
    assert [trial.order for trial in plan.trials] == list(range(1, len(arms) * repeats + 1))
    for repeat in range(repeats):
        block = plan.trials[repeat * len(arms) : (repeat + 1) * len(arms)]
        assert {trial.repeat for trial in block} == {repeat + 1}
        assert sorted(trial.arm for trial in block) == sorted(arms)
        assert len({trial.seed for trial in block}) == 1
    assert len({trial.id for trial in plan.trials}) == len(plan.trials)


def test_different_seeds_give_every_order_about_equally_often() -> None:
    made = scenario({"a": {}, "b": {}, "c": {}})
    counts: dict[tuple[str, ...], int] = {}
    for seed in range(600):
        order = tuple(trial.arm for trial in make_plan(made, seed=seed).trials)
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert min(counts.values()) > 60  # 100 expected, standard deviation 9


def test_the_order_of_a_seed_never_changes() -> None:
    """A published seed must mean the same order in every version."""
    plan = make_plan(scenario({"a": {}, "b": {}, "c": {}}), seed=7, repeats=2)
    assert [trial.id for trial in plan.trials] == ["c-01", "b-01", "a-01", "a-02", "b-02", "c-02"]
    assert [trial.seed for trial in plan.trials[::3]] == [0x8EA0625E, 0xBF9BF6B7]


def boots(plan: Plan, arm: str) -> list[int]:
    return [trial.boot for trial in plan.trials if trial.arm == arm]


def test_each_repeat_starts_from_a_boot_of_its_own_and_arms_share_it() -> None:
    made = scenario({"a": {}, "b": {"setup": {"thp": "never"}}})
    plan = make_plan(made, repeats=6)
    assert plan.boots == 6
    assert boots(plan, "a") == boots(plan, "b") == [1, 2, 3, 4, 5, 6]
    assert plan.trial("b-04").boot == 4


def test_many_repeats_go_through_a_few_boots_in_turn() -> None:
    made = scenario({"a": {}})
    assert boots(make_plan(made, repeats=20), "a") == [*range(1, 9), *range(1, 9), 1, 2, 3, 4]
    assert boots(make_plan(made, repeats=5, boots=2), "a") == [1, 2, 1, 2, 1]
    assert make_plan(made, repeats=3, boots=7).boots == 3
    assert boots(make_plan(scenario({"a": {}}, extra="boots: 2"), repeats=4), "a") == [1, 2, 1, 2]


def test_arms_that_are_the_same_thing_start_from_different_boots() -> None:
    """Else their difference would be that of restores, and pass for the noise of guests."""
    plan = make_plan(scenario({"a": {}, "b": {}, "c": {"kernel": "7.x"}, "d": {}}), repeats=3)
    assert [boots(plan, arm) for arm in "abcd"] == [[1, 2, 3], [4, 5, 6], [1, 2, 3], [7, 8, 9]]


def test_an_arm_may_start_cold_beside_others(tmp_path: Path) -> None:
    made = scenario({"warm": {}, "cold": {"start": "cold"}})
    plan = make_plan(made)
    assert (plan.trial("warm-01").start, plan.trial("cold-01").start) == ("warm", "cold")
    assert make_plan(made, start="cold").trial("warm-01").start == "cold"


def test_a_plan_of_an_older_version_has_one_boot(tmp_path: Path) -> None:
    plan = make_plan(scenario({"a": {}}), repeats=2, start="cold")
    old = json.loads(plan.to_json())
    del old["boots"]
    for part in (*old["trials"], *old["arms"]):
        part.pop("boot", None)
        part.pop("start", None)
    read = Plan.from_json(json.dumps(old))
    assert (read.boots, boots(read, "a"), read.trial("a-01").start) == (1, [1, 1], "cold")


def test_repeats_have_different_seeds() -> None:
    plan = make_plan(scenario({"a": {}}), repeats=20)
    assert len({trial.seed for trial in plan.trials}) == 20
    assert all(0 <= trial.seed < 2**32 for trial in plan.trials)


def test_columns_are_the_kernel_and_what_is_not_the_same_in_all_arms() -> None:
    plan = make_plan(
        scenario(
            {
                "a": {"setup": {"thp": "never", "redis_config": {"maxmemory": 5}}},
                "b": {"kernel": "7.x", "machine": {"virtio_mem": None}},
                "c": {"machine": {"balloon": {"free_page_reporting": False}}},
            }
        )
    )
    assert [arm.differs for arm in plan.arms] == [
        {
            "kernel": kernel,
            "thp": thp,
            "redis_config.maxmemory": maxmemory,
            "virtio_mem.size": size,
            "virtio_mem.block": block,
            "virtio_mem.plugged": "0" if block else "",
            "virtio_mem.dynamic_memslots": "false" if block else "",
            "balloon.free_page_reporting": reporting,
        }
        for kernel, thp, maxmemory, size, block, reporting in [
            ("6.12", "never", "5", "2147483648", "2097152", "true"),
            ("7.x", "image", "", "", "", "true"),
            ("6.12", "image", "", "2147483648", "2097152", "false"),
        ]
    ]


def test_kernel_args_and_policies_are_columns_where_arms_differ_and_reach_the_trial() -> None:
    plan = make_plan(
        scenario(
            {
                "a": {"kernel_args": "page_owner=on", "setup": {"online_policy": "auto-movable"}},
                "b": {"setup": {"sysctl": {"vm.swappiness": 1}}},
            },
            extra="kernel_args: quiet",
        )
    )
    assert [arm.differs for arm in plan.arms] == [
        {
            "kernel": "6.12",
            "kernel_args": "page_owner=on",
            "online_policy": "auto-movable",
            "auto_movable_ratio": "301",
            "sysctl.vm.swappiness": "",
        },
        {
            "kernel": "6.12",
            "kernel_args": "quiet",
            "online_policy": "online",
            "auto_movable_ratio": "",
            "sysctl.vm.swappiness": "1",
        },
    ]
    assert [plan.trial(f"{arm}-01").kernel_args for arm in "ab"] == ["page_owner=on", "quiet"]


def test_a_trial_has_the_steps_of_its_arm_only() -> None:
    steps = "  - grow: {to: 1MiB}\n    in: [b]\n  - grow: {to: 2MiB}\n    in: [c, b]\n"
    plan = make_plan(scenario({"a": {}, "b": {}, "c": {}}, more_steps=steps), repeats=2)
    sizes = {trial.id: [step.params["to"] for step in trial.steps[2:]] for trial in plan.trials}
    assert sizes == {
        f"{arm}-0{repeat}": grown
        for repeat in (1, 2)
        for arm, grown in {"a": [], "b": [1 << 20, 2 << 20], "c": [2 << 20]}.items()
    }
    assert plan.trial("c-02").steps == plan.trial("c-01").steps


def test_a_plan_from_before_these_keys_is_still_read() -> None:
    plan = make_plan(scenario({"a": {}}))
    old = json.loads(plan.to_json())
    (arm,) = old["arms"]
    del arm["kernel_args"], arm["setup"]["auto_movable_ratio"], arm["setup"]["sysctl"]
    assert Plan.from_json(json.dumps(old)) == plan


def test_arms_that_are_alike_are_still_told_apart_by_a_column() -> None:
    assert [arm.differs for arm in make_plan(scenario({"a": {}})).arms] == [{"kernel": "6.12"}]


def test_a_plan_has_numbers_in_bytes_and_seconds_and_knows_its_source() -> None:
    made = scenario({"a": {}}, extra="sample_every: 250ms\ndeadline: 2min\ndescription: Why not?")
    plan = json.loads(make_plan(made).to_json())
    assert (plan["sample_every_seconds"], plan["deadline_seconds"]) == (0.25, 120.0)
    assert plan["arms"][0]["machine"]["virtio_mem"] == {
        "size": 2 << 30,
        "block": 2 << 20,
        "plugged": 0,
        "dynamic_memslots": False,
    }
    assert plan["trials"][0]["steps"][0] == {"action": "grow", "params": {"to": 1 << 30, "timeout": 60.0}}
    assert plan["description"] == "Why not?"
    assert len(plan["scenario_sha256"]) == 64
    assert make_plan(scenario({"a": {}})).scenario_sha256 != plan["scenario_sha256"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 2}', "\x00"])
def test_what_is_no_plan_is_bad_input(text: str) -> None:
    with pytest.raises(BadInputError):
        Plan.from_json(text)
    with pytest.raises(BadInputError):
        TrialSpec.from_json(text)


def test_a_trial_or_an_action_that_is_not_there_is_bad_input() -> None:
    plan = make_plan(scenario({"a": {}}))
    with pytest.raises(BadInputError, match="no trial is called 'a-02'"):
        plan.trial("a-02")
    other: Registry[type[Action]] = Registry("action", "tests.no_package")
    other._loaded = True
    with pytest.raises(BadInputError, match="no action is called 'grow'"):
        plan.trials[0].steps[0].load(other)


def test_warm_ups_come_first_and_do_not_move_the_trials_that_count() -> None:
    arms: dict[str, object] = {"a": {}, "b": {}}
    plain = make_plan(scenario(arms), repeats=2)
    warmed = make_plan(scenario(arms, extra="warm_up: 2"), repeats=2)
    assert [trial.warm_up for trial in warmed.trials] == [True] * 4 + [False] * 4
    assert sorted(trial.id for trial in warmed.trials[:4]) == [
        *("a-warm-up-01", "a-warm-up-02", "b-warm-up-01", "b-warm-up-02")
    ]
    assert [(trial.id, trial.seed) for trial in warmed.trials[4:]] == [
        (trial.id, trial.seed) for trial in plain.trials
    ]


def test_a_start_is_the_scenarios_unless_another_is_asked_for() -> None:
    arms: dict[str, object] = {"a": {}}
    assert make_plan(scenario(arms)).start == "warm"
    cold = make_plan(scenario(arms), start="cold")
    assert (cold.start, cold.trial("a-01").start) == ("cold", "cold")
    assert make_plan(scenario(arms, extra="start: cold")).start == "cold"
