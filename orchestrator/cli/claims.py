"""`claims`: each claim of the talk, and what committed results say of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from orchestrator.cli.options import connect_option, json_option, results_option
from orchestrator.cli.output import out, print_json, print_next
from orchestrator.cli.tables import plain_table, print_table
from orchestrator.units import parse_duration

if TYPE_CHECKING:
    from orchestrator.claims import JudgedClaim

_COLOURS = {
    "holds": "green",
    "holds in part": "yellow",
    "does not hold": "red",
    "met": "green",
    "not met": "red",
}


def _duration(_ctx: click.Context, _parameter: click.Parameter, text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command("claims")
@click.argument("name", default="")
@click.option(
    "--reference",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of committed results, else `results/reference` of this project.",
)
@click.option(
    "--run", "to_run", is_flag=True, help="Test them again here, and compare with what is committed."
)
@click.option(
    "--dry-run", is_flag=True, help="Only list what --run would do, how long it takes, and what it cannot."
)
@click.option(
    "--repeats", type=click.IntRange(min=1), help="With --run: trials of each arm, instead of those declared."
)
@click.option(
    "--within",
    metavar="TIME",
    default="2h",
    show_default=True,
    callback=_duration,
    help="With --run: begin nothing that would end later than that.",
)
@click.option("--one", hidden=True, help="Make one result, in this process.")
@results_option
@connect_option
@json_option
@click.pass_context
def claims_command(
    ctx: click.Context,
    *,
    name: str,
    reference: Path | None,
    to_run: bool,
    dry_run: bool,
    repeats: int | None,
    within: float,
    one: str | None,
    results: Path,
    connect: str | None,
    as_json: bool,
) -> None:
    """Say of each claim of the talk whether committed results bear it out.

    With NAME, all of one claim: what was found in each part, by which criterion, and what would change it.
    Boots nothing. docs/claims.md is the same as a page.

    With --run, the scenarios and models that claims (or NAME) are judged by are run here, into the folder
    `claims` of --results. Interrupted or killed, the next call goes on. Exit code 1: a figure differs by
    more than chance.
    """
    from orchestrator.claims import Committed, claim_named, every_claim, judge, reference_folder
    from orchestrator.claims.document import claims_as_json

    wanted = [claim_named(name)] if name else every_claim()
    committed = Committed(reference_folder(reference))
    if to_run or dry_run:
        from orchestrator.cli.claims_run import run_claims

        run_claims(
            ctx,
            wanted,
            committed,
            results=results,
            repeats=repeats,
            within=within,
            connect=connect,
            dry_run=dry_run,
            as_json=as_json,
            one=one,
        )
    if repeats:
        raise click.UsageError("--repeats is for --run.")
    judged = [judge(one, committed) for one in wanted]
    if as_json:
        print_json({"claims": claims_as_json(judged)})
    elif name:
        _print_claim(judged[0])
    else:
        _print_claims(judged)
        print_next("orchestrator claims NAME   has the figures of one, and how to test it again")


def _print_claims(claims: Sequence[JudgedClaim]) -> None:
    from orchestrator.claims.document import verdict_words
    from orchestrator.observation import Origin

    table = plain_table()
    for title in ("claim", *(origin.value for origin in Origin)):
        table.add_column(title, no_wrap=True)
    for one in claims:
        verdicts = (_coloured(verdict_words(one, origin)) for origin in Origin)
        table.add_row(escape(one.claim.name), *verdicts)
    print_table(table)


def _print_claim(judged: JudgedClaim) -> None:
    from orchestrator.claims.document import part_rows

    out.print(f"[bold]{escape(judged.claim.sentence)}[/]")
    for origin, verdict in judged.verdicts.items():
        out.print(f"{origin.value}: {_coloured(verdict.value)}")
    for row in part_rows(judged):
        out.print(f"\n{escape(row.what)}")
        out.print(f"  {row.origin}: {escape(row.found)}" + (f" ({row.of})" if row.of else ""))
        out.print(
            f"  {_coloured(row.result)}" + (f", claimed: {escape(row.criterion)}" if row.criterion else "")
        )
    out.print("")
    for condition in judged.conditions:
        out.print(f"[dim]{escape(condition)}[/]")
    out.print(f"What would change it: {escape(judged.claim.changes)}")
    for command in judged.claim.commands:
        print_next(command)


def _coloured(words: str) -> str:
    colour = _COLOURS.get(words)
    return f"[{colour}]{words}[/]" if colour else words
