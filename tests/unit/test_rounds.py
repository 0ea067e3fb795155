"""A plan cut into rounds, which hosts do as a whole."""

from __future__ import annotations

from collections import Counter

import pytest
from test_execute import plan

from orchestrator.plan import Plan, shuffled
from orchestrator.run.rounds import rounds

STEPS = "  - wait: {time: 1s}\n"


@pytest.fixture
def planned() -> Plan:
    return plan(STEPS, "repeats: 6\nwarm_up: 1\n")


def test_a_round_is_one_trial_of_each_arm_in_the_order_of_the_seed(planned: Plan) -> None:
    found = rounds(planned)
    assert [one.repeat for one in found] == list(range(7))
    assert [one.warm_up for one in found] == [True, *[False] * 6]
    for one in found:
        assert {trial.repeat for trial in one.trials} == {one.repeat}
        assert [trial.arm for trial in one.trials] == shuffled(["a", "b"], planned.seed, one.repeat)
        assert one.host == ""
    assert [trial for one in found for trial in one.trials] == list(planned.trials), "each once"
    assert len({tuple(trial.arm for trial in one.trials) for one in found}) == 2, "not always the same first"


def test_any_share_of_the_rounds_is_balanced(planned: Plan) -> None:
    for first in range(2):
        arms = Counter(trial.arm for one in rounds(planned)[first::2] for trial in one.trials)
        assert arms["a"] == arms["b"]


def test_what_is_left_keeps_its_round_its_order_and_its_host(planned: Plan) -> None:
    whole = {one.repeat: one for one in rounds(planned)}
    done = {trial.id: f"node{one.repeat % 2}" for one in rounds(planned) for trial in one.trials[:1]}
    left = [trial.id for one in reversed(rounds(planned)) for trial in one.trials[1:]]
    left += [whole[3].trials[0].id]  # it was lost
    found = {one.repeat: one for one in rounds(planned, left, done)}
    assert {one.host for repeat, one in found.items() if repeat % 2 and repeat != 3} == {"node1"}
    assert {one.host for repeat, one in found.items() if not repeat % 2} == {"node0"}
    assert found[3] == whole[3], "all of it is left: any host will do"
    assert found[2].trials == whole[2].trials[1:]
    with pytest.raises(KeyError):
        rounds(planned, ["no such trial"])
    assert rounds(planned, []) == ()


def test_a_round_whose_trials_ran_on_two_hosts_is_at_home_on_neither() -> None:
    planned = plan(STEPS, "repeats: 2\n")
    first, second, *_ = rounds(planned)
    ids = [trial.id for one in (first, second) for trial in one.trials]
    (only,) = rounds(planned, ids[:1], dict(zip(ids[1:], "abb", strict=True)))
    assert (only.repeat, only.host) == (1, "a")
