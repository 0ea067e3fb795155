"""`fleet`: certificates, the head, and what hosts do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.group import Group
from orchestrator.cli.options import fleet_file_option, json_option
from orchestrator.cli.output import clean_text, err, out, print_json, print_next
from orchestrator.errors import ExitCode
from orchestrator.units import format_duration, format_size


@click.group("fleet", cls=Group)
def fleet_command() -> None:
    """Spread the trials of runs over many hosts.

    \b
    orchestrator fleet init mine                        # certificates, and mine/fleet.toml to fill in
    orchestrator fleet head --fleet mine/fleet.toml     # on one host
    orchestrator worker tls://HEAD:8786 --fleet mine/fleet.toml       # on each host that does trials
    orchestrator run quickstart --fleet mine/fleet.toml
    """


@fleet_command.command("init")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@json_option
def init_command(*, folder: Path, as_json: bool) -> None:
    """Make a CA, certificates of a head, of workers and of clients, and a fleet.toml to fill in.

    Keys can be read by their owner only. Nothing that is there is replaced.
    """
    from orchestrator.fleet.certificates import make_fleet

    made = make_fleet(folder)
    if as_json:
        print_json({"folder": str(folder), "files": [str(path) for path in made]})
        return
    for path in made:
        out.print(f"wrote {escape(str(path))}", soft_wrap=True)
    print_next(f"fill in {folder / 'fleet.toml'}, and on the head's host: orchestrator fleet head")


@fleet_command.command("head")
@fleet_file_option
@click.pass_context
def head_command(ctx: click.Context, *, fleet_file: Path) -> None:
    """Be the head of a fleet, until a signal ends it.

    It listens at the address that fleet.toml names, and shows Dask's dashboard on loopback where bokeh is
    installed. It does no trials, and keeps nothing on disk: after a restart workers join it again.
    """
    from orchestrator.fleet.config import load_fleet
    from orchestrator.fleet.extra import must_be_installed

    fleet = load_fleet(fleet_file)
    must_be_installed()
    fleet.certificates("head")
    from orchestrator.fleet.engine.head import serve_head

    serve_head(fleet, lambda text: err.print(escape(text)))
    ctx.exit(ExitCode.INTERRUPTED)


@fleet_command.command("status")
@fleet_file_option
@json_option
def status_command(*, fleet_file: Path, as_json: bool) -> None:
    """Say which hosts there are, what they can, what they run, and how long runs still take."""
    from orchestrator.fleet.config import load_fleet
    from orchestrator.fleet.extra import must_be_installed

    fleet = load_fleet(fleet_file)
    must_be_installed()
    fleet.certificates("client")
    from orchestrator.fleet.engine.head import ask_status

    said = ask_status(fleet)
    if as_json:
        print_json({"head": fleet.text.head, **said})
        return
    if not said["hosts"]:
        out.print(f"no host has joined {escape(fleet.text.head)}")
    else:
        out.print(_hosts(said["hosts"]))
    for run in said["runs"]:
        left = run.get("seconds_left")
        rest = f", about {format_duration(left)} left" if isinstance(left, int | float) else ""
        name = escape(clean_text(run.get("run")))
        out.print(f"{name}: {run.get('done')} of {run.get('total')} trials{rest}")


def _hosts(hosts: list[Mapping[str, Any]]) -> Table:
    table = Table("host", "cores", "memory", "disk", "KVM", "kernel", "runs", box=None, pad_edge=False)
    for host in sorted(hosts, key=lambda one: str((one["card"] or {}).get("name"))):
        card = host["card"] or {}
        running = [
            f"{key.split('/')[1]} for {format_duration(seconds)}" for key, seconds in host["running"].items()
        ]
        waits = host["given"] - len(running)
        table.add_row(
            *(
                escape(clean_text(text))
                for text in (
                    card.get("name", host["address"]),
                    card.get("cores", ""),
                    format_size(card.get("memory", 0)),
                    format_size(card.get("disk", 0)),
                    card.get("kvm") or card.get("second_level", ""),
                    card.get("kernel", ""),
                    ", ".join([*running, *([f"{waits} waiting"] if waits > 0 else [])]),
                )
            )
        )
    return table
