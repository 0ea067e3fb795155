"""`doctor`: check whether this machine can run guests."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.options import Renamed, guests_dir_option, json_option, results_option
from orchestrator.cli.output import err, out, print_json
from orchestrator.cli.scenario import find_guests_dir
from orchestrator.cli.tables import plain_table, print_table
from orchestrator.errors import BadInputError, ExitCode

if TYPE_CHECKING:
    from orchestrator.doctor import Check

_STYLES = {"ok": "green", "not checked": "yellow", "note": "yellow", "bad": "bold red"}


@click.command("doctor")
@click.option("--connect", metavar="URI", help="Check this libvirt connection or another host.")
@results_option
@guests_dir_option
@click.option(
    "--recheck-kvm",
    "--probe-again",
    "probe_again",
    cls=Renamed,
    is_flag=True,
    help="Check KVM again even if a result is cached.",
)
@click.option(
    "--fix", is_flag=True, help="Install the Debian packages that are missing, by apt-get; then check."
)
@click.option("--dry-run", is_flag=True, help="With --fix: print the commands, and change nothing.")
@click.option("--yes", is_flag=True, help="With --fix: do not ask.")
@json_option
@click.pass_context
def doctor_command(
    ctx: click.Context,
    *,
    connect: str | None,
    results: Path,
    guests_dir: Path | None,
    probe_again: bool,
    fix: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Check whether this machine can run guests, and what to fix.

    Starts nothing that lasts. It caches whether KVM works, for runs in this boot, until QEMU, the kernel or
    /dev/kvm changes. What could not be checked is `not checked`. Exit code 3 if a line is red.

    \b
    orchestrator doctor --fix --dry-run   # the commands of apt-get
    """
    from orchestrator.doctor import ACCELERATION, SECOND_LEVEL, Level, examine, examine_host
    from orchestrator.guest.cache import cache_dir
    from orchestrator.host_kinds import host_kind

    _check_options(connect, fix=fix, dry_run=dry_run, yes=yes, as_json=as_json)
    if fix:
        _install_packages(yes=yes, dry_run=dry_run)
    if dry_run:
        return
    try:
        guests = find_guests_dir(Path("guests"), guests_dir)
    except BadInputError:
        if guests_dir is not None:
            raise
        guests = Path("guests")  # a red line among the others
    with err.status(f"checking {connect or 'this machine'}") if err.is_terminal else nullcontext():
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


def _check_options(connect: str | None, *, fix: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    if fix and connect is not None:
        raise BadInputError(
            "--fix installs on this machine, and --connect names another", hint="log in there"
        )
    if not fix and (dry_run or yes):
        raise BadInputError("--dry-run and --yes are of --fix", hint="orchestrator doctor --fix --dry-run")
    if dry_run and as_json:
        raise BadInputError("--dry-run prints commands, which are no JSON", hint="leave out --json")


def _install_packages(*, yes: bool, dry_run: bool) -> None:
    from orchestrator.doctor import install_missing, missing_packages

    missing = missing_packages()
    if not missing:
        err.print("no Debian package is missing")
        return
    err.print(f"Debian packages are missing: {escape(' '.join(missing))}")
    if not (yes or dry_run):
        if not sys.stdin.isatty():
            raise BadInputError(
                "whether to install them cannot be asked without a terminal",
                hint="orchestrator doctor --fix --yes, or: orchestrator doctor --fix --dry-run",
            )
        click.confirm("Install them by apt-get?", abort=True, err=True)
    install_missing(dry_run=dry_run)


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
        return f"[bold red]Guests may fail here:[/] {bad} of these must be fixed first."
    if open_questions:
        named = ", ".join(open_questions)
        return f"[yellow]No problem was found, but not everything was checked:[/] {named}."
    how = {"kvm": " with KVM", "tcg": " under software emulation: slowly"}.get(accel, "")
    return f"[green]Guests run here{how}.[/]"
