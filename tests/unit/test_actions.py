"""Actions against a machine whose sizes follow a script, on a clock that only waiting moves."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count, pairwise, repeat

import pytest
from fakes import MACHINE, MIB, Clock, FakeDomain, FakeTrial

from orchestrator import deadline as deadline_module
from orchestrator.actions import ACTIONS, Action
from orchestrator.actions.curve import MOST_POINTS, Curve
from orchestrator.errors import GuestError, InfrastructureError
from orchestrator.host.domain import Dimm, VirtioMemState
from orchestrator.host.machine import Machine
from orchestrator.records.events import CommandOutput, of_kind
from orchestrator.records.step import StepOutcome, StepResult

SECOND_NS = 10**9


def action(name: str, **params: object) -> Action:
    return ACTIONS[name].model_validate(params)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    clock.install(monkeypatch, deadline_module)
    return clock


def resized(clock: Clock, name: str, begin: int, sizes: Iterator[int], **params: object) -> StepResult:
    """Run plug or unplug on a device that holds `begin` MiB and then says `sizes` MiB, a look apart."""
    device = VirtioMemState(4 << 30, begin * MIB, begin * MIB, 2048 * MIB, 2 * MIB)
    domain = FakeDomain(clock, sizes=(size * MIB for size in sizes), device=device)
    trial = FakeTrial(domain)
    step = action(name, **params)
    result = step.run(trial)
    assert domain.calls == [("request_virtio_mem", step.to)]  # type: ignore[attr-defined]  # plug and unplug have it
    return result


def test_a_plug_that_is_done_ends_at_once(clock: Clock) -> None:
    ended = resized(clock, "plug", 0, iter([0, 512, 1024, 1536]), to="1536MiB")
    assert ended.outcome is StepOutcome.DONE
    assert ended.values == {
        "requested_bytes": 1536 * MIB,
        "achieved_bytes": 1536 * MIB,
        "shortfall_bytes": 0,
        "size_before_bytes": 0,
        "size_after_bytes": 1536 * MIB,
    }
    assert list(ended.curve) == [(0, 0), (0.25, 512 * MIB), (0.5, 1024 * MIB), (0.75, 1536 * MIB)]
    assert ended.requested_ns == 0
    assert ended.acknowledged_ns == SECOND_NS // 4, "the first change, polled every quarter of a second"
    assert ended.settled_ns == 3 * SECOND_NS // 4
    assert clock.seconds == 1000.75


def test_no_event_is_needed(clock: Clock) -> None:
    """All of these run without a single event; with one for every change, polling finds the same."""
    device = VirtioMemState(4 << 30, 0, 0, 2048 * MIB, 2 * MIB)
    domain = FakeDomain(clock, sizes=iter([0, 64 * MIB]), device=device, events=True)
    trial = FakeTrial(domain)
    assert action("plug", to="64MiB").run(trial).outcome is StepOutcome.DONE


def test_an_unplug_that_stops_short(clock: Clock) -> None:
    ended = resized(clock, "unplug", 1536, iter([1536, 1000, 600, 426]), to="0B", settle="15s")
    assert ended.outcome is StepOutcome.PARTIAL
    assert ended.values["requested_bytes"] == 1536 * MIB
    assert ended.values["achieved_bytes"] == 1110 * MIB
    assert ended.values["shortfall_bytes"] == 426 * MIB
    assert ended.settled_ns == 3 * SECOND_NS // 4, "the last change, not the end of the wait"
    assert clock.seconds == pytest.approx(1015.75, abs=0.3)


def test_what_the_driver_gives_later_is_in_the_curve_and_apart(clock: Clock) -> None:
    # Short after 0.5 s; the retry after some 50 s brings more.
    sizes = chain([1536, 600, 426], repeat(426, 200), repeat(400))
    ended = resized(clock, "unplug", 1536, sizes, to="0B", settle="15s", watch="60s")
    assert ended.outcome is StepOutcome.PARTIAL
    assert ended.values["achieved_bytes"] == 1110 * MIB, "as without watching"
    assert ended.values["size_after_bytes"] == 426 * MIB
    assert ended.values["later_bytes"] == 26 * MIB
    assert ended.settled_ns == SECOND_NS // 2
    assert [moved for _, moved in ended.curve] == [0, 936 * MIB, 1110 * MIB, 1136 * MIB]
    assert ended.curve[-1][0] == pytest.approx(50.75)
    assert clock.seconds == pytest.approx(1000.5 + 15 + 60, abs=0.5)


def test_watching_a_refusal_and_watching_in_vain(clock: Clock) -> None:
    ended = resized(clock, "unplug", 1536, repeat(1536), to="0B", settle="15s", watch="30s")
    assert (ended.outcome, ended.values["later_bytes"]) == (StepOutcome.REFUSED, 0)
    assert list(ended.curve) == [(0, 0)]
    late = resized(clock, "unplug", 1536, chain(repeat(1536, 100), repeat(0)), to="0B", watch="1h")
    assert (late.outcome, late.values["later_bytes"]) == (StepOutcome.REFUSED, 1536 * MIB), (
        "settled is settled"
    )
    assert clock.seconds < 1100, "all is there: nothing to wait for"


def test_nothing_is_watched_for_what_is_done(clock: Clock) -> None:
    ended = resized(clock, "unplug", 1536, repeat(0), to="0B", watch="60s")
    assert ended.values["later_bytes"] == 0
    assert clock.seconds < 1001


def test_a_curve_is_bounded_and_keeps_its_ends() -> None:
    curve = Curve(5 * SECOND_NS)
    for second in range(1, 20_000):
        curve.add((5 + second) * SECOND_NS, second * MIB)
    points = curve.points
    assert len(points) == MOST_POINTS
    assert (points[0], points[1], points[-1]) == ((0, 0), (20, 20 * MIB), (19_999, 19_999 * MIB))
    gaps = {after[0] - before[0] for before, after in pairwise(points)}
    assert gaps == {20, 21}
    assert len(set(points)) == MOST_POINTS


def test_every_change_starts_the_quiet_anew(clock: Clock) -> None:
    # 10 s without a change, then one, then quiet for good.
    sizes = chain(repeat(1000, 40), repeat(900))
    ended = resized(clock, "unplug", 1000, sizes, to="0B", settle="12s")
    assert ended.outcome is StepOutcome.PARTIAL
    assert ended.settled_ns == 10 * SECOND_NS
    assert clock.seconds == pytest.approx(1022, abs=0.3)


def test_an_unplug_that_never_moves_is_refused(clock: Clock) -> None:
    ended = resized(clock, "unplug", 1536, repeat(1536), to="0B", settle="15s")
    assert ended.outcome is StepOutcome.REFUSED
    assert ended.acknowledged_ns is None
    assert ended.settled_ns is None, "what never moved has no time at which it settled"
    assert ended.values["achieved_bytes"] == 0


def test_an_unplug_that_still_moves_when_its_time_is_over(clock: Clock) -> None:
    ended = resized(clock, "unplug", 1536, (1536 - look * 2 for look in count()), to="0B", timeout="20s")
    assert ended.outcome is StepOutcome.TIMEOUT
    assert ended.settled_ns is None
    assert ended.acknowledged_ns == SECOND_NS // 4
    assert clock.seconds == pytest.approx(1020, abs=0.01)
    assert 0 < ended.values["achieved_bytes"] < 1536 * MIB


def test_a_move_that_is_over_before_the_first_look_is_seen(clock: Clock) -> None:
    done = resized(clock, "plug", 0, repeat(1536), to="1536MiB")
    assert (done.outcome, done.acknowledged_ns, done.settled_ns) == (StepOutcome.DONE, 0, 0)
    short = resized(clock, "unplug", 1536, repeat(426), to="0B")
    assert short.outcome is StepOutcome.PARTIAL
    assert short.acknowledged_ns is not None, "it moved"
    assert short.settled_ns == short.acknowledged_ns


def test_what_is_there_already_is_done(clock: Clock) -> None:
    ended = resized(clock, "plug", 512, repeat(512), to="512MiB")
    assert (ended.outcome, ended.acknowledged_ns, ended.settled_ns) == (StepOutcome.DONE, 0, 0)
    assert ended.values["requested_bytes"] == 0


def test_a_guest_that_dies_meanwhile_ends_the_step(clock: Clock) -> None:
    device = VirtioMemState(4 << 30, 1536 * MIB, 0, 2048 * MIB, 2 * MIB)
    trial = FakeTrial(FakeDomain(clock, device=device), dies_at=1003)
    with pytest.raises(GuestError):
        action("unplug", to="0B").run(trial)
    assert clock.seconds < 1004


def test_a_machine_without_the_device(clock: Clock) -> None:
    with pytest.raises(InfrastructureError, match="no virtio-mem"):
        action("plug", to="2MiB").run(FakeTrial(FakeDomain(clock, device=None)))


def test_the_balloon_takes_and_gives_back(clock: Clock) -> None:
    domain = FakeDomain(clock, balloon_sizes=(size * MIB for size in (1024, 900, 768)))
    trial = FakeTrial(domain)
    ended = action("inflate", by="256MiB").run(trial)
    assert domain.calls == [("request_balloon", 768 * MIB)]
    assert ended.outcome is StepOutcome.DONE
    assert ended.values == {
        "requested_bytes": 256 * MIB,
        "achieved_bytes": 256 * MIB,
        "shortfall_bytes": 0,
        "size_before_bytes": 1024 * MIB,
        "size_after_bytes": 768 * MIB,
    }
    domain.asked, domain.balloon_sizes = False, iter([768 * MIB, 1024 * MIB])
    back = action("deflate").run(FakeTrial(domain))
    assert domain.calls[-1] == ("request_balloon", 1024 * MIB)
    assert back.outcome is StepOutcome.DONE
    assert back.values["achieved_bytes"] == 256 * MIB


def test_a_balloon_that_stops_short(clock: Clock) -> None:
    domain = FakeDomain(clock, balloon_sizes=iter([900 * MIB]))
    trial = FakeTrial(domain)
    ended = action("inflate", by="256MiB", settle="5s").run(trial)
    assert ended.outcome is StepOutcome.PARTIAL
    assert ended.values["shortfall_bytes"] == 132 * MIB
    assert clock.seconds == pytest.approx(1005, abs=0.5)


def test_a_balloon_counts_plugged_dimms_in(clock: Clock) -> None:
    """QEMU takes what is asked for from boot memory and DIMMs together (get_current_ram_size())."""
    domain = FakeDomain(clock, balloon=1280 * MIB, balloon_sizes=iter([1024 * MIB]))
    domain.plugged = (Dimm("dimm0", 0, 4 << 30, 256 * MIB),)
    trial = FakeTrial(domain)
    ended = action("inflate", by="256MiB", watch="5s").run(trial)
    assert domain.calls == [("request_balloon", 1024 * MIB)]
    assert ended.values["later_bytes"] == 0
    assert list(ended.curve) == [(0, 0), (0, 256 * MIB)]


@pytest.mark.parametrize(
    ("step", "calls"),
    [
        (
            action("start", workload="redis", set={"keys": 5}, timeout="9s"),
            [("start", "redis", {"keys": 5}, 9)],
        ),
        (action("stop", workload="redis"), [("stop", "redis", 60)]),
        (action("exec", argv=["echo", "x y"], timeout="5s"), [("execute", ["echo", "x y"], 5)]),
        (action("snapshot", label="loaded"), [("snapshot", "loaded")]),
    ],
)
def test_what_a_trial_is_asked_for(clock: Clock, step: Action, calls: list[tuple[object, ...]]) -> None:
    trial = FakeTrial(FakeDomain(clock))
    ended = step.run(trial)
    assert trial.calls == calls
    assert ended.outcome is StepOutcome.DONE
    assert ended.requested_ns == 0
    assert ended.settled_ns == (2 * SECOND_NS if calls[0][0] == "start" else 0)
    values = {"start": {"ops_per_second": 5.0}, "stop": {"mismatches": 0.0}}
    assert ended.values == values.get(str(calls[0][0]), {})


def test_what_a_command_prints_is_kept_bounded_and_printable(clock: Clock) -> None:
    trial = FakeTrial(FakeDomain(clock))
    trial.printed = "\x1b[2Jhello\a\n"
    action("exec", argv=["echo"]).run(trial)
    (kept,) = of_kind(trial.events, CommandOutput)
    assert (kept.text, kept.left_out_characters) == ("hello\n", 0)
    trial = FakeTrial(FakeDomain(clock))
    trial.printed = "a" * 10 + "\u20ac" * (64 << 10)
    action("exec", argv=["echo"]).run(trial)
    (kept,) = of_kind(trial.events, CommandOutput)
    text = kept.text
    assert (64 << 10) - 3 < len(text.encode()) <= 64 << 10
    assert set(text) == {"\u20ac"}, "the end, in whole characters"
    assert kept.left_out_characters == 10 + (64 << 10) - len(text)


def test_waiting_takes_its_time(clock: Clock) -> None:
    trial = FakeTrial(FakeDomain(clock))
    assert action("wait", time="90s").run(trial).outcome is StepOutcome.DONE
    assert clock.seconds == 1090


NO_DEVICE = Machine.model_validate({"memory": "1GiB"})


@pytest.mark.parametrize(
    ("step", "machine", "wrong", "right"),
    [
        (action("plug", to="1536MiB"), MACHINE, None, None),
        (action("unplug", to="0B"), MACHINE, None, None),
        (action("plug", to="2GiB"), NO_DEVICE, "has no virtio-mem device", "virtio_mem: {size"),
        (action("plug", to="4GiB"), MACHINE, "4GiB is more than", "ask for at most 2GiB"),
        (action("unplug", to="5MiB"), MACHINE, "5MiB is not a multiple", "next one below is 4MiB"),
        (action("inflate", by="256MiB"), NO_DEVICE, None, None),
        (action("inflate", by="1GiB"), MACHINE, "cannot take 1GiB", "less than 1GiB"),
        (action("inflate", by="0B"), MACHINE, "cannot take 0B", "less than 1GiB"),
        (action("inflate", by="4097B"), MACHINE, "no whole number of pages", "multiple of 4KiB"),
    ],
)
def test_what_can_be_told_beforehand(
    step: Action, machine: Machine, wrong: str | None, right: str | None
) -> None:
    problems = list(step.problems(machine))
    if wrong is None or right is None:
        assert problems == []
        return
    (problem,) = problems
    assert wrong in problem.wrong
    assert right in problem.right
    assert problem.field in type(step).model_fields


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (action("plug", to="1536MiB"), "plug to 1.5 GiB"),
        (action("unplug", to="0B"), "unplug to 0 B"),
        (action("inflate", by="256MiB"), "inflate the balloon by 256 MiB"),
        (action("wait", time="90s"), "wait 1 min 30 s"),
        (action("start", workload="redis"), "start redis"),
        (
            action("start", workload="churn", set={"amount": "1GiB", "options": {"rounds": 1}}),
            "start churn (amount=1GiB, options.rounds=1)",
        ),
        (action("exec", argv=["x" * 100, "y"]), "exec " + "x" * 100 + " y"),
    ],
)
def test_how_a_step_is_shown(step: Action, text: str) -> None:
    assert step.describe() == text
