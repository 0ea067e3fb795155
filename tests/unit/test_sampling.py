"""Sampling: every tick becomes observations, a probe that fails becomes a gap, and silence is noticed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fakes import MACHINE, Clock, FakeChannel, FakeDomain, FakeShell

from orchestrator import deadline as deadline_module
from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import GuestLostError, InfrastructureError
from orchestrator.guest.causes import BOOT_ID, Seen
from orchestrator.observation import Reading
from orchestrator.probes import HostView, Probe
from orchestrator.run import sampling as module
from orchestrator.run.sampling import Sampling
from orchestrator.series import Series
from orchestrator.store import TrialWriter, read_observations

TICK = b"#tick 5000000000\n#file /proc/meminfo 21\nPageTables:    100 kB\n#end\n"
LATER = TICK.replace(b"5000000000", b"6000000000")


class Steady(Probe):
    """Says 1, and the guest's page tables."""

    guest_files = ("/proc/meminfo",)
    series = (Series("length", "count", "of the file"), Series("one", "count", "always 1"))

    def from_guest(self, tick: Any) -> Iterator[Reading]:
        yield Reading("length", len(tick.files["/proc/meminfo"] or ""), source="a/b")

    def from_host(self, host: HostView) -> Iterator[Reading]:
        yield Reading("one", 1)


class Failing(Probe):
    """What it reads is not there."""

    series = (Series("half", "count", "always 1"),)

    def from_host(self, host: HostView) -> Iterator[Reading]:
        yield Reading("half", 1)
        raise InfrastructureError("libvirt refused")


class Counter(Probe):
    """Counts how often it was asked."""

    outlives_guest = True
    series = (Series("asked", "count", "how often"),)

    def __init__(self) -> None:
        self.asked = 0

    def from_host(self, host: HostView) -> Iterator[Reading]:
        self.asked += 1
        yield Reading("asked", self.asked)


class Vanished(Probe):
    def from_host(self, host: HostView) -> Iterator[Reading]:
        raise ProcessLookupError
        yield


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[TrialWriter]:
    with TrialWriter(tmp_path / "t-01", "t-01") as writer:
        yield writer


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBES", [("steady", Steady), ("failing", Failing), ("vanished", Vanished)])
    monkeypatch.setattr(module, "_PULSE_SECONDS", 0.01)


def sampling(
    writer: TrialWriter,
    shell: FakeShell,
    every: float = 0.01,
    accel: str = "tcg",
    seen: Seen | None = None,
) -> Sampling:
    began = time.monotonic_ns()
    view = HostView(FakeDomain(pid=os.getpid()), MACHINE, accel)
    return Sampling(writer, lambda: time.monotonic_ns() - began, shell, view, every, seen=seen)


def rows(writer: TrialWriter) -> pd.DataFrame:
    writer.flush()
    return read_observations(writer.directory)


def count(writer: TrialWriter, **where: str) -> int:
    """Observations so far, with a column that says something."""
    table = rows(writer)
    for column, value in where.items():
        table = table.loc[table[column] == value]
    return len(table)


def until(look: Callable[[], int]) -> None:
    assert wait_for(lambda: look() or None, Deadline(5), every=0.01), "it did not happen in 5 s"


@pytest.mark.usefixtures("probes")
def test_every_tick_and_both_sides(writer: TrialWriter) -> None:
    shell = FakeShell(channel=FakeChannel([TICK, LATER[:30], LATER[30:]]))
    sampler = sampling(writer, shell)
    with sampler.running(["redis-server"]):
        assert shell.commands == [
            ["/usr/local/bin/guest-probe", "sample", "10", BOOT_ID, "/proc/meminfo", "--", "redis-server"]
        ]
        until(lambda: count(writer, source="steady/a/b") == 2)
        until(lambda: count(writer, name="one") >= 3)
        sampler.check()
    after = rows(writer)
    assert not (after["source"] == "sampler").any(), "an end that we caused is no gap"
    assert (after.loc[after["name"] == "length", "value"] == 21).all()
    assert (after["trial"] == "t-01").all()
    assert after["t_ns"].min() >= 0
    time.sleep(0.05)
    assert len(rows(writer)) == len(after), "nothing goes on behind it"


class Timed(Probe):
    """Says when it was, on both sides."""

    series = (Series("uptime", "seconds", "of either"), Series("one", "count", "always 1"))

    def from_guest(self, tick: Any) -> Iterator[Reading]:
        yield Reading("uptime", tick.uptime_ns / 1e9, source="guest")
        yield Reading("one", 1, source="guest")

    def from_host(self, host: HostView) -> Iterator[Reading]:
        yield Reading("uptime", 7, source="host")


@pytest.mark.parametrize("accel", ["tcg", "tcg-icount"])
def test_a_clock_that_counts_instructions_tells_no_seconds(
    writer: TrialWriter, monkeypatch: pytest.MonkeyPatch, accel: str
) -> None:
    monkeypatch.setattr(module, "PROBES", [("timed", Timed)])
    with sampling(writer, FakeShell(channel=FakeChannel([TICK])), accel=accel).running([]):
        until(lambda: count(writer, source="timed/guest") >= 2 and count(writer, source="timed/host") >= 1)
    table = rows(writer)
    said = table.loc[table["source"] == "timed/guest"].set_index("name")
    counted = accel == "tcg-icount"
    assert said["value"].isna().to_dict() == {"uptime": counted, "one": False}
    assert ("counts instructions" in str(said.loc["uptime", "gap"])) is counted
    assert set(table.loc[table["source"] == "timed/host", "value"]) == {7}, "the host's clock is one"


@pytest.mark.usefixtures("probes")
def test_a_probe_that_fails_is_a_gap_and_the_others_go_on(writer: TrialWriter) -> None:
    with sampling(writer, FakeShell()).running([]):
        until(lambda: count(writer, source="vanished") >= 2)
    table = rows(writer)
    gaps: dict[str, str] = dict(table.loc[table["value"].isna(), ["source", "gap"]].itertuples(index=False))
    assert gaps == {"failing": "libvirt refused", "vanished": "ProcessLookupError"}
    assert not (table["name"] == "half").any(), "half a sample would look like a whole one"
    assert (table["name"] == "one").sum() >= 2


def test_what_reads_the_host_alone_is_asked_once_more(
    writer: TrialWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROBES", [("counter", Counter), ("steady", Steady), ("vanished", Vanished)])
    sampler = sampling(writer, FakeShell(), every=60)
    with sampler.running([]):
        until(lambda: count(writer, source="vanished"))
        assert count(writer, name="asked") == 1
    table = rows(writer)
    assert table.loc[table["name"] == "asked", "value"].tolist() == [1, 2]
    assert (table["name"] == "one").sum() == 1, "the others may need a QEMU"


@pytest.mark.usefixtures("probes")
@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        ([TICK, None], "the stream ended"),
        ([TICK, TICK], "the guest's time stands still at 5.000 s"),
        ([TICK, LATER[:25], None], "the stream ended within a tick"),
    ],
)
def test_a_stream_that_ends_is_a_lost_guest_and_a_gap(
    writer: TrialWriter, stream: list[bytes | None], reason: str
) -> None:
    sampler = sampling(writer, FakeShell(channel=FakeChannel(stream)))
    with sampler.running([]):
        until(lambda: count(writer, source="sampler"))
        with pytest.raises(GuestLostError, match="stopped answering") as lost:
            sampler.check()
    assert lost.value.details == reason
    table = rows(writer)
    assert table.loc[table["source"] == "sampler", "gap"].tolist() == [reason]
    assert (table["name"] == "length").sum() == 1, "what came before is kept"


@pytest.mark.usefixtures("probes")
def test_what_is_seen_of_a_guest_while_it_runs(writer: TrialWriter) -> None:
    tick = b"#tick 5\n#file %s 5\n0f-1\n\n#file /proc/meminfo -1\n\n#end\n" % BOOT_ID.encode()
    seen = Seen()
    with sampling(writer, FakeShell(channel=FakeChannel([tick])), seen=seen).running([]):
        until(lambda: int(seen.boot_id == "0f-1" and seen.cgroup is not None))
    assert seen.qemu_stopped_seconds is None, "this process runs"


@pytest.mark.usefixtures("probes")
@pytest.mark.parametrize(
    ("stream", "brief", "ended"),
    [
        ([TICK, None], "the sampler in the guest ended", True),
        ([TICK, LATER[:25], None], "the sampler in the guest ended", True),
        ([TICK, b"sh: guest-probe: not found\n"], "the sampler in the guest sent what is no sample", False),
        ([b"#tick 1\n#file /a 9999999999\n"], "the sampler in the guest sent what is no sample", False),
    ],
)
def test_a_sampler_that_fails_though_the_connection_stands(
    writer: TrialWriter, stream: list[bytes | None], brief: str, ended: bool
) -> None:
    shell, seen = FakeShell(channel=FakeChannel(stream)), Seen()
    shell.stands = True
    sampler = sampling(writer, shell, seen=seen)
    with sampler.running([]):
        until(lambda: count(writer, source="sampler"))
        with pytest.raises(GuestLostError, match=brief):
            sampler.check()
    assert seen.sampler_ended is ended


@pytest.mark.usefixtures("probes")
def test_silence_is_a_lost_guest_and_a_tick_ends_it(
    writer: TrialWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    clock.install(monkeypatch, deadline_module)
    channel = FakeChannel()
    sampler = sampling(writer, FakeShell(channel=channel))
    with sampler.running([]):
        clock.sleep(module.SILENCE_SECONDS - 1)
        sampler.check()
        channel.put(TICK)
        until(lambda: count(writer, name="length"))
        clock.sleep(module.SILENCE_SECONDS - 1)
        sampler.check()
        clock.sleep(2)
        with pytest.raises(GuestLostError, match="no sample for 90 s"):
            sampler.check()


@pytest.mark.usefixtures("probes")
def test_readings_that_are_far_apart_are_no_silence(
    writer: TrialWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    clock.install(monkeypatch, deadline_module)
    channel = FakeChannel([TICK])
    sampler = sampling(writer, FakeShell(channel=channel), every=60)
    ticks = [LATER, LATER.replace(b"6000000000", b"7000000000")]

    def a_minute_later() -> None:
        clock.sleep(60)
        sampler.check()
        before, _ = sampler.next_sample()
        channel.put(ticks.pop(0))
        until(lambda: sampler.next_sample()[0] - before)

    with sampler.running([]):
        until(lambda: sampler.next_sample()[0] == 3)
        sampler.wait_for([sampler.next_sample()[0], 1], a_minute_later)
    assert ticks == []


def test_the_real_probes_run_and_ask_for_their_files(writer: TrialWriter) -> None:
    shell = FakeShell(channel=FakeChannel([TICK]))
    with sampling(writer, shell, every=0.05).running([]):
        until(lambda: count(writer, name="PageTables"))
        until(lambda: count(writer, name="second_level_needed_bytes"))
    assert {"/proc/meminfo", "/proc/vmstat"} <= set(shell.commands[0])
    table = rows(writer)
    tables = table.loc[(table["source"] == "guest_meminfo") & (table["name"] == "PageTables"), "value"]
    assert tables.tolist() == [102400]


@pytest.mark.usefixtures("probes")
def test_a_block_that_fails_ends_the_threads(writer: TrialWriter) -> None:
    @contextmanager
    def failing() -> Iterator[None]:
        with sampling(writer, FakeShell()).running([]):
            until(lambda: len(rows(writer)) > 0)
            yield

    block: AbstractContextManager[None] = failing()
    with pytest.raises(KeyError), block:
        raise KeyError
    before = len(rows(writer))
    time.sleep(0.05)
    assert len(rows(writer)) == before


def test_a_standstill_of_this_program_is_no_silence_of_the_guest(
    writer: TrialWriter, probes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As SIGSTOP makes it, or a machine that sleeps: what samples there are were not read, or come late."""
    jumps = iter([0.0, 0.01, 0.02])
    clock: dict[str, float] = {}

    def boottime(which: int) -> float:
        assert which == time.CLOCK_BOOTTIME
        clock["last"] = next(jumps, 120.0)
        return clock["last"]

    monkeypatch.setattr(time, "clock_gettime", boottime)
    running = sampling(writer, FakeShell(channel=FakeChannel([TICK])))
    running._silence = 0.0  # what it would be taken for
    with running.running([]):
        wait_for(lambda: True if running._stood_still else None, Deadline(5), every=0.01)
        with pytest.raises(InfrastructureError, match="the orchestrator stood still for 120 s") as caught:
            running.check()
    assert caught.value.hint
    assert not isinstance(caught.value, GuestLostError)
