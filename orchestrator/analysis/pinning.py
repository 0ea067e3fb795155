"""What pins the blocks still plugged: classes of frames down, arms across."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median
from typing import Final

from orchestrator.analysis.arms import ArmView, TrialView, of_trials
from orchestrator.analysis.text import class_words, clean, count, size
from orchestrator.model.frame_class import UNMOVABLE, FrameClass
from orchestrator.records.summary import SnapshotResult
from orchestrator.summary import TrialSummary

_PIN: Final = frozenset(frame_class.name.lower() for frame_class in UNMOVABLE)
_PAGE_TABLE: Final = FrameClass.PAGE_TABLE.name.lower()

# Counts of a snapshot, what a reader calls them; before the classes, and after them.
_TOTALS: Final[tuple[tuple[str, Callable[[SnapshotResult], int | None]], ...]] = (
    ("all still plugged", lambda one: one.blocks_plugged),
    ("pinned", lambda one: one.blocks_pinned),
)
_REST: Final[tuple[tuple[str, Callable[[SnapshotResult], int | None]], ...]] = (
    ("pinned by several classes", lambda one: one.blocks_pinned_by_several),
    ("pinned by memmap only", lambda one: one.blocks_pinned_by_memmap_only),
    ("movable, no migration target", lambda one: one.blocks_no_migration_target),
    ("unexplained", lambda one: one.blocks_unexplained),
)


@dataclass(frozen=True)
class PinningClass:
    """A class of frames in the blocks still plugged, over all regions; or, where `table` names it, one kind
    of page table. Of its `blocks`, `sole_blocker` have no other blocker; `freeable` are free without it."""

    frame_class: str
    table: str
    blocks: float
    sole_blocker: float
    freeable: float

    @property
    def pins(self) -> bool:
        """Whether such frames can pin a block."""
        return self.frame_class in _PIN


@dataclass(frozen=True)
class PinningCell:
    """One arm: blocks, and those of which it is the sole blocker; both empty where it has no such block."""

    blocks: str = ""
    sole_blocker: str = ""


@dataclass(frozen=True)
class PinningRow:
    """A class, a kind of page table (`css` is `kind`), or a total."""

    label: str
    css: str
    cells: tuple[PinningCell, ...]


@dataclass(frozen=True)
class PinningArm:
    """The head of an arm's two columns, and its line below; `why_missing` where it has no blame."""

    name: str
    index: int
    note: str
    sentence: str
    why_missing: str


@dataclass(frozen=True)
class PinningTable:
    """The table of all arms; bodies in the order of the page."""

    arms: tuple[PinningArm, ...]
    bodies: tuple[tuple[PinningRow, ...], ...]


def pinning_classes(summary: TrialSummary, snapshot: str) -> dict[tuple[str, str], PinningClass]:
    """What is in the plugged blocks at a snapshot, by class and kind of page table."""
    found: dict[tuple[str, str], PinningClass] = {}
    for row in summary.blame:
        if row.snapshot == snapshot:
            key = row.frame_class, row.table
            before = found.get(key, PinningClass(*key, blocks=0, sole_blocker=0, freeable=0))
            found[key] = replace(
                before,
                blocks=before.blocks + row.blocks,
                sole_blocker=before.sole_blocker + row.sole_blocker,
                freeable=before.freeable + (row.freeable or 0),
            )
    return found


@dataclass(frozen=True)
class PinningView:
    """What pins the blocks still plugged of an arm: medians over its trials that count and have a snapshot
    after their last unplug. A class that a trial has not counts as 0 there."""

    trials: tuple[TrialView, ...]

    @cached_property
    def results(self) -> tuple[SnapshotResult, ...]:
        """The snapshot of each trial."""
        found = (trial.summary.after_unplug for trial in self.trials)
        return tuple(one for one in found if one)

    @cached_property
    def classes(self) -> dict[tuple[str, str], PinningClass]:
        """By class and kind of page table."""
        each = [pinning_classes(one.summary, one.summary.blocks_snapshot) for one in self.trials]
        keys = dict.fromkeys(key for found in each for key in found)

        def middle(key: tuple[str, str], count_of: Callable[[PinningClass], float]) -> float:
            return median(count_of(found[key]) if key in found else 0 for found in each)

        return {
            key: PinningClass(
                *key,
                blocks=middle(key, lambda one: one.blocks),
                sole_blocker=middle(key, lambda one: one.sole_blocker),
                freeable=middle(key, lambda one: one.freeable),
            )
            for key in keys
        }

    def total(self, of: Callable[[SnapshotResult], int | None]) -> float | None:
        """A count of the snapshots; None where none has it."""
        counts = [number for one in self.results if (number := of(one)) is not None]
        return median(counts) if counts else None

    @property
    def pinned(self) -> float | None:
        """Blocks with an unmovable frame."""
        return self.total(lambda one: one.blocks_pinned)

    @property
    def blamed(self) -> bool:
        """Whether any trial says of which classes the blocks are."""
        return any(trial.summary.blame for trial in self.trials)

    @property
    def most_freeable(self) -> PinningClass | None:
        """The class without which most blocks still plugged would be free; None if no class frees any."""
        found = [one for one in self.classes.values() if not one.table and one.freeable]
        return max(found, key=lambda one: one.freeable) if found else None


def pinning_view(arm: ArmView) -> PinningView | None:
    """None where no trial of the arm that counts has a snapshot after an unplug."""
    trials = tuple(trial for trial in arm.counted if trial.summary.after_unplug)
    return PinningView(trials) if trials else None


def pinning_table(arms: Sequence[ArmView]) -> PinningTable | None:
    """Medians over the trials of each arm; None where no arm has a snapshot after an unplug."""
    views = [pinning_view(arm) for arm in arms]
    if not any(views):
        return None
    classes = list(_class_rows([view.classes if view else {} for view in views]))
    bodies = (
        tuple(_total(label, "total", of, views) for label, of in _TOTALS),
        tuple(row for row in classes if row.css != "quiet"),
        tuple(row for row in classes if row.css == "quiet"),
        tuple(_total(label, "total", of, views) for label, of in _REST),
    )
    heads = tuple(_head(arm, view) for arm, view in zip(arms, views, strict=True))
    return PinningTable(heads, tuple(body for body in bodies if body))


def _with_memmap(best: PinningClass) -> str:
    """Why more blocks would be free than have the class as their sole blocker; empty where no more would."""
    more = round(best.freeable) - round(best.sole_blocker)
    if more <= 0:
        return ""
    sole = count(best.sole_blocker)
    return f" (sole blocker of {sole}, and {count(more)} with memmap that is then freed, too)"


def _head(arm: ArmView, view: PinningView | None) -> PinningArm:
    name = clean(arm.name, 60)
    if view is None:
        why = arm.shown.summary.gaps.get("blocks_plugged_after", "no snapshot after an unplug")
        return PinningArm(name, arm.index, "", "", clean(why, 200))
    snapshots = {one.snapshot for one in view.results}
    sizes = {one.block_bytes for one in view.results}
    at = clean(snapshots.pop(), 40) if len(snapshots) == 1 else "the last snapshot"
    block_bytes = sizes.pop() if len(sizes) == 1 else None
    several = f"median of {of_trials(view.trials)}, " if len(view.trials) > 1 else ""
    blocks = f", blocks of {size(block_bytes)}" if block_bytes else ""
    return PinningArm(name, arm.index, f"{several}at {at}{blocks}", _sentence(view), "")


def _sentence(view: PinningView) -> str:
    best, held = view.most_freeable, view.pinned
    if held is None:
        return ""
    if best:
        return (
            f"Without {class_words(best.frame_class)}, {count(best.freeable)} of {count(held)} pinned blocks "
            f"would be free{_with_memmap(best)}; no other class frees more."
        )
    if held and view.blamed:
        return f"No single class frees any of {count(held)} pinned blocks."
    return "" if held else "No class pins a block."


def _class_rows(held: Sequence[dict[tuple[str, str], PinningClass]]) -> Iterator[PinningRow]:
    """Classes, those that pin blocks first, most blocks first; page tables with their kinds below."""
    keys = dict.fromkeys(key for found in held for key in found)

    def most(key: tuple[str, str]) -> float:
        return max(found[key].blocks for found in held if key in found)

    classes = sorted((key for key in keys if not key[1]), key=lambda key: (key[0] not in _PIN, -most(key)))
    kinds = sorted((key for key in keys if key[1]), key=lambda key: -most(key))
    for key in classes:
        css = "holds" if key[0] in _PIN else "quiet"
        yield PinningRow(class_words(key[0]), css, tuple(_cell(found.get(key)) for found in held))
        if key[0] == _PAGE_TABLE:
            for kind in kinds:
                cells = tuple(_cell(found.get(kind)) for found in held)
                yield PinningRow(clean(kind[1], 40), "kind", cells)


def _cell(holder: PinningClass | None) -> PinningCell:
    if holder is None:
        return PinningCell()
    return PinningCell(count(holder.blocks), count(holder.sole_blocker) if holder.pins else "")


def _total(
    label: str,
    css: str,
    of: Callable[[SnapshotResult], int | None],
    views: Sequence[PinningView | None],
) -> PinningRow:
    counts = [view.total(of) if view else None for view in views]
    return PinningRow(label, css, tuple(PinningCell("" if n is None else count(n)) for n in counts))
