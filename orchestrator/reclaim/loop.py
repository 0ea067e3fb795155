"""A lever that is used by a policy: VMs of a host are looked at, and what is due is done or only reported.

Each look has a connection of its own, so there is nothing to mend when one breaks: the next look says whether
the host is there again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from orchestrator.errors import InfrastructureError, OrchestratorError
from orchestrator.host.libvirt_domain import LibvirtDomain
from orchestrator.host.remote import HostLostError
from orchestrator.host.shell import HostShell
from orchestrator.interrupts import deferred, interrupted
from orchestrator.levers import Lever, Scope
from orchestrator.procfs import MEMORY_PRESSURE, NO_PRESSURE, stalled_percent
from orchestrator.reclaim.document import moment, predicted
from orchestrator.reclaim.journal import Journal, Line
from orchestrator.reclaim.policy import ReclaimPolicy
from orchestrator.reclaim.vm import LiveVm, Pull
from orchestrator.records.step import StepOutcome
from orchestrator.units import format_size

_HOST = ""  # among names of VMs, of which none is empty: all of them
_NO_PSI = f"the host's {NO_PRESSURE}"


class VmHost(Protocol):
    """What is asked of a host; `LibvirtHost` is one."""

    shell: HostShell

    def running_names(self) -> list[str]:
        """Names of its VMs."""

    def running_domain(self, name: str) -> AbstractContextManager[LibvirtDomain]:
        """One of them."""


class Clock:
    """The clocks of a loop, and how it waits."""

    def monotonic(self) -> float:
        """Seconds."""
        return time.monotonic()

    def now(self) -> datetime:
        """The time of day."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class PolicyLoop:
    """A policy on a host. `connect` opens it, `name` is how lines name it, `tell` takes what is journaled.

    Without `act` nothing is changed. `runtime` is the folder in which what `clean` has to put right is noted.
    """

    def __init__(
        self,
        policy: ReclaimPolicy,
        lever: Lever,
        connect: Callable[[], AbstractContextManager[VmHost]],
        journal: Journal,
        *,
        name: str,
        runtime: Path,
        act: bool,
        tell: Callable[[Line], None],
        clock: Clock | None = None,
    ) -> None:
        self._policy, self._lever, self._connect, self._journal = policy, lever, connect, journal
        self._name, self._runtime, self._act, self._tell = name, runtime, act, tell
        self._clock = clock or Clock()
        self._ended: dict[str, float] = {}
        self._notices: dict[str, str] = {}

    def remember(self) -> None:
        """Keep the pause after attempts that the journal has: they were made before this process began.

        A dry run's hold up no other than a dry run. Raises OSError.
        """
        now, today = self._clock.monotonic(), self._clock.now()
        for line in self._journal.attempts():
            if line.host != self._name or (self._act and line.event == "dry-run"):
                continue
            try:
                ago = (today - datetime.fromisoformat(line.time)).total_seconds()
            except (ValueError, TypeError):  # another's line; a time without a zone
                continue
            # A clock that was set back since: as if it were this moment.
            self._end_attempt(line.vm, line.scope, now - max(0.0, ago))

    def look(self) -> bool:
        """Look at the host once, and do what is due; False where the host could not be looked at.

        What fails is reported once, until it fails in another way or no more; the next look tries again.
        """
        if self._pauses(_HOST):
            return True
        why = ""
        try:
            with self._connect() as host:
                self._look(host)
        except (InfrastructureError, OSError) as error:
            _end_if_asked(error)
            why = f"the host cannot be looked at: {_words(error)}"
        self._note("host", why)
        return not why

    def _look(self, host: VmHost) -> None:
        running = host.running_names()
        for pattern in self._policy.domains:
            missing = not any(fnmatchcase(name, pattern) for name in running)
            self._note(f"domains {pattern}", f"no VM that runs is called {pattern}" if missing else "")
        for about in [one for one in self._notices if one.startswith("vm ")]:
            if about.removeprefix("vm ") not in running:
                del self._notices[about]
        stalled = self._stalled(host.shell)
        # Whose last attempt is longest ago comes first, so that each has its turn.
        for name in sorted(running, key=lambda one: (self._ended.get(one, -math.inf), one)):
            if not self._policy.covers(name) or self._pauses(name) or self._pauses(_HOST):
                continue
            try:
                with host.running_domain(name) as domain:
                    why = self._judge(LiveVm.find(domain, host.shell, self._runtime), stalled)
            except HostLostError:
                raise
            except (InfrastructureError, OSError) as error:
                _end_if_asked(error)
                why = _words(error)
            self._note(f"vm {name}", why, vm=name)

    def _judge(self, vm: LiveVm, stalled: float | None) -> str:
        """Use the lever on a VM, if it is due; why that cannot be decided, empty if it can."""
        before = vm.measure()
        foreseen = vm.predict(self._lever, before)
        reclaimable = self._lever.reclaimable(before.own.value, foreseen)
        unknown = "" if reclaimable is not None else f"what is reclaimable is not known: {before.own.reason}"
        because = self._because(reclaimable, stalled)
        if not because:
            return unknown
        line = Line(
            version=1,
            time=self._time(),
            event="attempt" if self._act else "dry-run",
            host=self._name,
            vm=vm.name,
            lever=self._policy.lever,
            scope=self._lever.scope,
            because=because,
            reason=self._lever.refusal(vm.target),
            psi_some_avg10=stalled,
            predicted={**predicted(foreseen), "reclaimable_bytes": reclaimable},
            measured={"before": moment(before)},
        )
        if line.reason:
            self._end(line.model_copy(update={"outcome": StepOutcome.REFUSED}))
        elif self._act:
            self._attempt(vm, line)
        else:
            self._end(line)
        return unknown

    def _because(self, reclaimable: int | None, stalled: float | None) -> str:
        """Which threshold is passed; empty for none, and where nothing is to be gained."""
        least, most = self._policy.reclaimable_at_least, self._policy.psi_some_avg10_at_least
        passed = []
        if least is not None and reclaimable is not None and reclaimable >= least:
            passed.append(f"{format_size(reclaimable)} reclaimable (from {format_size(least)} on)")
        if most is not None and stalled is not None and stalled >= most and reclaimable != 0:
            passed.append(f"memory PSI some avg10 {stalled:g} % (from {most:g} % on)")
        return "; ".join(passed)

    def _stalled(self, shell: HostShell) -> float | None:
        percent = stalled_percent(shell.texts(MEMORY_PRESSURE).get(MEMORY_PRESSURE, ""))
        asked = self._policy.psi_some_avg10_at_least is not None
        self._note("psi", _NO_PSI if asked and percent is None else "")
        return percent

    def _attempt(self, vm: LiveVm, line: Line) -> None:
        one, reason, outcome = Pull(vm, self._lever), "", StepOutcome.FAILED
        try:
            one.run(self._policy.settle, self._clock.sleep)
        except (InfrastructureError, OSError) as error:
            when = "before it was measured again" if one.pulled else "before it was done"
            reason = f"{when}: {_words(error)}"
            _end_if_asked(error)
            if isinstance(error, HostLostError):
                raise
        except KeyboardInterrupt:
            reason = "ended by a signal"
            raise
        finally:
            with deferred():
                if one.pulled:
                    outcome = one.pulled.outcome
                    reason = ", ".join(filter(None, (one.pulled.message, reason)))
                    line = line.model_copy(update={"values": one.pulled.values})
                found = {name: moment(held) for name, held in one.moments.items()}
                self._end(
                    line.model_copy(
                        update={
                            "outcome": outcome,
                            "reason": reason,
                            "measured": {**line.measured, **found},
                            "settle_seconds": self._policy.settle,
                        }
                    )
                )

    def _end(self, line: Line) -> None:
        """An attempt is over, whatever came of it: the pause begins."""
        self._end_attempt(line.vm, self._lever.scope, self._clock.monotonic())
        self._write(line.model_copy(update={"time": self._time()}))

    def _end_attempt(self, vm: str, scope: Scope | None, when: float) -> None:
        for key in (vm, _HOST) if scope is Scope.HOST else (vm,):
            self._ended[key] = max(when, self._ended.get(key, -math.inf))

    def _pauses(self, key: str) -> bool:
        """Whether the last attempt on a VM, or that on all VMs of the host, is too short a time ago."""
        if key == _HOST and self._lever.scope is Scope.VM:
            return False
        ended = self._ended.get(key, -math.inf)
        return self._clock.monotonic() - ended < self._policy.pause

    def _note(self, about: str, why: str, *, vm: str = "") -> None:
        """What keeps it from its work, reported once until that changes; empty: nothing does."""
        former = self._notices.get(about, "")
        self._notices[about] = why
        if why == former:
            return
        reason = why or f"no more: {former}"
        self._write(Line(version=1, time=self._time(), event="notice", host=self._name, vm=vm, reason=reason))

    def _write(self, line: Line) -> None:
        self._journal.write(line)
        self._tell(line)

    def _time(self) -> str:
        return self._clock.now().isoformat(timespec="seconds")


def _end_if_asked(error: Exception) -> None:
    """Raise KeyboardInterrupt where it was raised on the way to the end that a signal asked for."""
    if interrupted(error):
        raise KeyboardInterrupt from error


def _words(error: OrchestratorError | OSError) -> str:
    if isinstance(error, OrchestratorError):
        return ": ".join(filter(None, (error.brief, error.details)))
    return error.strerror or str(error)
