"""Waits end: at the first find, or at the deadline and not before the last look."""

from __future__ import annotations

import pytest
from fakes import Clock

from orchestrator import deadline as module
from orchestrator.deadline import Deadline, wait_for


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    clock.install(monkeypatch, module)
    return clock


def test_a_deadline_runs_out_and_stays_so(clock: Clock) -> None:
    deadline = Deadline(3)
    assert (deadline.remaining, deadline.expired) == (3, False)
    clock.sleep(2)
    assert deadline.remaining == 1
    clock.sleep(5)
    assert (deadline.remaining, deadline.expired) == (0, True)


def test_sooner_never_extends(clock: Clock) -> None:
    deadline = Deadline(3)
    assert deadline.sooner(1).remaining == 1
    assert deadline.sooner(10).remaining == 3
    clock.sleep(4)
    assert deadline.sooner(10).expired


def test_what_is_found_ends_the_wait(clock: Clock) -> None:
    found = iter([None, None, 0, 1])  # 0 is a find
    assert wait_for(lambda: next(found), Deadline(60), every=2, sleep=clock.sleep) == 0
    assert clock.seconds == 1004


def test_the_last_look_is_after_the_deadline(clock: Clock) -> None:
    looks: list[float] = []
    assert wait_for(lambda: looks.append(clock.seconds), Deadline(5), every=2, sleep=clock.sleep) is None
    assert looks == [1000, 1002, 1004, 1005]


def test_it_looks_once_even_when_there_is_no_time(clock: Clock) -> None:
    assert wait_for(lambda: "there", Deadline(0), every=2, sleep=clock.sleep) == "there"


def test_a_sleep_may_wake_early(clock: Clock) -> None:
    looks: list[float] = []
    wait_for(
        lambda: looks.append(clock.seconds), Deadline(1), every=1, sleep=lambda seconds: clock.sleep(0.25)
    )
    assert looks == [1000, 1000.25, 1000.5, 1000.75, 1001]
