"""The conclusions: sentences, a small table, and expectations that were not met."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from orchestrator.analysis import differences
from orchestrator.analysis.arm_table import AFTER_KILLS
from orchestrator.analysis.conclusions import FIRST
from orchestrator.analysis.differences import DifferenceRow
from orchestrator.analysis.gate import change_in_words, gate_line
from orchestrator.analysis.run import RunAnalysis
from orchestrator.analysis.text import clean, counted
from orchestrator.errors import BadInputError
from orchestrator.report.section import SECTIONS, Section
from orchestrator.stats import Significance
from orchestrator.verdict import Comparison, PairOfArms, RunVerdicts

_MOST_FAILING: Final = 3  # metrics that kept no baseline, in the first screen
_MOST_FIRST: Final = 4  # arms in the first screen; the section below has all


@dataclass(frozen=True)
class FirstCell:
    """A difference in short: `+4 MiB`, and under it the interval and what may be said of it."""

    text: str
    note: str


@dataclass(frozen=True)
class FirstTable:
    """Differences from the first arm in what a reader asks first; `notes` are warnings."""

    base: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, int, tuple[FirstCell, ...]], ...]
    notes: tuple[str, ...]


@SECTIONS.register("conclusions")
@dataclass(frozen=True)
class Answer(Section):
    """Sentences, and what their figures are; `status_lines` are (how it is to look, sentence)."""

    order: ClassVar = 10
    title: ClassVar = ""  # it needs no heading: it is what the page begins with

    sentences: tuple[str, ...]
    statistic: tuple[str, ...]
    first_table: FirstTable | None
    status_lines: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self:
        return cls(
            tuple(clean(sentence, 1000) for sentence in analysis.conclusions),
            tuple(analysis.statistic),
            first_table(analysis.verdicts.comparison),
            tuple(status_lines(analysis.verdicts, len(analysis.trials))),
        )


def first_table(comparison: Comparison | None) -> FirstTable | None:
    """The differences for the first screen; None where no two arms can be compared."""
    pairs = [pair for pair in comparison.pairs if pair.metrics][:_MOST_FIRST] if comparison else []
    if not comparison or not pairs:
        return None
    shown = [(metric, label) for metric, label in FIRST if any(metric in pair.metrics for pair in pairs)]
    if not shown:
        return None
    return FirstTable(
        base=clean(pairs[0].first.name, 60),
        columns=tuple(label for _, label in shown),
        rows=tuple(
            (
                clean(pair.second.name, 60),
                _place(comparison, pair) + 1,
                tuple(_first_cell(_rows(comparison, pair).get(metric)) for metric, _ in shown),
            )
            for pair in pairs
        ),
        notes=tuple(_warnings(comparison, pairs)),
    )


def status_lines(verdicts: RunVerdicts, trials: int) -> Iterator[tuple[str, str]]:
    """Sentences for the first screen, each with how it is to look: expectations, and trials left out."""
    yield from _expectations(verdicts)
    if verdicts.gate:
        look, line = gate_line(verdicts.gate)
        yield look, f"{line[0].upper()}{line[1:]}."
        yield from (("bad", f"{change_in_words(one)}.") for one in verdicts.gate.failing[:_MOST_FAILING])
    left_out = verdicts.comparison.left_out if verdicts.comparison else ()
    counted_out = [why for _, why in left_out if why != "is a warm-up"]
    if counted_out:
        yield "poor", f"{len(counted_out)} of {counted(trials, 'trial')} excluded: see Excluded trials below."


def _expectations(verdicts: RunVerdicts) -> Iterator[tuple[str, str]]:
    try:
        judged = verdicts.expectation_results
    except BadInputError as error:
        yield "bad", f"Expectations cannot be judged: {clean(error.brief, 300)}."
        return
    missed = [one for one in judged if not one.met]
    if missed:
        words, found = clean(missed[0].expectation, 300), clean(missed[0].found, 300)
        more = f" (and {len(missed) - 1} more, see Expectations)" if len(missed) > 1 else ""
        of = counted(len(judged), "expectation")
        yield "bad", f"{len(missed)} of {of} not met: {words}, but: {found}{more}."
    elif judged:
        n = len(judged)
        yield "good", "The expectation is met." if n == 1 else f"All {n} expectations are met."


def _place(comparison: Comparison, pair: PairOfArms) -> int:
    return next(index for index, one in enumerate(comparison.pairs) if one is pair)


def _rows(comparison: Comparison, pair: PairOfArms) -> dict[str, DifferenceRow]:
    groups = differences.difference_groups(comparison, pair)
    return {row.metric: row for group in groups for row in group.rows}


def _first_cell(row: DifferenceRow | None) -> FirstCell:
    if row is None:
        return FirstCell("", "")
    few = row.significance == Significance.TOO_FEW_BOOTS.value  # a sentence below says so, once
    killed = AFTER_KILLS if AFTER_KILLS in row.note else ""
    parts = (row.interval, "" if few else row.significance, killed)
    return FirstCell(row.difference, ", ".join(filter(None, parts)))


def _warnings(comparison: Comparison, pairs: Sequence[PairOfArms]) -> Iterator[str]:
    for reason in comparison.forced:
        yield clean(f"Compared although not comparable (--force): {reason}.", 300)
    yield from (clean(f"{note[0].upper()}{note[1:]}.", 600) for note in comparison.notes)
    few = dict.fromkeys(
        sentence
        for pair in pairs
        for sentence in differences.significance_sentences(comparison, pair)
        if "too few" in sentence
    )
    yield from few
    if any(found.interval for pair in pairs for found in pair.metrics.values()):
        yield "Differences are of means over boots; ranges are their 95 % intervals."
