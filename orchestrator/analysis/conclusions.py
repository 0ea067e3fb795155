"""The conclusions of a run, in sentences. Every number in a sentence is in a table of the page, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from orchestrator.analysis.arm_table import ROWS, about_same
from orchestrator.analysis.arms import ArmView, RunView
from orchestrator.analysis.differences import label_of, limited, with_sign
from orchestrator.analysis.findings import finding_sentences
from orchestrator.analysis.oom_kills import END, kill_sentences, killed_workloads
from orchestrator.analysis.pinning import PinningClass, pinning_view
from orchestrator.analysis.second_level import most_kept
from orchestrator.analysis.text import class_words, clean, count, percent, size
from orchestrator.stats import Significance
from orchestrator.store import Status
from orchestrator.summary import METRIC
from orchestrator.verdict import Comparison

_FEW_ARMS = 4
# What a reader asks first, in a table of its own: how much was unplugged, and how many page tables are left.
FIRST: Final = (
    ("unplug_achieved_bytes", "unplugged"),
    ("guest_page_table_bytes_end", "page tables at the end"),
    ("blocks_pinned_page_table", "blocks that contain a page table"),
)
# Memory unplugged beyond the other arm's, as a share of the table bytes freed, that a reader calls little.
_LITTLE_SHARE = 0.25


def conclusions(view: RunView, comparison: Comparison | None = None) -> list[str]:
    """Up to some eight sentences: OOM kills if there were any, how it ended, page tables, memory unplugged,
    what pins the rest, what would free most of that, and what else `comparison` has that is significant."""
    arms = view.arms[:_FEW_ARMS]
    balanced = len({tuple(sorted(trial.summary.host for trial in arm.counted)) for arm in arms}) < 2
    balanced |= len({trial.summary.host for arm in arms for trial in arm.counted}) < 2
    sentences = [
        *kill_sentences(view),
        *_state(view),
        *finding_sentences(view),
        *_second_level(arms),
        *_page_tables(arms, alike=balanced),
        *_given_back(arms),
        *_held(arms),
        *(_bytes_or_blocks(arms) if balanced else ()),
        *_most_freeable(arms),
        *_also_significant(comparison),
    ]
    if len(view.arms) > len(arms):
        sentences.append(
            f"The table below has all {len(view.arms)} arms; these sentences are about the first {len(arms)}."
        )
    return sentences or ["No trial has results yet."]


def statistic(arms: Sequence[ArmView]) -> Iterator[str]:
    """What figures of an arm are, where it has several trials."""
    if not any(len(arm.trials) > 1 for arm in arms):
        return
    bases = {arm.of_boots for arm in arms}
    if len(bases) == 1:
        yield f"Figures of an arm are medians of {bases.pop()}."
    else:
        yield f"Figures of an arm are medians: {_join([f'{_name(arm)} of {arm.of_boots}' for arm in arms])}."


def _state(view: RunView) -> Iterator[str]:
    planned, done = len(view.run.planned), view.run.done
    status = view.run.status
    if status in (Status.KILLED, Status.INTERRUPTED, Status.RUNNING, Status.UNKNOWN) and planned:
        word = {
            Status.KILLED: "The run was killed",
            Status.INTERRUPTED: "The run was interrupted",
            Status.RUNNING: "The run is still going",
            Status.UNKNOWN: "How the run ended is unknown",
        }[status]
        yield f"{word}: {done} of {planned} trials have ended; what follows is about these."
    failed = [trial for trial in view.trials if trial.failed and trial.folder and trial.folder.ended]
    if failed:
        names = ", ".join(clean(trial.summary.trial, 40) for trial in failed[:3])
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""  # as many as are named
        yield f"{len(failed)} of {len(view.trials)} trials failed ({names}{more}): see Failed trials below."


def _second_level(arms: Sequence[ArmView]) -> Iterator[str]:
    found = [(arm, kept) for arm in arms if (kept := most_kept(arm))]
    if found:
        parts = (f"{times:.1f} times with {_name(arm)} ({clean(at, 40)})" for arm, (at, times) in found)
        yield f"KVM's second-level tables, as a multiple of those needed, at most: {', '.join(parts)}."


def _page_tables(arms: Sequence[ArmView], *, alike: bool) -> Iterator[str]:
    """`alike`: arms ran equally often on each host, so that their medians can stand side by side."""
    ends = [(arm, end) for arm in arms if (end := arm.typical(END)) is not None]
    if not ends:
        return
    (first, end), *others = ends
    parts = [f"{_name(first)} ended with {size(end)} of guest page tables{_after_kill(first)}"]
    parts += [f"{_name(arm)} with {size(end)}{_after_kill(arm)}" for arm, end in others]
    sentence = ", ".join(parts)
    if not alike or any(killed_workloads(arm) for arm, _ in ends):
        yield f"{sentence}."  # what a workload that is gone has left is not to be compared
        return
    low, high = min(ends, key=_second), max(ends, key=_second)
    if len(ends) > 1:
        if about_same(low[1], high[1]):
            sentence += ": about the same"
        elif low[1] > 0:
            times = high[1] / low[1]
            # A large factor reads better than 98 %; an arm that was named last is not named again.
            sentence += f": 1/{times:,.0f} of that" if times >= 10 else f": {1 - low[1] / high[1]:.0%} less"
            sentence += f" with {_name(low[0])}" if len(ends) > 2 or low[0] is ends[0][0] else ""
    yield sentence + "."


def _after_kill(arm: ArmView) -> str:
    """That the figure is of a guest whose workload was killed."""
    killed = killed_workloads(arm)
    return f" (after {_join([clean(name, 40) for name in killed])} was killed)" if killed else ""


def _given_back(arms: Sequence[ArmView]) -> Iterator[str]:
    both = [
        (arm, asked, got)
        for arm in arms
        if (asked := arm.typical("unplug_requested_bytes"))
        and (got := arm.typical("unplug_achieved_bytes")) is not None
    ]
    if both and len({asked for _, asked, _ in both}) == 1:
        parts = [f"{size(got)} ({percent(got, asked)}) with {_name(arm)}" for arm, asked, got in both]
        yield f"Of the {size(both[0][1])} requested, unplug took {_join(parts)}."
    elif both:
        parts = [
            f"{size(got)} of {size(asked)} ({percent(got, asked)}) with {_name(arm)}"
            for arm, asked, got in both
        ]
        yield f"Unplug took {_join(parts)}."


def _held(arms: Sequence[ArmView]) -> Iterator[str]:
    held = [
        (arm, still_plugged, tables)
        for arm in arms
        if arm.typical("unplug_shortfall_bytes")
        and (still_plugged := arm.typical("blocks_plugged_after"))
        and (tables := arm.typical("blocks_pinned_page_table")) is not None
    ]
    if len(held) > 2:  # a sentence for each would be too many
        parts = [
            f"{count(tables)} of {count(still_plugged)} with {_name(arm)}"
            for arm, still_plugged, tables in held
        ]
        yield f"Of the blocks still plugged, these contain a page-table page: {_join(parts)}."
        return
    for arm, still_plugged, tables in held:
        only = arm.typical("blocks_pinned_page_table_only")
        rest = f", and {count(only)} of these have no other unmovable page" if only and tables else ""
        yield (
            f"With {_name(arm)}, {count(still_plugged)} blocks are still plugged; "
            f"{count(tables)} of them contain a page-table page{rest}."
        )


def _bytes_or_blocks(arms: Sequence[ArmView]) -> Iterator[str]:
    both = [
        (arm, end, left)
        for arm in arms
        if not killed_workloads(arm)
        and (end := arm.typical(END)) is not None
        and (left := arm.typical("unplug_shortfall_bytes")) is not None
    ]
    if len(both) < 2:  # nothing to compare
        return
    low, high = min(both, key=_second), max(both, key=_second)
    freed, gained = high[1] - low[1], high[2] - low[2]
    little = gained < freed * _LITTLE_SHARE or about_same(low[2], high[2])
    if freed > high[1] / 2 and high[2] > 0 and little:
        # Of medians: significance is in the table below, with the interval.
        more = f"came with only {size(gained)} more memory unplugged"
        more = more if gained > 0 else "came with no more memory unplugged"
        yield (
            f"So {percent(freed, high[1])} fewer page-table bytes ({size(freed)}) {more}, by the medians: "
            "unplug needs whole blocks, and one page table pins a block."
        )


def _most_freeable(arms: Sequence[ArmView]) -> Iterator[str]:
    """As in the table of what pins the blocks still plugged."""
    views = [(arm, view) for arm in arms if (view := pinning_view(arm)) and view.blamed]
    held = [(arm, view.most_freeable, pinned) for arm, view in views if (pinned := view.pinned)]
    if not held:
        return
    classes = {best.frame_class if best else "" for _, best, _ in held}
    if classes == {""}:
        yield "No single class frees one of the pinned blocks."
    elif len(classes) == 1:
        parts = [
            f"{count(best.freeable)} of {count(all_held)} with {_name(arm)}"
            for arm, best, all_held in held
            if best
        ]
        more = [max(0, round(best.freeable) - round(best.sole_blocker)) for _, best, _ in held if best]
        counts = _join([count(number) for number in more])
        memmap = f" ({counts} of them with memmap that is freed, too)" if any(more) else ""
        without = f"{class_words(classes.pop())}{memmap}"
        yield (
            f"Of the pinned blocks, {_join(parts)} would be free without {without}; "
            "no other class frees more."
        )
    else:
        parts = [f"{_gone(best, all_held)} with {_name(arm)}" for arm, best, all_held in held]
        yield f"The class without which most pinned blocks would be free: {_join(parts)}."


def _gone(best: PinningClass | None, held: float) -> str:
    words, freed = (class_words(best.frame_class), best.freeable) if best else ("none", 0)
    return f"{words} ({count(freed)} of {count(held)})"


def _also_significant(comparison: Comparison | None) -> Iterator[str]:
    """What differs significantly and is in no cell of the page's first table."""
    # The shortfall is the rest of what was unplugged.
    shown = {metric for metric, _ in FIRST} | {"unplug_shortfall_bytes"}
    for pair in comparison.pairs[: _FEW_ARMS - 1] if comparison else ():
        found = [
            f"{label_of(metric)} {with_sign(one, METRIC[metric].unit)[0]}"
            for _, rows in ROWS
            for metric, _ in rows
            if metric not in shown
            and (one := pair.metrics.get(metric))
            and one.significance is Significance.SIGNIFICANT
        ]
        if found:
            second, first = clean(pair.second.name, 60), clean(pair.first.name, 60)
            yield f"Also significant, {second} against {first} (differences of means): {limited(found)}."


def _second(item: tuple[ArmView, float] | tuple[ArmView, float, float]) -> float:
    return item[1]


def _name(arm: ArmView) -> str:
    return clean(arm.name, 60)


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
