"""What a baseline says of a run, in words."""

from __future__ import annotations

from orchestrator.report.text import clean, percent, quantity
from orchestrator.summary import METRIC
from orchestrator.verdict.gate import Change, Outcome


def change_in_words(change: Change) -> str:
    """`unplug_shortfall_bytes of linux-7.x: 12 MiB more than the baseline [8 MiB, 16 MiB], +10 %`."""
    unit = METRIC[change.metric].unit
    more = "more" if change.estimate > 0 else "less"
    text = f"{change.metric} of {clean(change.arm, 60)}: {quantity(abs(change.estimate), unit)} {more}"
    text += " than the baseline"
    if change.low is not None and change.high is not None:
        text += f" [{_signed(change.low, unit)}, {_signed(change.high, unit)}]"
    if change.relative is not None:
        text += f", {'+' if change.relative > 0 else '-'}{percent(abs(change.relative), 1.0)}"
    return text


def outcome_sentences(outcome: Outcome) -> list[str]:
    """What the gate found, the worst first."""
    said = []
    if outcome.refused:
        said.append(f"Not comparable with the baseline {outcome.baseline}: {clean(outcome.refused, 600)}.")
    said += [f"Compared by force although it differs: {clean(why, 300)}." for why in outcome.forced]
    for word in ("regression", "change", "improvement"):
        found = (one for one in outcome.changes if one.word == word)
        said += [f"{word.capitalize()}: {change_in_words(one)}." for one in found]
    undecided = sum(one.word == "undecided" for one in outcome.changes)
    if undecided:
        said.append(f"{undecided} metrics have too few trials to say (5 of each are the least).")
    same = sum(one.word == "none" for one in outcome.changes)
    if same and not outcome.refused:
        said.append(f"{same} metrics differ from the baseline {outcome.baseline} by no more than chance.")
    return said


def _signed(value: float, unit: str) -> str:
    return f"{'-' if value < 0 else ''}{quantity(abs(value), unit)}"
