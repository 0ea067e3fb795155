"""Options by which a run is compared with a baseline, and what is printed of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

import click
from rich.markup import escape

from orchestrator.cli.compare import VARIES
from orchestrator.cli.options import Choice, Renamed
from orchestrator.cli.output import err, out, print_next

if TYPE_CHECKING:
    from orchestrator.analysis.run import RunAnalysis
    from orchestrator.verdict import Gate

Command = TypeVar("Command", bound=Callable[..., Any])

_COLOURS = {"good": "green", "poor": "yellow", "bad": "red"}


class GateOptions(TypedDict):
    """The options as parsed."""

    baseline: Path | None
    fail_on: Literal["regression", "change", "nothing"]
    varies: tuple[str, ...]
    level: float
    tolerance: float
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
        help="Compare the run with this file of `orchestrator baseline`.",
    ),
    click.option(
        "--fail-on",
        type=Choice(["regression", "change", "nothing"]),
        default="regression",
        show_default=True,
        help="With --baseline: the result that ends with exit code 1.",
    ),
    click.option(
        "--varies",
        type=Choice(VARIES),
        multiple=True,
        help="What is meant to differ from the baseline, such as the kernel under test.",
    ),
    click.option(
        "--alpha",
        "--level",
        "level",
        cls=Renamed,
        type=click.FloatRange(0, 0.5, min_open=True),
        default=0.05,
        show_default=True,
        help="Family-wise error rate over the metrics of an arm.",
    ),
    click.option(
        "--tolerance",
        "--tolerate",
        "tolerance",
        cls=Renamed,
        type=_Percent(),
        default="0%",
        show_default=True,
        metavar="PERCENT",
        help="A metric that is worse by less than this share of the baseline is no regression.",
    ),
    click.option("--force", is_flag=True, help="Compare with a baseline that is not comparable, and say so."),
)


def gate_options(command: Command) -> Command:
    """The options of `GateOptions`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def gate_of(options: GateOptions) -> Gate | None:
    """The gate of these options; None without a baseline. Raises BadInputError for a bad one."""
    from orchestrator.stats import FEWEST
    from orchestrator.verdict import Gate, read_baseline

    path = options["baseline"]
    if path is None:
        if options["varies"] or options["tolerance"] or options["force"]:
            raise click.UsageError("--varies, --tolerance and --force are for --baseline FILE.")
        return None
    baseline = read_baseline(path)
    few = [arm for arm in baseline.arms if len(set(arm.boots())) < FEWEST]
    if few:
        short = ", ".join(f"{arm.name} {arm.of_boots}" for arm in few)
        err.print(
            f"[yellow]the baseline has too few boots ({escape(short)}; at least {FEWEST} needed): "
            "of these arms the gate can judge lost trials only[/]"
        )
    return Gate(
        baseline=baseline,
        fail_on=options["fail_on"],
        varies=options["varies"],
        level=options["level"],
        force=options["force"],
        tolerance=options["tolerance"],
        source=str(path),
    )


def print_gate(analysis: RunAnalysis) -> None:
    """The result of the gate, and the next commands; nothing without a baseline."""
    from orchestrator.analysis.gate import gate_line, gate_sentences, next_commands

    outcome = analysis.verdicts.gate
    if outcome is None:
        return
    for sentence in gate_sentences(outcome):
        out.print(escape(sentence))
    look, line = gate_line(outcome)
    out.print(f"[{_COLOURS[look]}]{escape(line)}[/]")
    for command in next_commands(outcome, str(analysis.run.directory)):
        print_next(command)
