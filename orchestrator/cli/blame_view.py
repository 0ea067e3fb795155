"""What `blame` prints of one snapshot: as JSON, and for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from orchestrator.cli.output import out
from orchestrator.cli.tables import plain_table, print_table
from orchestrator.units import PAGE_BYTES, format_size

if TYPE_CHECKING:
    from orchestrator.model.blame import RegionBlame
    from orchestrator.model.policies import StateView
    from orchestrator.model.snapshot import Region, Snapshot
    from orchestrator.summary import PolicyResult

# A difference that readings one after the other make by themselves is not pointed out.
_SMALL_SHARE = 0.01


def _consistency(snapshot: Snapshot) -> str:
    if snapshot.frames_changed < 0:
        changed = snapshot.notes.get("kpagecount")
        if changed is None:
            return "unknown: a dump does not say what changed while it was read"
        return (
            f"at least {int(changed):,} of {len(snapshot.flags):,} frames changed between kpageflags and "
            "kpagecount: mapped in one, and not in the other"
        )
    if snapshot.paused:
        return "read with the vCPUs stopped"
    stopped = snapshot.notes.get("stopped_seconds")
    rest = f"; tables and memmap with the vCPUs stopped for {stopped} s" if stopped else ""
    return (
        f"flags read while the guest ran: {snapshot.frames_changed:,} of {len(snapshot.flags):,} frames "
        f"changed during the read{rest}"
    )


def json_of(name: str, state: StateView, base_pfn: int) -> dict[str, Any]:
    """One snapshot, with every plugged block."""
    from orchestrator.model.blame import huge_supply
    from orchestrator.model.blocks import map_memory
    from orchestrator.summary.snapshots import blame_regions, blame_rows, counterfactuals

    snapshot = state.snapshot
    memory = map_memory(snapshot, classes=state.frames)
    policies = counterfactuals(state, memory, seed=0) if len(state.tables) else ()
    return {
        "name": name,
        "label": snapshot.label,
        "kernel": snapshot.kernel,
        "paused": snapshot.paused,
        "frames_changed": snapshot.frames_changed,
        "consistency": _consistency(snapshot),
        "notes": snapshot.notes,
        "free": _free_json(state),
        "regions": [
            _region_json(region, base_pfn)
            | {
                "classes": [
                    {key: value for key, value in vars(row).items() if key not in {"snapshot", "region"}}
                    for row in blame_rows(snapshot.label, region)
                ],
            }
            for region in blame_regions(state)
        ],
        "policies": [
            {key: value for key, value in vars(policy).items() if key != "snapshot"} for policy in policies
        ],
        "huge_pages": vars(huge_supply(memory)),
    }


def _free_pages(state: StateView) -> tuple[int, int | None]:
    """Frames of the buddy allocator by flags, and as the kernel counts them if that was read."""
    import numpy as np

    from orchestrator.model.frame_class import FrameClass
    from orchestrator.model.kernel_free import KernelFree

    kernel = KernelFree.of_notes(state.snapshot.notes)
    return int(np.count_nonzero(state.frames == FrameClass.FREE)), kernel.free if kernel else None


def _free_json(state: StateView) -> dict[str, int | None]:
    flags, kernel = _free_pages(state)
    return {
        "by_flags_bytes": flags * PAGE_BYTES,
        "by_kernel_bytes": None if kernel is None else kernel * PAGE_BYTES,
    }


def _free_line(state: StateView) -> str:
    """Free memory by the kernel's count beside that by flags; nothing where the kernel's was not read."""
    flags, kernel = _free_pages(state)
    if kernel is None:
        return ""
    line = (
        f"Free: {format_size(flags * PAGE_BYTES)} by flags, {format_size(kernel * PAGE_BYTES)} by the kernel"
    )
    if abs(kernel - flags) <= _SMALL_SHARE * max(kernel, flags):
        return f"{line}."
    if kernel > flags and state.snapshot.frames_changed < 0:
        missing = format_size((kernel - flags) * PAGE_BYTES)
        return f"{line}: {missing} without a flag is free, or outside of this dump."
    why = "some of it is isolated, or " if kernel < flags else ""
    return f"[yellow]{line}: {why}the two were read at different times.[/]"


def _region_json(region: RegionBlame, base_pfn: int) -> dict[str, Any]:
    block_map = region.block_map
    best = region.best_class
    plugged = [
        {
            "block": index,
            "pfn": _first_pfn(block_map.region, base_pfn) + index * block_map.region.block_pages,
            "attributed_to": attributed_to,
            "sole_blocker": sole_blocker,
            "frames": frames,
            "page_tables": kinds,
        }
        for index, attributed_to, sole_blocker, frames, kinds in _each_block(region)
    ]
    return {
        "region": block_map.region.name,
        "start_pfn": _first_pfn(block_map.region, base_pfn),
        "block_bytes": block_map.region.block_pages * PAGE_BYTES,
        "blocks": block_map.region.blocks,
        "blocks_plugged": int(block_map.plugged.sum()),
        "blocks_pinned": region.pinned,
        "blocks_pinned_by_several": region.pinned_by_several,
        "blocks_pinned_by_memmap_only": region.pinned_by_memmap,
        "blocks_no_migration_target": region.no_migration_target,
        "blocks_free": region.free,
        "blocks_unknown": region.unknown,
        "blocks_unexplained": region.unexplained,
        "blocks_without_any_flag": region.without_flags,
        "most_freeable": {"class": best.frame_class.name.lower(), "blocks": best.freeable} if best else None,
        "plugged_blocks": plugged,
    }


def _first_pfn(region: Region, base_pfn: int) -> int:
    return region.start_pfn + base_pfn // region.block_pages * region.block_pages


def _each_block(region: RegionBlame) -> Iterator[tuple[int, str, bool, dict[str, int], dict[str, int]]]:
    """For each plugged block: index, class, whether as sole blocker, frames by class, tables by kind."""
    import numpy as np

    from orchestrator.model.blame import table_kind_name
    from orchestrator.model.frame_class import FrameClass

    block_map = region.block_map
    names = [frame_class.name.lower() for frame_class in FrameClass]
    attributed_to, sole_blocker = block_map.attributed_to, block_map.sole_blocker
    for index in np.flatnonzero(block_map.plugged).tolist():
        counts, kinds = block_map.counts[index], region.table_kinds[index]
        yield (
            index,
            names[attributed_to[index]],
            bool(sole_blocker[index]),
            {names[i]: int(counts[i]) for i in np.flatnonzero(counts).tolist()},
            {table_kind_name(kind): int(kinds[kind]) for kind in np.flatnonzero(kinds).tolist()},
        )


def show(name: str, state: StateView, base_pfn: int, *, list_blocks: bool) -> None:
    """Print one snapshot; every plugged block of it if `list_blocks`."""
    from orchestrator.analysis.text import clean
    from orchestrator.model.blame import huge_supply
    from orchestrator.model.blocks import map_memory
    from orchestrator.summary.snapshots import blame_regions, counterfactuals

    snapshot = state.snapshot
    kernel = f", Linux {clean(snapshot.kernel, 60)}" if snapshot.kernel else ""
    shown = (
        clean(name, 80)
        if name == snapshot.label
        else f"{clean(name, 80)}, snapshot {clean(snapshot.label, 60)}"
    )
    out.print(f"[bold]{escape(shown)}[/]{escape(kernel)}")
    out.print(f"[dim]{escape(_consistency(snapshot))}[/]")
    dump = snapshot.frames_changed < 0
    if dump or not len(snapshot.evidence):
        why = snapshot.notes.get("evidence") or "this snapshot is of an older version"
        out.print(
            f"[yellow]page flags only ({escape(clean(why, 200))}): kernel stacks, DMA pins and PCP lists "
            "are unknown[/]"
        )
    sections = snapshot.notes.get("sections_without_a_flag", "0")
    if dump and int(sections):
        out.print(
            f"{int(sections):,} sections of 128 MiB have no flag at all: absent or uninitialised memory, and "
            "left out of the counts."
        )
    free_line = _free_line(state)
    if free_line:
        out.print(free_line)
    for region in blame_regions(state):
        _show_region(region, base_pfn, list_blocks=list_blocks)
    memory = map_memory(snapshot, classes=state.frames)
    if len(state.tables):
        print_table(_policy_table(counterfactuals(state, memory, seed=0)))
    supply = huge_supply(memory)
    out.print(
        f"Of {supply.ranges:,} aligned ranges of 2 MiB, {supply.free:,} are free and "
        f"{supply.freeable:,} have no unmovable page: so many huge pages could be allocated.\n"
    )


def _show_region(region: RegionBlame, base_pfn: int, *, list_blocks: bool) -> None:
    from orchestrator.analysis.text import clean

    block_map = region.block_map
    size = block_map.region.block_pages * PAGE_BYTES
    plugged = int(block_map.plugged.sum())
    out.print(
        f"{escape(clean(block_map.region.name, 60))}: {plugged:,} of {block_map.region.blocks:,} blocks of "
        f"{format_size(size)} are plugged ({format_size(plugged * size)}); {region.pinned:,} "
        "are pinned"
    )
    if not plugged:
        return
    print_table(_class_table(region))
    if region.no_migration_target:
        out.print(
            f"{region.no_migration_target:,} have movable memory and no migration target, or were skipped "
            "for that reason: other memory is full."
        )
    out.print(
        f"{region.unexplained:,} have nothing unmovable: unexplained if they were requested "
        f"({region.free:,} in all are free)."
    )
    if region.room.frames is None:
        out.print("Migration targets are unknown: the dump covers a part of memory.")
    if region.unknown:
        out.print(
            f"{region.unknown:,} have frames without a flag and no known unmovable frame: kernel memory or a "
            f"PCP list, which a dump does not distinguish ({region.without_flags:,} have no other frames)."
        )
    if region.pinned_by_memmap:
        out.print(
            f"{region.pinned_by_memmap:,} contain memmap of other plugged memory only, and become free "
            "with it."
        )
    best = region.best_class
    if best:
        out.print(
            f"[bold]Without {_words(best.frame_class.name)}, {best.freeable:,} of {region.pinned:,} pinned "
            "blocks would be free; no other class frees more.[/] "
            f"{region.pinned_by_several:,} are pinned by several classes."
        )
    if region.undecided:
        out.print(
            f"{region.undecided:,} are pinned by one class and also have frames without a flag: whether they "
            "would be free without it is unknown."
        )
    if list_blocks:
        for index, attributed_to, sole_blocker, frames, kinds in _each_block(region):
            pfn = _first_pfn(block_map.region, base_pfn) + index * block_map.region.block_pages
            parts = [f"{count} {_words(each)}" for each, count in frames.items()]
            more = f" [{'; '.join(f'{count} {kind}' for kind, count in kinds.items())}]" if kinds else ""
            sole = " (sole blocker)" if sole_blocker else ""
            words = f"{_words(attributed_to)}{sole}"
            out.print(escape(f"{pfn * PAGE_BYTES:#014x} {words}: {', '.join(parts)}{more}"))


def _class_table(region: RegionBlame) -> Table:
    table = plain_table()
    table.add_column("")
    for column in ("blocks", "sole blocker", "freeable", "frames"):
        table.add_column(column, justify="right")
    for share in region.classes:
        style = "" if share.pins else "[dim]"
        held = (f"{share.sole_blocker:,}", f"{share.freeable:,}") if share.pins else ("", "")
        cells = (_words(share.frame_class.name), f"{share.blocks:,}", *held, f"{share.frames:,}")
        table.add_row(*(f"{style}{cell}" for cell in cells))
        for kind in region.tables if share.frame_class.name == "PAGE_TABLE" else ():
            cells = (f"  {kind.kind}", f"{kind.blocks:,}", f"{kind.sole_blocker:,}", "", f"{kind.tables:,}")
            table.add_row(*(f"[dim]{cell}" for cell in cells))
    return table


def _policy_table(policies: tuple[PolicyResult, ...]) -> Table:
    table = plain_table()
    table.add_column("modelled: with this policy")
    for column in ("tables freed", "migrated", "blocks free", "2 MiB ranges"):
        table.add_column(column, justify="right")
    for policy in policies:
        blocks = policy.blocks_freed_if_moved
        table.add_row(
            escape(policy.policy),
            f"{policy.tables_freed:,}",
            f"{policy.tables_to_move:,}",
            "" if blocks is None else f"{blocks:,}",
            "" if policy.huge_freeable is None else f"{policy.huge_freeable:,}",
        )
    return table


def _words(name: str) -> str:
    from orchestrator.analysis.text import class_words

    return class_words(name)
