"""What may be said of a run, for its page: expectations, differences of arms, trials that do not count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.analysis import differences
from orchestrator.analysis.arms import RunView
from orchestrator.analysis.differences import DifferenceGroup, DifferenceRow
from orchestrator.analysis.gate import change_in_words, verdict_line
from orchestrator.analysis.text import clean, count
from orchestrator.errors import BadInputError
from orchestrator.verdict import (
    Comparison,
    Judgement,
    Outcome,
    PairOfArms,
    compare_arms,
    figures_of,
    judge,
    read_outcome,
)

# What a reader asks first: how much came back, and what became of page tables.
_FIRST: Final = (
    ("unplug_achieved_bytes", "given back by unplug"),
    ("guest_page_table_bytes_end", "page tables at the end"),
    ("blocks_pinned_page_table", "blocks that hold a page table"),
)
_SAID: Final = {
    "different": "more than chance",
    "no difference detected": "no difference detected",
    "the same in all trials": "the same in all trials",
}
_MOST_FAILING: Final = 3  # metrics that kept no baseline, in the first screen
_MOST_FIRST: Final = 4  # arms in the first screen; the section below has all


@dataclass(frozen=True)
class Verdicts:
    """What was judged. `problem` says why expectations could not be."""

    comparison: Comparison | None
    judgements: tuple[Judgement, ...]
    problem: str = ""
    gate: Outcome | None = None


@dataclass(frozen=True)
class FirstCell:
    """A difference in short: `+4 MiB`, and under it the interval and what may be said of it."""

    text: str
    note: str


@dataclass(frozen=True)
class FirstTable:
    """Differences from the first arm in what a reader asks first; `said` is a warning, or what was forced."""

    base: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, int, tuple[FirstCell, ...]], ...]
    said: tuple[str, ...]


@dataclass(frozen=True)
class Expected:
    """An expectation as a line of a table."""

    words: str
    found: str
    met: bool


@dataclass(frozen=True)
class PairSection:
    """Two arms: who, what may be said, every metric. `colour` is the second arm's."""

    place: str
    heading: str
    colour: int
    sentences: tuple[str, ...]
    first: str
    second: str
    groups: tuple[DifferenceGroup, ...]
    marks: str


def judged(view: RunView) -> Verdicts:
    """Arms against the first one, and expectations; of an unfinished run what there is.

    Arms that `compare` would refuse are compared: the page says for what reason it would.
    """
    summaries = [trial.summary for trial in view.trials]
    problem, judgements = "", []
    try:
        judgements = judge(view.run, summaries)
    except BadInputError as error:
        problem = clean(error.brief, 300)
    figures = figures_of(view.run, summaries)
    comparison = compare_arms(figures, force=True) if figures.arms else None
    return Verdicts(comparison, tuple(judgements), problem, read_outcome(view.run.directory))


def first_table(verdicts: Verdicts) -> FirstTable | None:
    """The differences for the first screen; None where no two arms can be compared."""
    comparison = verdicts.comparison
    pairs = [pair for pair in comparison.pairs if pair.metrics][:_MOST_FIRST] if comparison else []
    if not comparison or not pairs:
        return None
    shown = [(metric, label) for metric, label in _FIRST if any(metric in pair.metrics for pair in pairs)]
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
        said=tuple(_warnings(comparison, pairs)),
    )


def expectations(verdicts: Verdicts) -> list[Expected]:
    """In the order of the scenario."""
    return [Expected(clean(one.words, 300), clean(one.found, 300), one.met) for one in verdicts.judgements]


def in_short(verdicts: Verdicts, trials: int) -> Iterator[tuple[str, str]]:
    """Sentences for the first screen, each with how it is to look: expectations, and trials left out."""
    if verdicts.problem:
        yield "bad", f"Whether it came out as expected cannot be said: {verdicts.problem}."
    missed = [one for one in expectations(verdicts) if not one.met]
    if missed:
        more = f" (and {len(missed) - 1} more, see Expectations)" if len(missed) > 1 else ""
        of = _counted(len(verdicts.judgements), "expectation")
        yield "bad", f"{len(missed)} of {of} not met: {missed[0].words}, but: {missed[0].found}{more}."
    elif verdicts.judgements:
        n = len(verdicts.judgements)
        yield "good", "The expectation is met." if n == 1 else f"All {n} expectations are met."
    if verdicts.gate:
        look, verdict = verdict_line(verdicts.gate)
        yield look, f"{verdict[0].upper()}{verdict[1:]}."
        yield from (("bad", f"{change_in_words(one)}.") for one in verdicts.gate.failing[:_MOST_FAILING])
    counted_out = [why for _, why in _left_out(verdicts) if why != "is a warm-up"]
    if counted_out:
        yield "poor", f"{len(counted_out)} of {_counted(trials, 'trial')} in no average: see Left out below."


def left_out(verdicts: Verdicts) -> list[tuple[str, str]]:
    """Trials that are in no average, and why."""
    return [(clean(trial, 80), clean(f"it {why}", 300)) for trial, why in _left_out(verdicts)]


def pair_sections(verdicts: Verdicts) -> list[tuple[PairOfArms, PairSection]]:
    """Each arm against the first one, in full."""
    comparison = verdicts.comparison
    if comparison is None:
        return []
    made = []
    for pair in comparison.pairs:
        groups = tuple(differences.difference_groups(comparison, pair))
        index = _place(comparison, pair)
        section = PairSection(
            place=f"chart-differences-{index}",
            heading=differences.heading(comparison, pair),
            colour=index + 1,
            sentences=tuple(differences.verdict_sentences(comparison, pair)),
            first=clean(pair.first.name, 40),
            second=clean(pair.second.name, 40),
            groups=groups,
            marks=", ".join(differences.marked(groups)),
        )
        made.append((pair, section))
    return made


def _place(comparison: Comparison, pair: PairOfArms) -> int:
    return next(index for index, one in enumerate(comparison.pairs) if one is pair)


def _rows(comparison: Comparison, pair: PairOfArms) -> dict[str, DifferenceRow]:
    groups = differences.difference_groups(comparison, pair)
    return {row.metric: row for group in groups for row in group.rows}


def _first_cell(row: DifferenceRow | None) -> FirstCell:
    if row is None:
        return FirstCell("", "")
    said = _SAID.get(row.verdict, "")
    return FirstCell(row.difference, ", ".join(part for part in (row.interval, said) if part))


def _warnings(comparison: Comparison, pairs: Sequence[PairOfArms]) -> Iterator[str]:
    for reason in comparison.forced:
        yield clean(f"Compared although it differs: {reason}.", 300)
    few = dict.fromkeys(
        sentence
        for pair in pairs
        for sentence in differences.verdict_sentences(comparison, pair)
        if "too few" in sentence
    )
    yield from few
    if any(found.interval for pair in pairs for found in pair.metrics.values()):
        yield "Ranges are 95 % intervals of the difference."


def _left_out(verdicts: Verdicts) -> Sequence[tuple[str, str]]:
    return verdicts.comparison.left_out if verdicts.comparison else ()


def _counted(n: int, thing: str) -> str:
    return f"{count(n)} {thing}{'' if n == 1 else 's'}"
