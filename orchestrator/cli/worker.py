"""`worker`: do trials of a fleet on this host."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

import click
from rich.markup import escape

from orchestrator.cli.options import fleet_file_option
from orchestrator.cli.output import err
from orchestrator.errors import BadInputError, ExitCode


@click.command("worker")
@click.argument("address", metavar="ADDRESS")
@fleet_file_option
@click.option("--name", metavar="NAME", help="What this host is called in runs. Default: the host's name.")
@click.option(
    "--guests-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of guest definitions, with workloads and playbooks beside it; else the shipped one.",
)
@click.pass_context
def worker_command(
    ctx: click.Context, *, address: str, fleet_file: Path, name: str | None, guests_dir: Path | None
) -> None:
    """Do trials of a fleet on this host, until a signal ends it.

    ADDRESS is the head's, tls://HOST:PORT, as fleet.toml has it. Each trial is a process of its own, which
    ends with this one. What a worker that was killed has left is cleaned first. Where the head is lost, what
    runs is ended, and the head is joined again when it is back.
    """
    from orchestrator.fleet.config import load_fleet, split_address
    from orchestrator.fleet.extra import must_be_installed

    try:
        split_address(address)
    except ValueError as error:
        wrong, _, right = str(error).partition("; ")
        raise BadInputError(wrong, hint=right) from None
    fleet = load_fleet(fleet_file)
    if fleet.text.head != address:
        raise BadInputError(
            f"{fleet_file} names another head: {fleet.text.head}, not {address}", hint="correct one of them"
        )
    must_be_installed()
    fleet.certificates("worker")

    from orchestrator.fleet.card import this_host, this_program
    from orchestrator.fleet.engine.worker import serve_worker
    from orchestrator.fleet.sweep_unit import SweepHost
    from orchestrator.fleet.unit import UnitHost, spool_of
    from orchestrator.guest.cache import cache_dir
    from orchestrator.run.cleanup import clean_up
    from orchestrator.run.unit import checked_host_name
    from orchestrator.shipped import shipped

    def tell(text: str) -> None:
        err.print(escape(text))

    called = checked_host_name(name or socket.gethostname())
    token = secrets.token_hex(8)
    with spool_of(cache_dir()) as spool:
        for what in clean_up():
            tell(f"left by a worker or run that was killed: {what}")
        host = UnitHost(called, token, this_program(), spool, (guests_dir or shipped("guests")).absolute())
        cores = len(os.sched_getaffinity(0))
        sweeps = SweepHost(called, this_program(), spool / "traces", cache_dir() / "compiled", cores)
        serve_worker(fleet, host, sweeps, lambda: this_host(called, token, cache_dir()), tell)
    tell("ended")
    ctx.exit(ExitCode.INTERRUPTED)
