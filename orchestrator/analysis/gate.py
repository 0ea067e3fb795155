"""The comparison of a run with a baseline, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.analysis.differences import limited
from orchestrator.analysis.text import clean, percent, quantity
from orchestrator.stats import FEWEST, LEVEL
from orchestrator.summary import METRIC
from orchestrator.verdict import LOST
from orchestrator.verdict.gate import Change, GateResult


def change_in_words(change: Change) -> str:
    """`unplug_shortfall_bytes of linux-7.x: 12 MiB more than the baseline [8 MiB, 16 MiB], +10 %`."""
    name = f"{change.metric} of {clean(change.arm, 60)}"
    if change.estimate is None or change.metric == LOST:
        return f"{name}: {clean(change.reason, 200)}"
    unit = METRIC[change.metric].unit
    more = "more" if change.estimate > 0 else "less"
    text = f"{name}: {quantity(abs(change.estimate), unit)} {more} than the baseline"
    if change.low is not None and change.high is not None:
        text += f" [{quantity(change.low, unit)}, {quantity(change.high, unit)}]"
    if change.relative is not None:
        text += f", {'+' if change.relative > 0 else '-'}{percent(abs(change.relative), 1.0)}"
    if change.before is not None and change.after is not None:
        text += f" (median {quantity(change.before, unit)} before, {quantity(change.after, unit)} now)"
    return f"{text}: {clean(change.reason, 200)}" if change.reason else text


def gate_sentences(outcome: GateResult) -> list[str]:
    """What the gate found, the worst first."""
    sentences = []
    if outcome.refused:
        sentences.append(
            f"Not comparable with the baseline {clean(outcome.baseline)}: {clean(outcome.refused, 600)}."
        )
    sentences += [f"Compared although not comparable (--force): {clean(why, 300)}." for why in outcome.forced]
    sentences += [f"Note: {clean(note, 300)}." for note in outcome.notes]
    for word, title in (
        ("regression", "Regression"),
        ("change", "Change"),
        ("tolerated", f"Worse, by less than the {percent(outcome.tolerance, 1.0)} of it that is tolerated"),
        ("improvement", "Improvement"),
    ):
        found = (one for one in outcome.changes if one.result == word)
        sentences += [f"{title}: {change_in_words(one)}." for one in found]
    sentences += _undecided(outcome)
    same = sum(one.result == "none" and one.metric != LOST for one in outcome.changes)
    if same and not outcome.refused:
        sentences.append(
            f"{same} metrics do not differ significantly from the baseline {clean(outcome.baseline)}."
        )
    return sentences


def gate_line(outcome: GateResult) -> tuple[str, str]:
    """The result in a line, and how it is to look: `good`, `poor` (it was not decided) or `bad`."""
    against = clean(outcome.baseline)
    if outcome.refused:
        return ("poor" if outcome.passed else "bad"), f"not comparable with the baseline {against}"
    if outcome.undecided_arms and not outcome.failing:
        arms = limited([clean(arm, 60) for arm in outcome.undecided_arms])
        look = "poor" if outcome.passed else "bad"
        return look, f"baseline: not decided, there are too few boots or readings of {arms} ({against})"
    if not outcome.passed:
        return (
            "bad",
            f"baseline: failed ({len(outcome.failing)} of {_compared(outcome)} metrics, {against})",
        )
    worse = sum(one.result == "regression" for one in outcome.changes)
    if worse:
        return "poor", f"baseline: {worse} regressions, which do not fail the run ({against})"
    return "good", f"baseline: passed ({against})"


def next_commands(outcome: GateResult, run: str) -> Iterator[str]:
    """Commands that show more, or accept or decide the result."""
    if outcome.refused:
        yield f"orchestrator compare {outcome.source} {run} --varies KEY   where KEY is what you compare"
        return
    more = "".join(f" --varies {key}" for key in outcome.varies)
    more += f" --alpha {outcome.level:g}" if outcome.level != LEVEL else ""
    more += " --force" if outcome.forced else ""
    yield f"orchestrator compare {outcome.source} {run}{more}   has every metric"
    if not outcome.passed and (outcome.failing or not outcome.undecided_arms):
        yield f"orchestrator baseline {run} -o {outcome.source}   to accept this run as the new baseline"
    elif not outcome.passed:
        yield f"run both again with `repeats` and `boots` of at least {FEWEST}   for a gate to decide"


def _compared(outcome: GateResult) -> int:
    """How many metrics were compared with the baseline; lost trials are one where they fail."""
    return sum(one.metric != LOST or one in outcome.failing for one in outcome.changes)


def _undecided(outcome: GateResult) -> Iterator[str]:
    """One sentence for each arm and reason: it is mostly the same for all metrics."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for one in outcome.changes:
        if one.result == "undecided":
            by_reason.setdefault((one.arm, one.reason), []).append(one.metric)
    for (arm, reason), metrics in by_reason.items():
        yield f"Undecided of {clean(arm, 60)}: {limited(metrics)}: {clean(reason, 200)}."
