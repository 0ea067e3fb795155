"""`claims --run`: test claims again on this machine, and say what differs."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from orchestrator.cli.output import err, out, print_error, print_json, print_next
from orchestrator.cli.progress import watch
from orchestrator.cli.scenario import find_guests_dir, open_scenario
from orchestrator.cli.signals import stop_at_signals
from orchestrator.cli.tables import plain_table, print_table
from orchestrator.errors import ExitCode, InfrastructureError, OrchestratorError
from orchestrator.shipped import shipped
from orchestrator.units import format_duration

if TYPE_CHECKING:
    from orchestrator.claims import Claim, Committed
    from orchestrator.retest import ClaimChange, JobState, Workplace
    from orchestrator.run.machinery import Machinery

Do = Callable[["JobState", "Workplace"], OrchestratorError | None]
"""Does a job, and gives what went wrong. Raises KeyboardInterrupt."""

_COLOURS = {"differs": "red", "no difference found": "green", "identical": "green"}


def run_claims(
    ctx: click.Context,
    claims: Sequence[Claim],
    committed: Committed,
    *,
    results: Path,
    repeats: int | None,
    within: float,
    connect: str | None,
    dry_run: bool,
    as_json: bool,
    one: str | None = None,
    machinery: Machinery | None = None,
) -> None:
    """Do, or with `dry_run` list, what tests these claims; `within` bounds the seconds of what is begun.

    With `one`, only the result of that name is made, in this process, and what went wrong is printed as JSON.
    """
    import psutil

    from orchestrator.claims import Committed
    from orchestrator.cli.model_input import keep_compiled
    from orchestrator.retest import FOLDER, Workplace, changes_of, jobs_of, state_of
    from orchestrator.retest.document import changes_as_json, jobs_as_json, untestable
    from orchestrator.run import ProjectPaths
    from orchestrator.run.machinery import RealMachinery

    scenarios = _scenarios(committed)
    guests = find_guests_dir(scenarios / "any.yaml")
    available = psutil.virtual_memory().available
    where = Workplace(
        results / FOLDER,
        ProjectPaths.beside(guests),
        machinery or RealMachinery(),
        partial(open_scenario, guests_dir=guests, available_bytes=available, to_run=True),
        connect,
    )
    jobs = jobs_of(claims, committed, scenarios, repeats=repeats)
    states = [state_of(job, where) for job in jobs]
    if one is not None:
        keep_compiled()
        (failure,) = (_do_here(state, where) for state in states if state.job.name == one)
        click.echo(json.dumps({"error": failure.brief if failure else ""}))
        ctx.exit(int(failure.exit_code if failure else ExitCode.COMPLETED))
    elsewhere = None if results == Path("results") else results
    again = _words(claims, results=elsewhere, repeats=repeats, connect=connect)
    cannot = untestable(claims)
    if not as_json:
        _print_plan(states, cannot, within)
    errors: dict[str, OrchestratorError] = {}
    if not dry_run:
        keep_compiled()
        do = _do_here
        if where.machinery.one_run_a_process:
            whole = _words(
                claims, results=results, repeats=repeats, connect=connect, reference=committed.folder
            )
            do = partial(_do_elsewhere, whole)
        errors = _do(states, where, within, shlex.join(["orchestrator", *again]), do)
        states = [state_of(job, where) for job in jobs]
    changes = [] if dry_run else changes_of(claims, committed, Committed(where.folder, str(where.folder)))
    code = ExitCode.COMPLETED
    if any(one.differs for one in changes):
        code = ExitCode.EXPECTATION_FAILED
    if errors:
        code = ExitCode.INFRASTRUCTURE
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "folder": str(where.folder),
                "within_seconds": within,
                "estimate_seconds": sum(one.seconds or 0.0 for one in states),
                "jobs": jobs_as_json(states, {name: error.brief for name, error in errors.items()}),
                "untestable": cannot,
                "claims": changes_as_json(changes),
                "exit_code": int(code),
            },
            "claims run",
        )
    elif not dry_run:
        _print_changes(changes)
        left = [one for one in states if one.left]
        if left:
            print_next(f"{shlex.join(['orchestrator', *again])}   goes on with what is left")
    ctx.exit(int(code))


def _scenarios(committed: Committed) -> Path:
    """The scenarios of the project that the committed results are of."""
    folder = committed.folder.resolve().parent.parent / "scenarios"
    return folder if folder.is_dir() else shipped("scenarios")


def _do(
    states: Sequence[JobState], where: Workplace, within: float, again: str, do: Do
) -> dict[str, OrchestratorError]:
    """Job after job; what failed, by the job's name. One that fails is not the end."""
    from orchestrator.retest import Progressed, RunJob, waits_for

    errors: dict[str, OrchestratorError] = {}
    began = time.monotonic()
    to_do = [one for one in states if one.progressed in {Progressed.TO_DO, Progressed.IN_PART}]
    try:
        for number, state in enumerate(to_do, start=1):
            name, spent = state.job.name, time.monotonic() - began
            if spent + (state.seconds or 0.0) > within:
                err.print(
                    f"{escape(name)} is left for the next call: {_about(state.seconds)}, and of "
                    f"{format_duration(within)} {format_duration(max(0.0, within - spent))} are left"
                )
                continue
            if waits := waits_for(state.job, where):
                err.print(f"{escape(name)} is left for the next call: it reads {escape(waits)}")
                continue
            rest = sum(one.seconds or 0.0 for one in to_do[number - 1 :])
            err.print(
                f"[bold]{number} of {len(to_do)}: {escape(name)}[/], {_about(state.seconds)}; "
                f"of all that is left {_about(rest)}"
            )
            error = (do if isinstance(state.job, RunJob) else _do_here)(state, where)
            if error:
                errors[name] = error
    except KeyboardInterrupt:
        print_next(f"{again}   goes on", err)
        raise
    return errors


def _do_here(state: JobState, where: Workplace) -> OrchestratorError | None:
    from orchestrator.cli.runs import write_reports
    from orchestrator.retest import work
    from orchestrator.summary import note_time

    failure: OrchestratorError | None = None
    try:
        with stop_at_signals(), watch() as progress:
            result = work(state.job, where, progress)
            if result:
                write_reports(result.analysis)
                note_time(result.analysis.run)
                for trial, error in result.errors:
                    failure = InfrastructureError(
                        f"{state.job.name}: trial {trial}: {error.brief}",
                        hint=f"orchestrator show {where.folder / state.job.name}",
                    )
    except OrchestratorError as error:
        failure = error
    if failure:
        print_error(failure)
    return failure


def _do_elsewhere(words: Sequence[str], state: JobState, _: Workplace) -> OrchestratorError | None:
    """The same in a process of its own, which prints what goes on."""
    from orchestrator.run.parallel import END_SECONDS, TOGETHER

    name = state.job.name
    # Not of our terminal's: Ctrl-C is for this process, which passes it on.
    process = subprocess.Popen(
        [*TOGETHER, sys.executable, "-m", "orchestrator", *words, "--one", name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        with stop_at_signals("waiting for the run to end"):
            said, _stderr = process.communicate()
    except KeyboardInterrupt:
        process.terminate()
        try:
            process.communicate(timeout=2 * END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
    if process.returncode == ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    try:
        brief = str(json.loads(said)["error"])
    except (ValueError, KeyError, TypeError):
        brief = f"{name}: its process ended with code {process.returncode}"
    return InfrastructureError(brief) if brief else None


def _words(claims: Sequence[Claim], **options: object) -> list[str]:
    """The call that goes on: with all that the plans of its runs, and their places, depend on."""
    words = ["claims", *([claims[0].name] if len(claims) == 1 else []), "--run"]
    return words + [
        word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))
    ]


def _about(seconds: float | None) -> str:
    return "time not known" if seconds is None else f"about {format_duration(seconds)}"


def _print_plan(states: Sequence[JobState], cannot: Sequence[dict[str, str]], within: float) -> None:
    table = plain_table(title="What tests them", header_style="bold")
    for title in ("result", "left", "about", "command"):
        table.add_column(title)
    for one in states:
        left = one.progressed.value if not one.left or one.left == one.of else f"{one.left} of {one.of}"
        about = "" if not one.left else "not known" if one.seconds is None else format_duration(one.seconds)
        table.add_row(escape(one.job.name), left, about, escape(one.reason or one.job.command))
    print_table(table)
    whole = sum(one.seconds or 0.0 for one in states)
    unknown = [one.job.name for one in states if one.left and one.seconds is None]
    beside = (
        f", and {', '.join(unknown)}, of which no committed run says how long it takes" if unknown else ""
    )
    out.print(
        f"In all about {format_duration(whole)}{escape(beside)}: as on the machine of the committed runs, "
        f"with guests still to be booted. None is begun that would end after {format_duration(within)}."
    )
    for row in cannot:
        out.print(f"[dim]not here: {escape(row['claim'])}: {escape(row['what'])}: {escape(row['reason'])}[/]")


def _print_changes(changes: Sequence[ClaimChange]) -> None:
    from orchestrator.analysis.text import counted
    from orchestrator.claims.figure import figure_words

    table = plain_table(header_style="bold")
    for title in ("claim", "origin", "committed", "fresh"):
        table.add_column(title, no_wrap=True)
    for one in changes:
        for number, (origin, verdict) in enumerate(one.committed.verdicts.items()):
            fresh = one.fresh.verdicts[origin]
            name = escape(one.claim.name) if not number else ""
            table.add_row(name, origin.value, verdict.value, fresh.value)
    for one in changes:
        out.print(f"\n[bold]{escape(one.claim.name)}[/]")
        for part in one.parts:
            change = part.change.value
            out.print(f"  {escape(part.committed.part.what)}")
            figures = [
                figure_words(judged.figure, judged.part.unit) if judged.figure else "none"
                for judged in (part.committed, part.fresh)
            ]
            boots = part.fresh.figure.boots if part.fresh.figure else None
            of = f" of {counted(boots, 'boot')}" if boots else ""
            why = "" if part.fresh.figure else f": {escape(part.reason)}"
            colour = _COLOURS.get(change, "yellow")
            out.print(
                f"    committed {escape(figures[0])}, fresh {escape(figures[1])}{of}: "
                f"[{colour}]{change}[/]{why}"
            )
        for words in one.unlike:
            out.print(f"  [yellow]unlike:[/] {escape(words)}")
    out.print("")
    print_table(table)
