"""The committed answers of the model are what the code says now."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import modelled
import pytest

from orchestrator.analysis.huge_supply import FREE_OR_MOVABLE
from orchestrator.model import overcommit
from orchestrator.model.cost import CostTable
from orchestrator.model.replay import EvictionAction
from orchestrator.model.tlb import ASSUMPTIONS
from orchestrator.model.tlb_access import ACCESSES
from orchestrator.model.tlb_cpu import CacheShape, Tlb, shipped_cpu
from orchestrator.retest import tlb

pytestmark = pytest.mark.slow

AGAIN = "python tests/unit/modelled.py"


def ends(answer: dict[str, Any], key: str) -> tuple[float, float]:
    value = answer["added"][key] if key in answer["added"] else answer[key]
    return value["low"], value["high"]


@pytest.fixture(params=modelled.FIRST_SEED)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_one_seed_gives_what_is_committed(name: str) -> None:
    """To the last digits but few; and within the range that all seeds have."""
    committed = modelled.committed(f"overcommit/{name}")
    found = modelled.first_seed(name)
    assert [flat(one) for one in found] == [pytest.approx(flat(one)) for one in committed["first_seed"]], (
        AGAIN
    )
    for one in found:
        (full,) = [
            answer
            for answer in committed["answers"]
            if (answer["policy"], answer["action"]) == (one["policy"], one["action"])
        ]
        for key in ("fit", "killed", "table_bytes_peak", "mean", "p99"):
            (low, high), (least, most) = ends(one, key), ends(full, key)
            assert least * (1 - 1e-9) <= low <= high <= most * (1 + 1e-9), key


def flat(answer: dict[str, Any]) -> dict[str, Any]:
    values = {
        **{key: answer[key] for key in answer if key not in ("policy", "action", "added")},
        **answer["added"],
    }
    return {f"{key} {end}": number for key, value in values.items() for end, number in value.items()}


def test_a_model_that_changes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A twentieth of the time is the worst: of a tenth, latency would be another."""
    monkeypatch.setattr(overcommit, "WORST_TICKS", 0.1)
    (made,) = [one for one in modelled.first_seed("sparse") if one["action"] == EvictionAction.COMPRESS]
    committed = modelled.committed("overcommit/sparse")["first_seed"]
    (before,) = [one for one in committed if one["action"] == EvictionAction.COMPRESS]
    assert flat(made) != pytest.approx(flat(before))


def test_the_question_and_the_costs_are_those_of_now(name: str) -> None:
    committed = modelled.committed(f"overcommit/{name}")
    assert committed["asked"] == modelled.scenario(name).model_dump(mode="json"), AGAIN
    costs = [asdict(cost) for cost in CostTable.shipped().costs.values()]
    assert committed["costs"] == json.loads(json.dumps(costs)), AGAIN
    choices = [(policy, str(action)) for policy, action in modelled.scenario(name).choices]
    assert [(one["policy"], one["action"]) for one in committed["answers"]] == choices


def test_guests_that_live_are_those_that_are_not_killed() -> None:
    one = modelled.played("idle", "none")
    killed, alive = one.killed, one.alive
    assert (alive.low + killed.high, alive.high + killed.low) == (one.came, one.came)
    assert modelled.span(
        [replace(alive, low=3, typical=3, high=4), replace(alive, low=5, typical=5, high=5)]
    ) == ("3 to 5")


@pytest.mark.parametrize("access", ACCESSES)
@pytest.mark.parametrize("cpu", tlb.CPUS)
def test_the_tlb_model_gives_what_is_committed(cpu: str, access: str) -> None:
    found = modelled.committed("tlb")["cpus"]
    assert json.loads(json.dumps(tlb.tlb_rows(cpu, access))) == found[cpu][access], AGAIN
    assert list(found) == list(tlb.CPUS), "the first is the one that is typical"


def test_the_tlb_model_gives_what_is_committed_of_each_boot() -> None:
    found = modelled.committed("tlb")
    for access, trials in found["run"]["trials"].items():
        assert list(trials) == tlb.tlb_trials(modelled.REFERENCE)
        for trial, committed in trials.items():
            rows = [FREE_OR_MOVABLE, *modelled.TLB_POLICIES]
            fresh = tlb.tlb_of_trial(modelled.REFERENCE, trial, access, rows)
            assert json.loads(json.dumps(fresh)) == committed, AGAIN
    assert found["assumptions"] == list(ASSUMPTIONS), AGAIN


def test_a_tlb_that_changes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"l2": Tlb(both_sizes=CacheShape(entries=768, ways=12))}
    monkeypatch.setattr(tlb, "shipped_cpu", lambda name: shipped_cpu(name).model_copy(update=small))  # type: ignore[union-attr]  # it is there
    cpu = tlb.CPUS[0]
    assert json.loads(json.dumps(tlb.tlb_rows(cpu, "hot"))) != modelled.committed("tlb")["cpus"][cpu]["hot"]
