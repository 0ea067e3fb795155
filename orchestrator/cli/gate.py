"""Options by which a run is held against a baseline, and what is printed of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

import click
from rich.markup import escape

from orchestrator.cli.compare import VARIES
from orchestrator.cli.options import Choice
from orchestrator.cli.output import err, out, print_next

if TYPE_CHECKING:
    from orchestrator.analysis.run import RunAnalysis
    from orchestrator.verdict import Gate

Command = TypeVar("Command", bound=Callable[..., Any])

_COLOURS = {"good": "green", "poor": "yellow", "bad": "red"}


class GateWords(TypedDict):
    """What was typed."""

    baseline: Path | None
    fail_on: Literal["regression", "change", "nothing"]
    varies: tuple[str, ...]
    level: float
    tolerate: float
    force: bool


class _Percent(click.ParamType[float]):
    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            share = float(str(value).removesuffix("%")) / 100
        except ValueError:
            share = -1.0
        if not 0 <= share <= 10:
            self.fail(f"{value!r} is not a percentage; write for example 5%", param, ctx)
        return share


_OPTIONS = (
    click.option(
        "--baseline",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Hold the run against this file, made by `orchestrator baseline`.",
    ),
    click.option(
        "--fail-on",
        type=Choice(["regression", "change", "nothing"]),
        default="regression",
        show_default=True,
        help="With --baseline: the outcome that ends with exit code 1.",
    ),
    click.option(
        "--varies",
        type=Choice(VARIES),
        multiple=True,
        help="What is meant to differ from the baseline, such as the kernel under test.",
    ),
    click.option(
        "--level",
        type=click.FloatRange(0, 0.5, min_open=True),
        default=0.05,
        show_default=True,
        help="Chance of even one false alarm among the metrics of an arm.",
    ),
    click.option(
        "--tolerate",
        type=_Percent(),
        default="0%",
        show_default=True,
        metavar="PERCENT",
        help="A metric that is worse by less than this share of the baseline is no regression.",
    ),
    click.option("--force", is_flag=True, help="Compare with the baseline what is refused, and say so."),
)


def gate_options(command: Command) -> Command:
    """The options of `GateWords`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def gate_of(words: GateWords) -> Gate | None:
    """The gate that was asked for; None where there is none. Raises BadInputError for no baseline."""
    from orchestrator.stats import FEWEST
    from orchestrator.verdict import Gate, read_baseline

    path = words["baseline"]
    if path is None:
        if words["varies"] or words["tolerate"] or words["force"]:
            raise click.UsageError("--varies, --tolerate and --force are for --baseline FILE.")
        return None
    baseline = read_baseline(path)
    few = [arm for arm in baseline.arms if len(set(arm.boots())) < FEWEST]
    if few:
        told = ", ".join(f"{arm.name} {arm.of_boots}" for arm in few)
        err.print(
            f"[yellow]the baseline has too few boots ({escape(told)}; at least {FEWEST} needed): "
            "of these the gate can decide about lost trials only[/]"
        )
    return Gate(
        baseline=baseline,
        fail_on=words["fail_on"],
        varies=words["varies"],
        level=words["level"],
        force=words["force"],
        tolerated=words["tolerate"],
        source=str(path),
    )


def print_gate(analysis: RunAnalysis) -> None:
    """What the baseline says of a run, and what to type next; nothing where there is none."""
    from orchestrator.analysis.gate import next_words, outcome_sentences, verdict_line

    outcome = analysis.verdicts.gate
    if outcome is None:
        return
    for sentence in outcome_sentences(outcome):
        out.print(escape(sentence))
    look, verdict = verdict_line(outcome)
    out.print(f"[{_COLOURS[look]}]{escape(verdict)}[/]")
    for words in next_words(outcome, str(analysis.run.directory)):
        print_next(words)
