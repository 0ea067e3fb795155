"""Runs the probes while a trial goes on: one thread for the guest's stream, one for the host's side."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from orchestrator.deadline import Deadline
from orchestrator.errors import GuestLostError, InfrastructureError, OrchestratorError, host_failure
from orchestrator.guest.causes import BOOT_ID, Seen
from orchestrator.guest.sampler import Tick, read_ticks, sampler_argv
from orchestrator.guest.shell import GuestShell, close
from orchestrator.guest.stream import StreamCutError, StreamError
from orchestrator.metric import is_time
from orchestrator.observation import Observation, Reading
from orchestrator.probes import PROBES, HostView, Probe
from orchestrator.records.accel import ICOUNT, NO_TIMES
from orchestrator.store import TrialWriter

# A guest that unplugs under software emulation may not answer for a while; this long is too long, beside the
# time that two readings are apart by themselves.
SILENCE_SECONDS = 90.0
# And where instructions are counted: what a busy guest does in a second of its clock takes it half a minute.
COUNTED_SILENCE_SECONDS = 600.0
_JOIN_SECONDS = 10.0
_LOST_SECONDS = 0.5
# A thread that sleeps for a second wakes so much later only where all of this program stood still.
_PULSE_SECONDS = 1.0
STANDSTILL_SECONDS = 10.0
_NO_ANSWER = "the guest stopped answering on ssh"
# Of a probe: beside what it raises on purpose, an answer of QEMU or the kernel in another shape.
_REFUSED = (OrchestratorError, OSError, ValueError, KeyError, TypeError)


class Sampling:
    """The running probes of one trial."""

    def __init__(
        self,
        writer: TrialWriter,
        now_ns: Callable[[], int],
        shell: GuestShell,
        host: HostView,
        every: float,
        *,
        seen: Seen | None = None,
    ) -> None:
        self._writer = writer
        self._now_ns = now_ns
        self._shell = shell
        self._host = host
        self._every = every
        self._probes: list[tuple[str, Probe]] = [(name, probe()) for name, probe in PROBES]
        self._seen = seen or Seen()
        self._stop = threading.Event()
        self._lost: tuple[str, str] | None = None  # in brief, and why
        self._broken = ""
        self._unwritten: OSError | None = None
        self._stood_still = 0.0  # seconds
        # `next_sample` is two intervals away.
        self._silence = 2 * every + (COUNTED_SILENCE_SECONDS if host.accel == ICOUNT else SILENCE_SECONDS)
        self._quiet = Deadline(self._silence)
        self._channel: Any = None  # paramiko.Channel
        self._rounds = [0, 0]  # samples of the guest, and of its host

    def check(self) -> None:
        """Raise GuestLostError when the guest's stream has ended or fallen silent.

        Raises InfrastructureError when the samples cannot be kept, or the host's not be read, and when this
        program stood still meanwhile: steps were not done when they were due.
        """
        if self._quiet.expired:
            time.sleep(2 * _PULSE_SECONDS)  # behind a standstill, samples are there that were not read yet
        if self._stood_still:
            raise InfrastructureError(
                f"the orchestrator stood still for {self._stood_still:.0f} s",
                details="a signal had stopped it (SIGSTOP), or the machine had slept",
                hint="orchestrator resume last",
            )
        if self._unwritten:
            raise host_failure(self._unwritten)
        if self._broken:
            raise InfrastructureError("the probes of the host failed", details=self._broken)
        if self._lost:
            brief, why = self._lost
            raise GuestLostError(brief, details=why)
        if self._quiet.expired:
            raise GuestLostError(f"the guest sent no sample for {self._silence:.0f} s")

    def wait_for_sample(self, check: Callable[[], None]) -> None:
        """Wait until every probe has read what is there now, of the guest and of its host."""
        self.wait_for(self.next_sample(), check)

    def next_sample(self) -> Sequence[int]:
        """Rounds of either side after which every probe has read what is there now.

        Two: the one that goes on had begun before.
        """
        return [count + 2 for count in self._rounds]

    def wait_for(self, wanted: Sequence[int], check: Callable[[], None]) -> None:
        """Wait for these rounds (`next_sample`), and `check` meanwhile."""
        deadline = Deadline(self._silence)
        while any(count < least for count, least in zip(self._rounds, wanted, strict=True)):
            check()
            if deadline.expired:
                time.sleep(2 * _PULSE_SECONDS)  # as in `check`
                check()
                raise GuestLostError(f"no sample came in {self._silence:.0f} s")
            time.sleep(min(0.1, self._every))

    @contextmanager
    def running(self, processes: list[str]) -> Iterator[None]:
        """Sample until the end of the block. `processes` are the names that are watched in the guest."""
        files = [BOOT_ID, *sorted({path for _, probe in self._probes for path in probe.guest_files})]
        self._channel = self._shell.stream(sampler_argv(self._every, files, processes))
        self._quiet = Deadline(self._silence)
        threads = [
            threading.Thread(target=self._guest_side, name="guest probes", daemon=True),
            threading.Thread(target=self._host_side, name="host probes", daemon=True),
            threading.Thread(target=self._feel_pulse, name="pulse of the probes", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            close(self._channel)
            for thread in threads:
                thread.join(_JOIN_SECONDS)

    def _feel_pulse(self) -> None:
        """Notice a standstill of this program. CLOCK_BOOTTIME goes on while a machine sleeps."""
        before = time.clock_gettime(time.CLOCK_BOOTTIME)
        while not self._stop.wait(_PULSE_SECONDS):
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            if now - before > _PULSE_SECONDS + STANDSTILL_SECONDS:
                self._stood_still += now - before
            before = now

    def _guest_side(self) -> None:
        brief, reason = _NO_ANSWER, "the stream ended"
        last_ns = -1
        try:
            for tick in read_ticks(self._channel.recv):
                self._quiet = Deadline(self._silence)
                last_ns = _later(tick, last_ns)
                self._seen.boot_id = self._seen.boot_id or (tick.files.get(BOOT_ID) or "").strip()[:64]
                for name, probe in self._probes:
                    self._keep(self._without_times(self._observed(name, probe, probe.from_guest(tick))))
                self._rounds[0] += 1
            brief = self._what_ended()
        except StreamCutError as error:
            brief, reason = self._what_ended(), str(error)
        except StreamError as error:
            brief, reason = "the sampler in the guest sent what is no sample", str(error)
        except (OrchestratorError, OSError, EOFError) as error:
            reason = str(error) or type(error).__name__
        except Exception as error:  # noqa: BLE001  # a fault of ours in a thread; `check` raises it
            reason = f"internal error: {error!r}"
        if not self._stop.is_set():
            self._lost = (brief, reason)
            self._keep(self._missing("sampler", "guest", reason))

    def _what_ended(self) -> str:
        """Of a stream that ended: the sampler itself, or its connection."""
        # paramiko ends the streams of a connection that is lost before it says that it is.
        if self._stop.wait(_LOST_SECONDS) or not self._shell.connected:
            return _NO_ANSWER
        self._seen.sampler_ended = True
        return "the sampler in the guest ended"

    def _host_side(self) -> None:
        try:
            self._read_host()
        except Exception as error:  # noqa: BLE001  # a fault of ours in a thread; `check` raises it
            if not self._stop.is_set():
                self._broken = f"{error!r}"

    def _read_host(self) -> None:
        next_at = time.monotonic()
        while not self._stop.is_set():
            self._seen.look(self._host.domain)
            for name, probe in self._probes:
                try:
                    self._ask(name, probe)
                except _REFUSED as error:
                    if self._stop.is_set():
                        break
                    self._keep(self._missing(name, "host", str(error) or type(error).__name__))
            self._rounds[1] += 1
            # What was missed is not made up for.
            next_at = max(next_at + self._every, time.monotonic())
            self._stop.wait(next_at - time.monotonic())
        # A guest that is lost may be one whose QEMU the host has killed: only these can say so.
        for name, probe in self._probes:
            if probe.outlives_guest:
                with suppress(*_REFUSED):
                    self._ask(name, probe)

    def _ask(self, name: str, probe: Probe) -> None:
        readings = list(probe.from_host(self._host))  # before any is kept: half a sample is none
        self._keep(self._observed(name, probe, readings))

    def _missing(self, source: str, name: str, reason: str) -> list[Observation]:
        """That a whole side or probe could not be read: it cannot say which readings it owed."""
        return [Observation(self._now_ns(), self._writer.trial_id, source, name, None, "", gap=reason)]

    def _without_times(self, rows: list[Observation]) -> list[Observation]:
        """What a guest says, without times where its clock tells none."""
        if self._host.accel != ICOUNT:
            return rows
        return [replace(row, value=None, gap=NO_TIMES) if is_time(row.unit) else row for row in rows]

    def _observed(self, source: str, probe: Probe, readings: Iterable[Reading]) -> list[Observation]:
        memory = self._host.machine.maximum_memory
        return probe.observe(source, self._now_ns(), self._writer.trial_id, readings, memory)

    def _keep(self, rows: list[Observation]) -> None:
        if not rows or self._unwritten:
            return
        try:
            self._writer.observe(rows)
        except OSError as error:  # no fault of the guest's, or of the probe's: `check` raises it
            self._unwritten = error


def _later(tick: Tick, last_ns: int) -> int:
    """The guest's uptime at a tick. Raises GuestLostError unless it is later than the one before.

    A guest that was restored badly may run on with a clock that does not.
    """
    if tick.uptime_ns <= last_ns:
        raise GuestLostError(f"the guest's time stands still at {tick.uptime_ns / 1e9:.3f} s")
    return tick.uptime_ns
