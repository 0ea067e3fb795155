"""`list`: the runs in the results folder, all or some."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.complete import complete_arms_of_runs
from orchestrator.cli.options import Choice, json_option, results_option
from orchestrator.cli.output import clean_text, coloured, out, print_json, print_next
from orchestrator.cli.tables import plain_table, print_table, room
from orchestrator.errors import BadInputError
from orchestrator.store.layout import Status

if TYPE_CHECKING:
    from orchestrator.store import Run

_WIDE: Final = 110  # columns of a terminal from which `list` says how runs came out
_AGE: Final = re.compile(r"([0-9]{1,5})([hdw])")
_AGE_HOURS: Final = {"h": 1, "d": 24, "w": 7 * 24}


class _Since(click.ParamType[datetime]):
    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        if age := _AGE.fullmatch(str(value)):
            return datetime.now(UTC) - timedelta(hours=int(age[1]) * _AGE_HOURS[age[2]])
        try:
            at = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no day and no age; write 2026-01-31, 12h, 7d or 4w", param, ctx)
        return at if at.tzinfo else at.replace(tzinfo=UTC)


@click.command("list")
@click.option("--scenario", metavar="NAME", help="Only runs of this scenario.")
@click.option(
    "--status",
    type=Choice([one.value for one in Status]),
    multiple=True,
    help="Only runs of this status; may be given several times.",
)
@click.option(
    "--arm", metavar="NAME", shell_complete=complete_arms_of_runs, help="Only runs that have this arm."
)
@click.option(
    "--kernel", metavar="TEXT", help="Only runs with a trial of a kernel whose release has this in it."
)
@click.option(
    "--since",
    type=_Since(),
    metavar="DAY|AGE",
    help="Only runs that began on that day (UTC) or later, `2026-01-31`, or no longer ago, `7d`.",
)
@click.option(
    "--sort",
    type=Choice(["started", "scenario", "status"]),
    default="started",
    show_default=True,
    help="Sort by this; where it is the same, the newest comes first.",
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many runs.")
@results_option
@json_option
def list_command(
    *,
    results: Path,
    scenario: str | None,
    status: tuple[str, ...],
    arm: str | None,
    kernel: str | None,
    since: datetime | None,
    sort: str,
    limit: int | None,
    as_json: bool,
) -> None:
    """List the runs in the results folder, the newest first."""
    from orchestrator.export.run_row import RunRow
    from orchestrator.store import list_runs
    from orchestrator.summary import saved

    wanted = _Wanted(scenario, status, arm, kernel, since)
    rows, unreadable = [], []
    for run in list_runs(results):
        try:
            if isinstance(run, BadInputError):
                raise run
            if wanted.has(run):
                rows.append(RunRow.of(run, saved(run)).model_dump())
        except BadInputError as error:  # one damaged folder does not hide the others
            unreadable.append(error.brief)
    if sort != "started":
        rows.sort(key=lambda row: str(row[sort]))  # which leaves those of the same as they were
    rows = rows[:limit]
    if as_json:
        print_json({"runs": rows, "unreadable": unreadable})
        return
    if rows:
        print_table(_table(rows))
    elif not unreadable:
        out.print(f"No {wanted.word}runs in {escape(str(results))}.")
        more = "orchestrator list" if wanted.word else "orchestrator run quickstart"
        print_next(more)
    for brief in unreadable:
        out.print(f"[yellow]unreadable:[/] {escape(clean_text(brief))}")


@dataclass(frozen=True)
class _Wanted:
    """Which runs are listed; what is not given keeps none out."""

    scenario: str | None
    status: tuple[str, ...]
    arm: str | None
    kernel: str | None
    since: datetime | None

    @property
    def word(self) -> str:
        return "such " if self != _Wanted(None, (), None, None, None) else ""

    def has(self, run: Run) -> bool:
        return (
            self.scenario in {None, run.scenario}
            and (not self.status or run.status.value in self.status)
            and (self.arm is None or self.arm in run.arm_names)
            and (self.since is None or self._recent(run, self.since))
            and (self.kernel is None or self._booted(run, self.kernel))
        )

    @staticmethod
    def _recent(run: Run, since: datetime) -> bool:
        try:
            began = datetime.fromisoformat(run.meta.started_at)
        except ValueError:
            return False
        return (began if began.tzinfo else began.replace(tzinfo=UTC)) >= since

    @staticmethod
    def _booted(run: Run, kernel: str) -> bool:
        """From summary.csv alone, as all of a list."""
        from orchestrator.summary import saved

        return any(kernel in one.kernel_release for one in saved(run))


def _table(rows: list[dict[str, Any]]) -> Table:
    table = plain_table()
    columns = room()
    wide = columns is None or columns >= _WIDE
    for column in ("run", "scenario", "started", "status", "trials", *(["came out"] if wide else [])):
        table.add_column(column, no_wrap=column != "came out")
    for row in rows:
        table.add_row(
            escape(clean_text(row["run"])),
            escape(clean_text(row["scenario"])),
            escape(clean_text(row["started_at"])[:16].replace("T", " ")),
            coloured(Status(row["status"])),
            f"{row['trials_done']}/{row['trials_planned']}",
            *([escape(row["headline"])] if wide else []),
        )
    return table
