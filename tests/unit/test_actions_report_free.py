"""Free page reporting measured from the host: pages of a faked QEMU that come and go by script."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count, repeat

import numpy as np
import pytest
from fakes import MACHINE, MIB, Clock, FakeDomain, FakeTrial

from orchestrator import deadline as deadline_module
from orchestrator.actions import ACTIONS
from orchestrator.errors import CommandError
from orchestrator.host import qemu_process
from orchestrator.host.machine import Machine
from orchestrator.host.qemu_process import PageState, Segment
from orchestrator.records.step import StepOutcome, StepResult

SECOND_NS = 10**9
PAGES_PER_MIB = 256


def reported(
    monkeypatch: pytest.MonkeyPatch,
    present: Iterator[int],
    free: object = 600,
    *,
    balloon: int = 1024,
    **params: object,
) -> tuple[StepResult, Clock]:
    """Run the step in a guest of 1 GiB with `present` MiB of it in QEMU, and `free` MiB free at first."""
    clock = Clock()
    clock.install(monkeypatch, deadline_module)

    def page_state(qemu: object, segment: Segment) -> PageState:
        # The one segment of the guest begins at 1 MiB.
        there = np.zeros(segment.size // 4096, dtype=bool)
        there[: next(present) * PAGES_PER_MIB] = True
        return PageState(there, ~there, np.zeros_like(there))

    monkeypatch.setattr(qemu_process, "page_state", page_state)
    text = f"MemTotal: 900000 kB\nMemFree:    {free * 1024 if isinstance(free, int) else free} kB\n"
    trial = FakeTrial(FakeDomain(clock, device=None, balloon=balloon * MIB), printed=text)
    ended = ACTIONS["report_free"].model_validate(params).run(trial)
    assert trial.calls == [("execute", ["cat", "/proc/meminfo"], 60)]
    return ended, clock


def test_all_that_is_free_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    # 424 MiB are used; the other 376 that are present could go.
    ended, clock = reported(monkeypatch, chain([800, 800, 600], repeat(424)))
    assert ended.outcome is StepOutcome.DONE
    assert ended.values == {
        "requested_bytes": 376 * MIB,
        "achieved_bytes": 376 * MIB,
        "shortfall_bytes": 0,
        "size_before_bytes": 800 * MIB,
        "size_after_bytes": 424 * MIB,
        "guest_free_bytes": 600 * MIB,
    }
    assert list(ended.curve) == [(0, 0), (0.25, 200 * MIB), (0.5, 376 * MIB)]
    assert (ended.acknowledged_ns, ended.settled_ns) == (SECOND_NS // 4, SECOND_NS // 2)
    assert clock.seconds == pytest.approx(1005.5), "the target is an estimate: more may come"


def test_more_may_come_than_was_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, _ = reported(monkeypatch, chain([800, 424], repeat(400)), watch="5s")
    assert (ended.outcome, ended.values["shortfall_bytes"]) == (StepOutcome.DONE, -24 * MIB)
    assert (ended.curve[-1][1], ended.values["later_bytes"]) == (400 * MIB, 0)


def test_what_lies_free_in_small_pieces_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, clock = reported(monkeypatch, chain([800], repeat(500)), settle="5s", watch="10s")
    assert ended.outcome is StepOutcome.PARTIAL
    assert ended.values["shortfall_bytes"] == 76 * MIB
    assert ended.values["later_bytes"] == 0
    assert clock.seconds == pytest.approx(1015, abs=0.3)


def test_what_was_reported_before_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, _ = reported(monkeypatch, repeat(424))
    assert (ended.outcome, ended.values["requested_bytes"]) == (StepOutcome.DONE, 0)
    fewer, _ = reported(monkeypatch, repeat(300))
    assert fewer.values["requested_bytes"] == 0, "used pages that were never touched: no less than nothing"


def test_no_more_can_go_than_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, _ = reported(monkeypatch, repeat(800), 10, balloon=200)
    assert (ended.outcome, ended.values["requested_bytes"]) == (StepOutcome.REFUSED, 10 * MIB)


def test_a_few_pages_that_come_and_go_are_no_movement(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, clock = reported(monkeypatch, chain([800], (799 + turn % 2 for turn in count())), settle="5s")
    assert (ended.outcome, ended.acknowledged_ns) == (StepOutcome.REFUSED, None)
    assert clock.seconds == pytest.approx(1005, abs=0.3)


def test_a_guest_that_takes_memory_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, _ = reported(monkeypatch, chain([800], repeat(900)))
    assert (ended.outcome, ended.values["achieved_bytes"]) == (StepOutcome.REFUSED, -100 * MIB)


def test_a_guest_that_frees_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = (900 - turn % 200 * 2 for turn in count())
    ended, _ = reported(monkeypatch, sizes, timeout="20s")
    assert (ended.outcome, ended.settled_ns) == (StepOutcome.TIMEOUT, None)


@pytest.mark.parametrize("free", ["many", "-1", "9" * 30])
def test_nonsense_of_a_guest_is_its_failure(monkeypatch: pytest.MonkeyPatch, free: str) -> None:
    with pytest.raises(CommandError, match="how much memory it has free"):
        reported(monkeypatch, repeat(800), free)


def test_a_guest_cannot_have_more_free_than_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, _ = reported(monkeypatch, chain([800], repeat(0)), 1 << 30)
    assert ended.values["guest_free_bytes"] == MACHINE.maximum_memory
    assert ended.values["requested_bytes"] == 800 * MIB


def test_the_balloon_must_be_told_to_report() -> None:
    step = ACTIONS["report_free"].model_validate({})
    assert list(step.problems(MACHINE)) == []
    silent = Machine.model_validate({"memory": "1GiB", "balloon": {"free_page_reporting": False}})
    (problem,) = step.problems(silent)
    assert "does not report" in problem.wrong
    assert "free_page_reporting` to true" in problem.right
    assert step.describe() == "let the guest report free pages"
