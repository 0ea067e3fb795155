"""What kernels have complained of by the end of a trial, and whom they killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Literal

from orchestrator.errors import OrchestratorError
from orchestrator.guest.boot import Guest
from orchestrator.guest.kernel_log import KernelLog, read_kernel_log
from orchestrator.guest.oom_log import KILLED, OomKill, find_kills
from orchestrator.host.shell import HostShell
from orchestrator.records.events import KernelLogRead, OomKilled
from orchestrator.store import TrialWriter
from orchestrator.workloads import WorkloadDriver


@contextmanager
def kernel_logs_at_end(
    guest: Guest, writer: TrialWriter, now_ns: Callable[[], int], workloads: Mapping[str, WorkloadDriver]
) -> Iterator[None]:
    """Record what the kernels of the guest, and of its host if that is one, have complained of by the end,
    and whom their OOM killers have ended.

    Also when a step failed, which may be no more than a sign of that. Raises GuestDiskError.
    """

    kernels: list[tuple[Literal["guest", "host"], Guest]] = [("guest", guest)]
    if guest.host:
        kernels.append(("host", guest.host))

    def observe() -> list[KernelLog]:
        logs = []
        if guest.host is None:
            for kill in _kills_on_host(guest.domain.qemu.shell, now_ns() / 1e9):
                writer.record(OomKilled(t_ns=now_ns(), of="host", **asdict(kill)))
        for of, one in kernels:
            t_ns = now_ns()
            log = read_kernel_log(one)
            logs.append(log)
            facts = {key: value for key, value in asdict(log).items() if key != "kills"}
            writer.record(KernelLogRead(t_ns=t_ns, of=of, **facts))
            for kill in log.kills:
                workload = _workload_of(kill, workloads) if of == "guest" else ""
                writer.record(OomKilled(t_ns=t_ns, of=of, workload=workload, **asdict(kill)))
        return logs

    try:
        yield
    except OrchestratorError:
        observe()
        raise
    for log in observe():
        log.must_not_tell_of_disk_errors()


def _kills_on_host(shell: HostShell, seconds: float) -> tuple[OomKill, ...]:
    """Whom the host's OOM killer has ended in the last `seconds`; none where its log is not to be read, which
    its counter (probe host_vmstat) makes up for."""
    try:
        return find_kills("\n".join(shell.kernel_log(KILLED, seconds=seconds)))
    except (OrchestratorError, OSError):
        return ()


def _workload_of(kill: OomKill, workloads: Mapping[str, WorkloadDriver]) -> str:
    """The workload whose process it was; empty for any other."""
    return next((name for name, driver in workloads.items() if kill.comm in driver.processes), "")
