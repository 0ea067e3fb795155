"""DIMMs that are plugged and ejected: what the guest answers decides, and the fakes answer for it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat

import pytest
from fakes import MIB, Clock, DimmTurn, FakeDomain, FakeTrial

from orchestrator import deadline as deadline_module
from orchestrator.actions import ACTIONS, Action
from orchestrator.errors import GuestError
from orchestrator.host.domain import Dimm, DimmAnswer
from orchestrator.host.machine import Machine
from orchestrator.host.ost import in_words, is_failure, is_pending
from orchestrator.records.events import DimmAnswered, of_kind
from orchestrator.records.step import StepOutcome, StepResult

SECOND_NS = 10**9
MACHINE = Machine.model_validate({"memory": "1GiB", "dimms": ["256MiB", "512MiB"]})
LOW, HIGH = Dimm("dimm0", 0, 4 << 30, 256 * MIB), Dimm("dimm1", 1, 5 << 30, 512 * MIB)
BUSY, PENDING = 0x82, 0x84
NOTHING: DimmTurn = ((), ())


def ost(slot: int, status: int, source: int = 3) -> DimmAnswer:
    return DimmAnswer(f"dimm{slot}", slot, source, status)


def action(name: str, **params: object) -> Action:
    return ACTIONS[name].model_validate(params)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    clock.install(monkeypatch, deadline_module)
    return clock


def unplugged(
    clock: Clock, turns: Iterator[DimmTurn], *, plugged: tuple[Dimm, ...] = (LOW, HIGH), **params: object
) -> tuple[StepResult, FakeTrial]:
    trial = FakeTrial(FakeDomain(clock, plugged=plugged, dimm_turns=turns), machine=MACHINE)
    return action("unplug_dimm", **params).run(trial), trial


def test_all_go_the_highest_first(clock: Clock) -> None:
    turns = iter(
        [
            NOTHING,
            ([ost(1, PENDING)], ()),
            ([DimmAnswer("", 1, 3, 0), ost(0, PENDING)], ["dimm1"]),
            ([DimmAnswer("", 0, 3, 0)], ["dimm0"]),
        ]
    )
    ended, trial = unplugged(clock, turns)
    assert trial.domain.calls == [("request_dimm_removal", "dimm1"), ("request_dimm_removal", "dimm0")]
    assert ended.outcome is StepOutcome.DONE
    assert ended.acknowledged_ns == SECOND_NS // 4, "the first answer, although nothing had moved"
    assert ended.settled_ns == 3 * SECOND_NS // 4
    assert list(ended.curve) == [(0, 0), (0.5, 512 * MIB), (0.75, 768 * MIB)]
    assert ended.message == "", "no reason is needed"
    assert ended.values == {
        "requested_bytes": 768 * MIB,
        "achieved_bytes": 768 * MIB,
        "shortfall_bytes": 0,
        "size_before_bytes": 768 * MIB,
        "size_after_bytes": 0,
        "dimms_requested": 2,
        "dimms_gone": 2,
        "ost_answers": 4,
        "ost_failures": 0,
    }
    assert [event.message for event in of_kind(trial.events, DimmAnswered)] == [
        "ejection is in progress (pending) (0x84)",
        "success (0x00)",
        "ejection is in progress (pending) (0x84)",
        "success (0x00)",
    ]
    assert trial.events[1].fields() == {
        "t_ns": SECOND_NS // 2,
        "event": "dimm.answer",
        "step": 1,
        "slot": 1,
        "source": 3,
        "status": 0,
        "message": "success (0x00)",
    }


def test_one_goes_and_one_is_busy(clock: Clock) -> None:
    turns = iter([([ost(1, PENDING), ost(1, BUSY)], ()), ([ost(0, PENDING), ost(0, 0)], ["dimm0"])])
    ended, _ = unplugged(clock, turns, timeout="60s")
    assert ended.outcome is StepOutcome.PARTIAL
    assert ended.values["achieved_bytes"] == 256 * MIB
    assert ended.values["shortfall_bytes"] == 512 * MIB
    assert ended.values["ost_failures"] == 1
    assert ended.message == "device busy (0x82)"
    assert ended.settled_ns == SECOND_NS // 4
    assert clock.seconds == 1000.25, "all have answered: there is nothing to wait for"


def test_a_refusal_is_an_end(clock: Clock) -> None:
    ended, _ = unplugged(clock, iter([([ost(1, BUSY)], ()), ([ost(0, 1)], ())]))
    assert ended.outcome is StepOutcome.REFUSED
    assert (ended.acknowledged_ns, ended.settled_ns) == (0, SECOND_NS // 4)
    assert list(ended.curve) == [(0, 0)]
    assert ended.message == "non-specific failure (0x01)"
    assert "later_bytes" not in ended.values


def test_what_qemu_itself_refuses(clock: Clock) -> None:
    error = DimmAnswer("dimm1", None, None, None, "a memory device is in use")
    ended, trial = unplugged(clock, iter([([error], ())]), count=1)
    assert (ended.outcome, ended.message) == (StepOutcome.REFUSED, "a memory device is in use")
    assert trial.events == [
        DimmAnswered(t_ns=0, step=1, slot=1, source=None, status=None, message="a memory device is in use")
    ]


def test_a_guest_that_never_comes_to_an_end(clock: Clock) -> None:
    ended, _ = unplugged(clock, chain([([ost(1, PENDING)], ())], repeat(NOTHING)), timeout="20s")
    assert ended.outcome is StepOutcome.TIMEOUT
    assert (ended.acknowledged_ns, ended.settled_ns) == (0, None)
    assert (ended.values["achieved_bytes"], ended.message) == (0, "")
    assert clock.seconds == pytest.approx(1020, abs=0.01)


def test_a_guest_without_acpi_says_nothing(clock: Clock) -> None:
    ended, _ = unplugged(clock, repeat(NOTHING), timeout="20s")
    assert (ended.outcome, ended.acknowledged_ns) == (StepOutcome.TIMEOUT, None)


def test_what_comes_after_the_time_is_over_is_watched_for(clock: Clock) -> None:
    turns = chain(
        [([ost(1, PENDING)], ())], repeat(NOTHING, 100), [([ost(1, 0)], ["dimm1"])], repeat(NOTHING)
    )
    ended, _ = unplugged(clock, turns, timeout="20s", watch="30s")
    assert (ended.outcome, ended.settled_ns) == (StepOutcome.TIMEOUT, None)
    assert ended.values["achieved_bytes"] == 0
    assert ended.values["later_bytes"] == 512 * MIB
    assert ended.curve[-1] == (25.25, 512 * MIB)


def test_only_so_many(clock: Clock) -> None:
    ended, trial = unplugged(clock, iter([([ost(1, 0)], ["dimm1"])]), count=1)
    assert trial.domain.calls == [("request_dimm_removal", "dimm1")]
    assert (ended.outcome, ended.values["requested_bytes"]) == (StepOutcome.DONE, 512 * MIB)
    none, _ = unplugged(clock, iter([]), plugged=())
    assert (none.outcome, none.values["requested_bytes"]) == (StepOutcome.DONE, 0)


def test_answers_that_are_about_something_else_do_not_count(clock: Clock) -> None:
    other = [ost(7, BUSY), ost(1, BUSY, source=0x200), ost(1, 0, source=1), DimmAnswer("x", None, None, None)]
    ended, trial = unplugged(clock, iter([(other, ())]), timeout="5s")
    assert (ended.outcome, ended.values["ost_answers"]) == (StepOutcome.TIMEOUT, 0)
    assert trial.events == []


def test_a_guest_that_answers_without_end_is_cut_short(clock: Clock) -> None:
    turns = repeat((([ost(1, PENDING)] * 1000), ()))
    ended, trial = unplugged(clock, turns, timeout="10s")
    assert ended.outcome is StepOutcome.TIMEOUT
    assert len(trial.events) == 20 * 256


def test_a_guest_that_dies_meanwhile_ends_the_step(clock: Clock) -> None:
    domain = FakeDomain(clock, plugged=(LOW,), dimm_turns=repeat(NOTHING))
    trial = FakeTrial(domain, machine=MACHINE, dies_at=1003)
    with pytest.raises(GuestError):
        action("unplug_dimm").run(trial)


def plugged(
    clock: Clock, turns: Iterator[DimmTurn], *there: Dimm, **params: object
) -> tuple[StepResult, FakeTrial]:
    trial = FakeTrial(FakeDomain(clock, plugged=there, dimm_turns=turns), machine=MACHINE)
    return action("plug_dimm", **params).run(trial), trial


def test_a_plug_is_done_when_the_guest_has_taken_each(clock: Clock) -> None:
    turns = iter([NOTHING, ([ost(0, 0, source=1)], ()), ([ost(1, 0, source=0x200)], ())])
    ended, trial = plugged(clock, turns)
    assert trial.domain.calls == [("attach_dimm", 256 * MIB), ("attach_dimm", 512 * MIB)]
    assert ended.outcome is StepOutcome.DONE
    assert (ended.acknowledged_ns, ended.settled_ns) == (SECOND_NS // 4, SECOND_NS // 2)
    assert list(ended.curve) == [(0, 0), (0.25, 256 * MIB), (0.5, 768 * MIB)]
    assert (ended.values["dimms_plugged"], ended.values["ost_failures"]) == (2, 0)


def test_a_plug_that_the_guest_refuses(clock: Clock) -> None:
    turns = iter([([ost(0, 0, source=1), ost(1, 0x81, source=0x200)], ())])
    ended, _ = plugged(clock, turns)
    assert (ended.outcome, ended.message) == (StepOutcome.PARTIAL, "device driver load failure (0x81)")
    assert ended.values["shortfall_bytes"] == 512 * MIB
    ended, _ = plugged(clock, repeat(NOTHING), timeout="9s")
    assert (ended.outcome, ended.values["achieved_bytes"]) == (StepOutcome.TIMEOUT, 0)


def test_only_what_is_missing_is_plugged(clock: Clock) -> None:
    ended, trial = plugged(clock, iter([([ost(1, 0, source=1)], ())]), Dimm("dimm0", 0, 4 << 30, 512 * MIB))
    assert trial.domain.calls == [("attach_dimm", 256 * MIB)]
    assert (ended.outcome, ended.values["size_after_bytes"]) == (StepOutcome.DONE, 768 * MIB)
    _, trial = plugged(clock, iter([([ost(0, 0, source=1)], ())]), count=1)
    assert trial.domain.calls == [("attach_dimm", 256 * MIB)], "in the order of the scenario"
    ended, trial = plugged(clock, iter([]), LOW, HIGH)
    assert (trial.domain.calls, ended.outcome) == ([], StepOutcome.DONE)


@pytest.mark.parametrize(
    ("source", "status", "words", "failure", "pending"),
    [
        (3, 0, "success (0x00)", False, False),
        (3, 1, "non-specific failure (0x01)", True, False),
        (0x103, 0x80, "device ejection not supported by OSPM (0x80)", True, False),
        (3, 0x84, "ejection is in progress (pending) (0x84)", False, True),
        (0x200, 0x80, "device insertion in progress (pending) (0x80)", False, True),
        (1, 0x84, "a status that ACPI does not name (0x84)", True, False),
        (3, 0xFFFFFFFF, "a status that ACPI does not name (0xffffffff)", True, False),
    ],
)
def test_a_status_in_the_words_of_acpi(
    source: int, status: int, words: str, failure: bool, pending: bool
) -> None:
    answer = DimmAnswer("dimm0", 0, source, status)
    assert (in_words(answer), is_failure(answer), is_pending(answer)) == (words, failure, pending)


@pytest.mark.parametrize("name", ["plug_dimm", "unplug_dimm"])
def test_what_can_be_told_beforehand(name: str) -> None:
    assert list(action(name).problems(MACHINE)) == []
    assert list(action(name, count=2).problems(MACHINE)) == []
    (problem,) = action(name, count=3).problems(MACHINE)
    assert (problem.field, problem.wrong) == ("count", "3 are more DIMMs than the machine has")
    (problem,) = action(name).problems(Machine.model_validate({"memory": "1GiB"}))
    assert "no DIMMs" in problem.wrong
    assert "dimms: [" in problem.right
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        action(name, count=0)


def test_how_a_step_is_shown() -> None:
    assert action("plug_dimm").describe() == "plug all DIMMs"
    assert action("unplug_dimm", count=1).describe() == "unplug 1 DIMM"
    assert action("unplug_dimm", count=2).describe() == "unplug 2 DIMMs"
