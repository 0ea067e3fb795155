"""`doctor`: can this machine run guests, and how?"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.options import guests_dir_option, json_option, results_option
from orchestrator.cli.output import err, out, print_json
from orchestrator.cli.scenario import find_guests_dir
from orchestrator.cli.tables import plain_table, print_table
from orchestrator.errors import BadInputError, ExitCode

if TYPE_CHECKING:
    from orchestrator.doctor import Check

_STYLES = {"ok": "green", "not checked": "yellow", "note": "yellow", "bad": "bold red"}


@click.command("doctor")
@click.option("--connect", metavar="URI", help="Look at this libvirt, or at a host elsewhere.")
@results_option
@guests_dir_option
@click.option(
    "--probe-again",
    is_flag=True,
    help="Boot a kernel under KVM again, even where that was done.",
)
@json_option
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
    in this boot, unless QEMU, the kernel or /dev/kvm changes. What could not be looked at is `not checked`.
    Exit code 3 if a line is red.
    """
    from orchestrator.doctor import ACCELERATION, SECOND_LEVEL, Level, examine, examine_host
    from orchestrator.guest.cache import cache_dir
    from orchestrator.host_kinds import host_kind

    try:
        guests = find_guests_dir(Path("guests"), guests_dir)
    except BadInputError:
        if guests_dir is not None:
            raise
        guests = Path("guests")  # a red line among the others
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
        print_table(_table(checks))
        open_questions = [check.name for check in checks if check.level is Level.UNKNOWN]
        out.print(_verdict(bad, words.get(ACCELERATION, ""), open_questions))
    ctx.exit(ExitCode.INFRASTRUCTURE if bad else ExitCode.COMPLETED)


def _table(checks: list[Check]) -> Table:
    table = plain_table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        style = _STYLES[check.level]
        table.add_row(f"[{style}]{check.level}[/]", check.name, escape(check.found))
        if check.fix:
            table.add_row("", "", f"[bold]next:[/] {escape(check.fix)}")
    return table


def _verdict(bad: int, accel: str, open_questions: list[str]) -> str:
    if bad:
        return f"[bold red]Guests cannot be relied upon here:[/] {bad} of these must be mended first."
    if open_questions:
        named = ", ".join(open_questions)
        return f"[yellow]Nothing is in the way of guests, but not everything was checked:[/] {named}."
    how = {"kvm": " with KVM", "tcg": " under software emulation: slowly, but they do"}.get(accel, "")
    return f"[green]Guests run here{how}.[/]"
