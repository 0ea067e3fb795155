"""What `blame live` prints for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from rich.markup import escape
from rich.table import Table

from orchestrator.cli.output import out, print_next
from orchestrator.cli.tables import plain_table, print_table
from orchestrator.units import PAGE_BYTES, format_size

if TYPE_CHECKING:
    from orchestrator.export.live_document import LiveDocument
    from orchestrator.export.live_parts import BlockCounts, LiveBlock

_STATES: Final = ("free", "movable", "pinned", "unknown", "refused", "offline")
_MOST_CGROUPS: Final = 10


def show(found: LiveDocument, *, list_blocks: bool, connect: str | None) -> None:
    """Print it: the answer first."""
    out.print(f"[bold]{escape(_answer(found))}[/]")
    for line in _details(found):
        out.print(line)
    for title, table in (
        ("By class of frames", _classes(found)),
        ("By memory cgroup", _cgroups(found)),
        ("By zone, in blocks", _zones(found)),
        ("Flags beside the kernel's own sums", _checks(found)),
    ):
        if table.row_count:
            out.print(f"\n[bold]{title}[/]")
            print_table(table)
    if found.no_cgroups:
        out.print(f"[yellow]Whose memory it is, is unknown: {escape(found.no_cgroups)}.[/]")
    for line in _policy(found):
        out.print(line)
    if list_blocks:
        for block in found.each_block:
            out.print(escape(_block_line(block)))
        return
    host = f" --connect {connect}" if connect else ""
    print_next(f"orchestrator blame live{host} --blocks   # block by block")


def _answer(found: LiveDocument) -> str:
    blocks = found.blocks
    size = format_size(blocks.block_bytes)
    if not found.has_memory_blocks:
        return (
            f"Nothing of {found.host} can be taken offline: its kernel has no memory blocks "
            "(CONFIG_MEMORY_HOTPLUG)."
        )
    how = "taken offline" if blocks.block_bytes >= found.memory_block_bytes else "unplugged"
    answer = (
        f"{_bytes(blocks, blocks.lets_go)} of {found.host} could be {how} now: {blocks.lets_go:,} of "
        f"{_all(blocks):,} blocks of {size} have only free and movable frames"
    )
    if blocks.together < blocks.lets_go:
        answer += f" ({blocks.together:,} of them together: the rest does not fit elsewhere)"
    pinning = [one for one in found.classes if one.pins and one.blocks]
    if not blocks.pinned or not pinning:
        return f"{answer}. No block is pinned."
    most = max(pinning, key=lambda one: one.blocks)
    return (
        f"{answer}. {blocks.pinned:,} are pinned, most by {_words(most.frame_class)}: "
        f"{most.blocks:,}, in {most.sole_blocker:,} as sole blocker."
    )


def _details(found: LiveDocument) -> Iterator[str]:
    blocks, fine = found.blocks, found.blocks_2mib
    if blocks.unknown:
        yield (
            f"{blocks.unknown:,} blocks ({_bytes(blocks, blocks.unknown)}) are unknown: nothing in them is "
            "known to be unmovable, but they have frames without a flag."
        )
    if found.unknown_frames:
        rest = found.unknown_frames - found.uninitialised_frames
        yield (
            f"{_frames(found.unknown_frames)} have no flag: {_frames(found.uninitialised_frames)} in blocks "
            f"whose memmap is not initialised, and {_frames(rest)} elsewhere, where by /proc/zoneinfo "
            f"{_frames(found.pcp_frames)} are free on PCP lists."
        )
    if found.undecided:
        yield (
            f"{found.undecided:,} are pinned by one class and also have frames without a flag: whether they "
            "would be free without it is unknown."
        )
    if blocks.refused:
        yield (
            f"{blocks.refused:,} blocks have nothing unmovable and are refused by the kernel: they span "
            "several zones, or have a hole."
        )
    if blocks.block_bytes > fine.block_bytes:
        yield (
            f"By blocks of 2 MiB, as virtio-mem unplugs memory: {_bytes(fine, fine.lets_go)} have only free "
            f"and movable frames, {_bytes(fine, fine.pinned)} are pinned, "
            f"{_bytes(fine, fine.unknown)} unknown."
        )
    if found.dma_pinned_pages:
        yield f"{found.dma_pinned_pages:,} pages are DMA-pinned; no flag says which: they count as movable."
    yield (
        f"[dim]Linux {escape(found.kernel)}: {found.frames:,} frames read in {found.seconds:.1f} s "
        f"({found.cpu_seconds:.1f} s of CPU time here) while it ran; {found.frames_changed:,} changed class "
        "between two readings.[/]"
    )


def _classes(found: LiveDocument) -> Table:
    table = _table("", "blocks", "sole blocker", "freeable", "memory")
    for one in found.classes:
        style = "" if one.pins else "[dim]"
        held = (f"{one.sole_blocker:,}", f"{one.freeable:,}") if one.pins else ("", "")
        cells = (_words(one.frame_class), f"{one.blocks:,}", *held, _frames(one.frames))
        table.add_row(*(f"{style}{cell}" for cell in cells))
    return table


def _cgroups(found: LiveDocument) -> Table:
    table = _table("", "blocks", "sole owner", "unmovable", "movable")
    for one in found.cgroups[:_MOST_CGROUPS] if not found.no_cgroups else ():
        path = one.path or (f"not mounted here, or ended ({one.inode})" if one.inode else "charged to none")
        table.add_row(
            escape(path),
            f"{one.blocks:,}",
            f"{one.sole_owner:,}",
            format_size(one.unmovable_bytes),
            format_size(one.movable_bytes),
        )
    more = len(found.cgroups) - _MOST_CGROUPS
    if more > 0 and table.row_count:
        table.add_row(f"[dim]{more:,} more: --json[/]", "", "", "", "")
    return table


def _zones(found: LiveDocument) -> Table:
    shown = [name for name in _STATES if any(getattr(one, name) for one in found.zones)]
    table = _table("", *shown, "unmovable")
    for one in found.zones:
        name = f"node {one.node}, {one.zone}" if one.node is not None else "in no zone now"
        counts = (f"{getattr(one, state):,}" for state in shown)
        table.add_row(escape(name), *counts, format_size(one.unmovable_bytes))
    return table


def _checks(found: LiveDocument) -> Table:
    table = _table("", "by flags", "by the kernel", "difference", "it changed by")
    for one in found.checks:
        kernel = one.counted_bytes - one.difference_bytes
        if not kernel and not one.counted_bytes:
            continue
        table.add_row(
            f"{one.name}, {one.source.rpartition('/')[2]}",
            format_size(one.counted_bytes),
            format_size(kernel),
            format_size(one.difference_bytes),
            format_size(one.after_bytes - one.before_bytes),
        )
    return table


def _policy(found: LiveDocument) -> Iterator[str]:
    policy, blocks = found.policy, found.blocks
    settings = ", ".join(
        f"{name}={policy.settings[name]}"
        for name in ("auto_online_blocks", "online_policy")
        if name in policy.settings
    )
    now = f" Now: {escape(settings)}." if settings else ""
    if not policy.kernel_zone_pinned:
        yield f"\nNo block of a kernel zone is pinned.{now}"
        return
    auto = (
        f" auto-movable puts at most {format_size(policy.auto_movable_bytes)} there (modelled)."
        if policy.auto_movable_bytes is not None
        else ""
    )
    yield (
        f"\n{policy.kernel_zone_pinned:,} pinned blocks are in kernel zones. Their "
        f"{format_size(policy.unmovable_bytes)} of unmovable memory would fit into {policy.least_pinned:,} "
        f"blocks of {format_size(blocks.block_bytes)} (modelled). Memory that is added with online policy "
        "online_movable is in ZONE_MOVABLE, which takes no unmovable allocation, and stays movable."
        f"{auto}{now} For boot memory: kernel parameter movablecore=."
    )


def _block_line(block: LiveBlock) -> str:
    number = f"memory{block.memory_block} " if block.memory_block is not None else ""
    where = f"{block.zone} " if block.zone else ""
    parts = ", ".join(f"{count:,} {_words(name)}" for name, count in block.frames.items())
    return f"{block.pfn * PAGE_BYTES:#014x} {number}{where}{block.state}: {parts}"


def _table(*columns: str) -> Table:
    table = plain_table()
    table.add_column(columns[0], overflow="fold")
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _all(blocks: BlockCounts) -> int:
    return sum(getattr(blocks, name) for name in _STATES)


def _bytes(blocks: BlockCounts, count: int) -> str:
    return format_size(count * blocks.block_bytes)


def _frames(count: int) -> str:
    return format_size(count * PAGE_BYTES)


def _words(name: str) -> str:
    from orchestrator.analysis.text import class_words

    return class_words(name)
