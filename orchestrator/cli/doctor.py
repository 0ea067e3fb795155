"""`doctor`: can this machine run guests, and how?"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.output import err, out, print_json
from orchestrator.cli.scenario import find_guests_dir
from orchestrator.errors import ExitCode

if TYPE_CHECKING:
    from orchestrator.doctor import Check

_STYLES = {"ok": "green", "note": "yellow", "bad": "bold red"}


@click.command("doctor")
@click.option("--connect", metavar="URI", help="Look at this libvirt, or at a host elsewhere.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
    help="Where run folders would be made.",
)
@click.option("--guests-dir", type=click.Path(path_type=Path), help="Folder of guest definitions.")
@click.option("--probe-again", is_flag=True, help="Try KVM again, even if a verdict on it is kept.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def doctor_command(
    ctx: click.Context,
    *,
    connect: str | None,
    results: Path,
    guests_dir: Path | None,
    probe_again: bool,
    as_json: bool,
) -> None:
    """Can this machine run guests, and how? What to do about each red line.

    Starts nothing that lasts. Leaves nothing behind but whether KVM works: runs need not find that out again
    in this boot, unless QEMU, the kernel or /dev/kvm changes. Exit code 3 if a line is red.
    """
    from orchestrator.doctor import ACCELERATION, SECOND_LEVEL, Level, examine, examine_host
    from orchestrator.guest.cache import cache_dir
    from orchestrator.host_kinds import host_kind

    guests = find_guests_dir(Path("guests"), guests_dir)
    with err.status(f"looking at {connect or 'this machine'}") if err.is_terminal else nullcontext():
        if connect is not None and host_kind(connect).elsewhere:
            checks = examine_host(cache_dir(), connect, probe_again=probe_again)
        else:
            checks = examine(cache_dir(), guests, results, connect, probe_again=probe_again)
    bad = sum(check.level is Level.BAD for check in checks)
    words = {check.name: check.word or "unknown" for check in checks}
    if as_json:
        print_json(
            {
                "ok": not bad,
                "accel": words.get(ACCELERATION, "unknown"),
                "second_level": words.get(SECOND_LEVEL, "unknown"),
                "checks": [
                    {"name": check.name, "level": check.level, "found": check.found, "fix": check.fix}
                    for check in checks
                ],
            }
        )
    else:
        out.print(_table(checks), soft_wrap=False)
        out.print(_verdict(bad, words.get(ACCELERATION, "")))
    ctx.exit(ExitCode.INFRASTRUCTURE if bad else ExitCode.COMPLETED)


def _table(checks: list[Check]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        style = _STYLES[check.level]
        table.add_row(f"[{style}]{check.level}[/]", check.name, escape(check.found))
        if check.fix:
            table.add_row("", "", f"[bold]next:[/] {escape(check.fix)}")
    return table


def _verdict(bad: int, accel: str) -> str:
    if bad:
        return f"[bold red]Guests cannot be relied upon here:[/] {bad} of these must be mended first."
    how = {"kvm": " with KVM", "tcg": " under software emulation: slowly, but they do"}.get(accel, "")
    return f"[green]Guests run here{how}.[/]"
