"""Differences between arms, as rows of a table and as sentences: the same for the page and the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from orchestrator.analysis.arm_table import AFTER_KILLS, OTHER, ROWS, condition_note
from orchestrator.analysis.oom_kills import END
from orchestrator.analysis.scale import bytes_axis, seconds_axis
from orchestrator.analysis.text import clean, counted, quantity, signed
from orchestrator.records.accel import is_emulated
from orchestrator.stats import Difference, Significance
from orchestrator.summary import METRIC
from orchestrator.verdict import Comparison, PairOfArms

_MOST_NAMED: Final = 6  # metrics in one sentence
# What people read; JSON has the values of `Significance`.
_SIGNS: Final = {Significance.SIGNIFICANT: "*", Significance.IDENTICAL: "="}


@dataclass(frozen=True)
class DifferenceRow:
    """A metric of two arms. `sign` is `*` for significant, `=` for identical in all trials, else empty."""

    metric: str
    label: str
    first: str
    second: str
    difference: str
    interval: str
    relative: str
    detectable: str
    significance: str
    sign: str
    noise: str
    predicted: bool
    note: str = ""


@dataclass(frozen=True)
class DifferenceGroup:
    """Rows under one heading."""

    title: str
    rows: tuple[DifferenceRow, ...]


def difference_groups(comparison: Comparison, pair: PairOfArms) -> list[DifferenceGroup]:
    """What two arms differ in, under the headings of the table of arms."""
    groups = []
    for title, metrics in ROWS:
        rows = tuple(
            _row(comparison, pair, metric, label) for metric, label in metrics if metric in pair.metrics
        )
        if rows:
            groups.append(DifferenceGroup(title, rows))
    return groups


def heading(comparison: Comparison, pair: PairOfArms) -> str:
    """Which arms, and how their trials belong together."""
    one, other = clean(pair.first.name, 40), clean(pair.second.name, 40)
    if comparison.base != comparison.other:
        one, other = f"{one} of {clean(comparison.base, 60)}", f"{other} of {clean(comparison.other, 60)}"
    pairs, boots = counted(len(pair.pairs), "pair"), counted(pair.units, "boot")
    how = {
        "state": f"{pairs} of trials of {boots}, paired by boot",
        "repeat": f"{pairs} of trials of {boots} of each arm, paired by seed",
        "none": f"{pair.of_boots}, not paired",
    }[pair.pairing]
    how += f", within {counted(len(pair.hosts), 'host')}" if pair.hosts else ""
    return f"{other} against {one}: {how}"


def significance_sentences(comparison: Comparison, pair: PairOfArms) -> list[str]:
    """What differs significantly between two arms, and what does not."""
    found = pair.metrics
    named = {word: [name for name in found if found[name].significance is word] for word in Significance}
    sentences = [f"{clean(note, 300)}." for note in pair.notes]
    if not found:
        why = clean(f"Not compared: {pair.incomparable}.", 400) if pair.incomparable else ""
        sentences.append(why or "No metric was measured in both.")
    few = named[Significance.TOO_FEW_BOOTS]
    if few:
        n = min(found[name].n for name in few)
        sentences.append(
            f"{pair.of_boots}: {counted(n, 'boot')} to compare, too few for intervals. "
            f"At least {pair.fewest} boots needed (`repeats`, `boots`)."
        )
    if named[Significance.SIGNIFICANT]:
        sentences.append(
            f"Significant (family-wise error rate over {counted(pair.tested, 'metric')}: at most "
            f"{comparison.level:.0%}): {_list(named[Significance.SIGNIFICANT])}."
        )
    if pair.lost and pair.lost_counts and pair.lost.significance is not Significance.IDENTICAL:
        counts = pair.lost_counts
        than = pair.lost.significance.value
        sentences.append(
            f"Trials of {counts.second} of {counted(counts.of_second, 'boot')} failed (lost, timed out or "
            f"not settled), against {counts.first} of {counts.of_first}: {than}."
        )
    if named[Significance.NOT_SIGNIFICANT]:
        parts = [
            f"{label_of(name)}{_detectable(name, found[name])}"
            for name in named[Significance.NOT_SIGNIFICANT]
        ]
        sentences.append(f"Not significant: {limited(parts)}.")
    if named[Significance.IDENTICAL]:
        sentences.append(f"Identical in all trials: {_list(named[Significance.IDENTICAL])}.")
    return sentences


STATISTIC: Final = (
    "Values of an arm are medians over its trials; a difference is of means over boots (of pairs: their mean "
    "difference), so that it need not be that of the medians."
)


def correction_note(pair: PairOfArms, level: float) -> tuple[str, bool]:
    """Why an interval and the significance beside it may disagree, and whether any here do; empty without
    intervals."""
    there = {name: one for name, one in pair.metrics.items() if one.interval}
    if not there:
        return "", False
    apart = [
        name
        for name, one in there.items()
        if one.significance is Significance.NOT_SIGNIFICANT
        and one.interval
        and not one.interval.low <= 0 <= one.interval.high
    ]
    here = f": here {_list(apart)}" if apart else ""
    tested = counted(pair.tested, "metric")
    note = (
        "An interval is that of one metric by itself (95 %). Significant is more: its p, adjusted for a test "
        f"of {tested} at once (Holm), is at most {level:.0%}. So an interval may exclude 0 where the "
        f"difference is not significant{here}."
    )
    return note, bool(apart)


def missing_sentences(pair: PairOfArms) -> list[str]:
    """Metrics that are not compared, with the reason; those of one reason in one sentence.

    Where all that a heading has are missing for one reason, the heading stands for them.
    """
    by_reason: dict[str, list[str]] = {}
    for title, rows in ROWS:
        reasons = {pair.missing.get(metric) for metric, _ in rows}
        if len(rows) > 1 and len(reasons) == 1 and (why := reasons.pop()):
            by_reason.setdefault(why, []).append(title.lower())
            continue
        for metric, _ in rows:
            if metric in pair.missing:
                by_reason.setdefault(pair.missing[metric], []).append(label_of(metric))
    return [f"Not compared: {limited(names)}: {clean(why, 200)}." for why, names in by_reason.items()]


def excluded_sentences(left_out: Sequence[tuple[str, str]]) -> list[str]:
    """Trials that are excluded from averages, and the reason."""
    return [f"{clean(trial, 80)} is excluded: it {clean(why, 200)}" for trial, why in left_out]


def comparison_as_json(comparison: Comparison) -> dict[str, Any]:
    """Plain numbers, for `--json`; bytes and seconds."""
    return {
        "base": comparison.base,
        "other": comparison.other,
        "level": comparison.level,
        "seed": comparison.seed,
        "forced": list(comparison.forced),
        "notes": list(comparison.notes),
        "excluded": [{"trial": trial, "reason": why} for trial, why in comparison.left_out],
        "noise_floor": dict(comparison.noise),
        "pairs": [_pair_as_json(pair) for pair in comparison.pairs],
    }


def _pair_as_json(pair: PairOfArms) -> dict[str, Any]:
    return {
        "base_arm": pair.first.name,
        "arm": pair.second.name,
        "pairing": pair.pairing,
        "hosts": list(pair.hosts),
        "notes": list(pair.notes),
        "tested": pair.tested,
        "metrics": {name: _difference_as_json(name, pair, one) for name, one in pair.metrics.items()},
        "missing": dict(pair.missing),
        "boots": {
            "base": len(set(pair.first.boots())),
            "arm": len(set(pair.second.boots())),
            "pairs": pair.units,
        },
        "trials": {"base": len(pair.first.trials), "arm": len(pair.second.trials), "pairs": len(pair.pairs)},
        "lost_trials": _lost_as_json(pair),
    }


def _lost_as_json(pair: PairOfArms) -> dict[str, Any] | None:
    """Boots of which a trial was lost, timed out or did not settle."""
    if pair.lost is None or pair.lost_counts is None:
        return None
    counts = pair.lost_counts
    return {
        "base_boots": counts.first,
        "base_boots_tried": counts.of_first,
        "boots": counts.second,
        "boots_tried": counts.of_second,
        "p": pair.lost.p,
        "p_adjusted": pair.lost.p_adjusted,
        "significance": pair.lost.significance.value,
    }


def _difference_as_json(name: str, pair: PairOfArms, one: Difference) -> dict[str, Any]:
    interval = one.interval
    return {
        "unit": METRIC[name].unit,
        "origin": "predicted" if METRIC[name].predicted else "measured",
        "base_median": median(pair.first.values(name)),
        "median": median(pair.second.values(name)),
        "n": one.n,
        "trials": one.trials,
        "difference": one.estimate,
        "relative": one.relative,
        "interval": [interval.low, interval.high] if interval else None,
        "confidence": interval.confidence if interval else None,
        "effect": one.effect,
        "p": one.p,
        "p_adjusted": one.p_adjusted,
        "detectable": one.detectable,
        "significance": one.significance.value,
    }


def _row(comparison: Comparison, pair: PairOfArms, metric: str, label: str) -> DifferenceRow:
    found, unit = pair.metrics[metric], METRIC[metric].unit
    floor = comparison.noise.get(metric)
    difference, interval = with_sign(found, unit)
    return DifferenceRow(
        metric=metric,
        label=label,
        first=quantity(median(pair.first.values(metric)), unit),
        second=quantity(median(pair.second.values(metric)), unit),
        difference=difference,
        interval=interval,
        relative="" if found.relative is None else f"{found.relative:+.1%}",
        detectable="" if found.detectable is None else quantity(found.detectable, unit),
        significance=found.significance.value,
        sign=_SIGNS.get(found.significance, ""),
        noise="" if floor is None else quantity(floor, unit),
        predicted=METRIC[metric].predicted,
        note=_note(metric, pair),
    )


def _note(metric: str, pair: PairOfArms) -> str:
    """What the table of arms says beside the same metric."""
    both = (pair.first, pair.second)
    restored = any(trial.state for arm in both for trial in arm.trials)
    tcg = any(is_emulated(word) for arm in both for word in arm.accel.split())
    killed = metric == END and any(sum(arm.values("guest_oom_kills")) for arm in both)
    notes = (AFTER_KILLS if killed else "", condition_note(metric, tcg=tcg, restored=restored))
    return ", ".join(filter(None, notes))


def with_sign(found: Difference, unit: str) -> tuple[str, str]:
    """A difference with its sign, and its interval in the same unit: `-99.5 MiB`, `-99.7 to -99.2`."""
    ends = (found.interval.low, found.interval.high) if found.interval else ()
    largest = max(abs(value) for value in (found.estimate, *ends))
    factor, suffix = _scale(largest, unit)
    text, low, high = (signed(value / factor) for value in (found.estimate, *(ends or (0.0, 0.0))))
    return f"{text} {suffix}".strip(), f"{low} to {high}" if ends else ""


def _scale(largest: float, unit: str) -> tuple[float, str]:
    if unit == "bytes":
        axis = bytes_axis(largest)
        return axis.factor, axis.unit
    if unit == "seconds":
        axis = seconds_axis(largest)
        return axis.factor, axis.unit
    return 1.0, {"1/s": "/s"}.get(unit, "")


def _detectable(metric: str, found: Difference) -> str:
    if found.detectable is None:
        return ""
    return f" (detectable from about {quantity(found.detectable, METRIC[metric].unit)})"


def _list(metrics: Sequence[str]) -> str:
    return limited([label_of(metric) for metric in metrics])


def limited(parts: Sequence[str]) -> str:
    """A list in words, not all of a long one."""
    more = [f"{len(parts) - _MOST_NAMED} more"] if len(parts) > _MOST_NAMED else []
    shown = [*parts[:_MOST_NAMED], *more]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def label_of(metric: str) -> str:
    """A metric where no heading stands above it: `hot-unplug: unplugged`."""
    return next(
        f"{title.lower()}: {label}" if title != OTHER else label
        for title, rows in ROWS
        for name, label in rows
        if name == metric
    )


def marked(groups: Sequence[DifferenceGroup]) -> Iterator[str]:
    """What the signs in these rows mean."""
    signs = {row.sign for group in groups for row in group.rows}
    if "*" in signs:
        yield "* significant"
    if "=" in signs:
        yield "= identical in all trials"
