"""`audit`: what page tables hold and need on a machine as it runs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.status import Status

from orchestrator.cli.audit_view import show
from orchestrator.cli.options import json_option, watch_option
from orchestrator.cli.output import err, print_json
from orchestrator.cli.signals import stop_at_signals
from orchestrator.errors import BadInputError
from orchestrator.units import parse_size

if TYPE_CHECKING:
    from orchestrator.host.shell import HostShell

AUDIT_SECONDS = 120.0
"""One audit gives up on what it has not read by then: it becomes a gap."""
_QUIET_SECONDS = 2.0
_TOP = 20


def _size(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    try:
        return None if text is None else parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command("audit")
@click.option(
    "--connect",
    metavar="URI",
    help="Another host, as qemu+ssh://root@HOST/system, or `lab`; or this machine's libvirt, qemu:///system.",
)
@click.option(
    "--pid", "pids", type=click.IntRange(min=1), multiple=True, help="Only this process; repeatable."
)
@click.option(
    "--process", "names", metavar="NAME", multiple=True, help="Only processes of this name; repeatable."
)
@click.option(
    "--domain", "domains", metavar="NAME", multiple=True, help="Only this VM, by name or UUID; repeatable."
)
@watch_option
@click.option(
    "--openmetrics",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write it for Prometheus, in place of this file; as node_exporter's textfile collector reads it.",
)
@click.option(
    "--overcommit",
    metavar="FILE.yaml",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the VMs and their host as a question for `orchestrator model overcommit`.",
)
@click.option(
    "--top", type=click.IntRange(min=1), default=_TOP, show_default=True, help="Processes that are listed."
)
@click.option(
    "--min",
    "min_bytes",
    metavar="SIZE",
    callback=_size,
    help="Read processes with at least so much page tables page by page; else 64KiB.",
)
@json_option
def audit_command(
    *,
    connect: str | None,
    pids: tuple[int, ...],
    names: tuple[str, ...],
    domains: tuple[str, ...],
    every: float | None,
    openmetrics: Path | None,
    overcommit: Path | None,
    top: int,
    min_bytes: int | None,
    as_json: bool,
) -> None:
    """Say how much memory page tables take that map nothing, of VMs and processes, and what would free it.

    It only reads, and stops no process. An ordinary user sees their own processes.

    \b
    orchestrator audit
    orchestrator audit --connect qemu+ssh://root@HOST/system
    orchestrator audit --process redis-server
    orchestrator audit --watch 30s --openmetrics /var/lib/prometheus/node-exporter/page_tables.prom
    """
    from orchestrator.audit.document import document
    from orchestrator.audit.machine import MIN_BYTES, audit
    from orchestrator.audit.openmetrics import write_openmetrics
    from orchestrator.audit.overcommit import write_overcommit
    from orchestrator.audit.vm import find_vms
    from orchestrator.deadline import Deadline

    with stop_at_signals("ending the audit"), _opened(connect) as (shell, connection):
        while True:
            began = time.monotonic()
            with _progress() as progress:
                found = audit(
                    shell,
                    deadline=Deadline(AUDIT_SECONDS),
                    connection=connection,
                    find_vms=find_vms,
                    pids=pids,
                    names=names,
                    domains=domains,
                    min_bytes=MIN_BYTES if min_bytes is None else min_bytes,
                    progress=progress,
                )
            if openmetrics:
                write_openmetrics(openmetrics, found, top=top)
            if overcommit:
                write_overcommit(overcommit, found, shell.text("/proc/meminfo"))
            if as_json:
                print_json(document(found))
            else:
                show(found, top=top)
            if every is None:
                return
            time.sleep(max(0.0, every - (time.monotonic() - began)))


@contextmanager
def _opened(connect: str | None) -> Iterator[tuple[HostShell, str | None]]:
    """The machine that is read, and the libvirt that was asked for."""
    from orchestrator.host.shell import HostShell, remote_shell
    from orchestrator.host.ssh import SshTarget, user_target
    from orchestrator.host_kinds import host_kind

    if connect is None:
        yield HostShell(), None
        return
    kind = host_kind(connect)
    if kind.is_guest:
        raise BadInputError(
            f"{connect} is made for a run: there is nothing to read", hint="orchestrator lab up"
        )
    if not kind.elsewhere:
        yield HostShell(), connect
        return
    with tempfile.TemporaryDirectory(prefix="orchestrator-audit-") as folder:
        address = kind.address(Path(folder))
        if not isinstance(address, SshTarget) and not connect.startswith("qemu+ssh://"):
            raise BadInputError(f"{connect} is not reached by ssh", hint="use qemu+ssh://root@HOST/system")
        target = address if isinstance(address, SshTarget) else user_target(connect, Path(folder))
        with remote_shell(target) as shell:
            yield shell, target.libvirt_uri()


@contextmanager
def _progress() -> Iterator[_Progress]:
    progress = _Progress()
    try:
        yield progress
    finally:
        progress.end()


class _Progress:
    """A line on a terminal, for an audit that takes long."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._status: Status | None = None

    def __call__(self, words: str) -> None:
        if not err.is_terminal or time.monotonic() - self._began < _QUIET_SECONDS:
            return
        if self._status is None:
            self._status = err.status(words)
            self._status.start()
        self._status.update(words)

    def end(self) -> None:
        if self._status is not None:
            self._status.stop()
