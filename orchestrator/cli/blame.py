"""`blame`: what holds each block that stayed, and what would have freed it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.output import out, print_json
from orchestrator.errors import BadInputError
from orchestrator.units import PAGE_BYTES, PMD_BYTES, format_size, parse_size

if TYPE_CHECKING:
    from orchestrator.model.blame import RegionBlame
    from orchestrator.model.policies import StateView
    from orchestrator.model.snapshot import Region, Snapshot
    from orchestrator.store import TrialFolder
    from orchestrator.summary import PolicyResult

_FORMAT = 1


def _block(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        size = parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if size < PAGE_BYTES or size.bit_count() != 1:
        raise click.BadParameter(f"{text} is no power of two of at least 4KiB")
    return size


@click.command("blame")
@click.argument("target", metavar="RUN|FILE")
@click.option("--trial", "trial_id", metavar="TRIAL", help="One trial of the run; else all of them.")
@click.option(
    "--snapshot", "label", metavar="LABEL", help="A snapshot of the run; else the last after an unplug."
)
@click.option("--block", metavar="SIZE", callback=_block, help="Size of a block; else the device's, or 2MiB.")
@click.option(
    "--memory", "all_memory", is_flag=True, help="Blame all of the guest's memory, not only devices."
)
@click.option("--base-pfn", type=click.IntRange(0, 1 << 40), default=0, help="First frame of a partial dump.")
@click.option("--blocks", "list_blocks", is_flag=True, help="List every block (with --json they are there).")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Folder of run folders.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def blame_command(
    *,
    target: str,
    trial_id: str | None,
    label: str | None,
    block: int | None,
    all_memory: bool,
    base_pfn: int,
    list_blocks: bool,
    results: Path,
    as_json: bool,
) -> None:
    """Say what holds each block of memory that stayed, and what would have freed it.

    \b
    RUN    a run folder, the beginning of its name, or `last`
    FILE   a snapshot (.npz of a trial), or a plain copy of /proc/kpageflags

    \b
    orchestrator blame last
    orchestrator blame results/RUN/trials/TRIAL/snapshots/08-unplugged.npz --json
    dd if=/proc/kpageflags of=flags bs=1M; orchestrator blame flags --block 2MiB
    """
    from orchestrator.model.policies import StateView

    found = []
    path = Path(target)
    if path.is_file():
        if trial_id or label:
            raise BadInputError("--trial and --snapshot choose from a run, and this is a file")
        chosen = iter([(path.name, _read_file(path, base_pfn, block))])
    elif path.suffix in {".npz", ".bin"} and not path.exists():
        raise BadInputError(f"{path}: there is no such file")
    else:
        chosen = _of_run(target, results, trial_id, label)
    for name, snapshot in chosen:
        state = StateView.of(_with_blocks(snapshot, block, all_memory=all_memory))
        if as_json:
            found.append(_as_json(name, state, base_pfn))
        else:
            _show(name, state, base_pfn, list_blocks=list_blocks)
    if as_json:
        print_json({"format": _FORMAT, "snapshots": found})


def _read_file(path: Path, base_pfn: int, block: int | None) -> Snapshot:
    from orchestrator.store.raw_flags import read_raw_flags
    from orchestrator.store.snapshot_file import read_snapshot

    # A zip archive that lost its end is no longer one for zipfile, and no dump of flags either.
    with path.open("rb") as file:
        head = file.read(4)
    if head == b"PK\x03\x04" or zipfile.is_zipfile(path):
        if base_pfn:
            raise BadInputError("--base-pfn is for a plain copy of /proc/kpageflags, and this is a snapshot")
        return read_snapshot(path)
    return read_raw_flags(path, base_pfn=base_pfn, block_bytes=block or PMD_BYTES)


def _of_run(
    target: str, results: Path, trial_id: str | None, label: str | None
) -> Iterator[tuple[str, Snapshot]]:
    from orchestrator.store import find_run
    from orchestrator.store.snapshot_file import read_snapshot

    run = find_run(target, results)
    trials = [trial for trial in run.trials if trial_id in {None, trial.id}]
    if not trials:
        there = ", ".join(trial.id for trial in run.trials) or "none; only its summaries were kept"
        what = f"no trial is called {trial_id!r}" if trial_id else f"{run.id} has no trials"
        raise BadInputError(what, hint=f"there are: {there}")
    for trial in trials:
        path = _snapshot_path(trial, label)
        if path is None:
            taken = [event.text("label") for event in trial.events if event.name == "snapshot"]
            hint = f"it took: {', '.join(taken) or 'none'}"
            if label or trial_id:
                raise BadInputError(f"trial {trial.id} has no snapshot {label or ''}".rstrip(), hint=hint)
            continue
        yield trial.id, read_snapshot(path)


def _snapshot_path(trial: TrialFolder, label: str | None) -> Path | None:
    """The snapshot with that label; else the last one after the last step that took memory, or the last."""
    taken = [event for event in trial.events if event.name == "snapshot" and trial.snapshot_path(event)]
    if label:
        taken = [event for event in taken if event.text("label") == label]
    return trial.snapshot_path(taken[-1]) if taken else None


def _with_blocks(snapshot: Snapshot, block: int | None, *, all_memory: bool) -> Snapshot:
    """The snapshot with the regions and blocks that are asked for."""
    from orchestrator.model.snapshot import Region

    pages = (block or PMD_BYTES) // PAGE_BYTES
    if all_memory or not snapshot.regions:
        whole = -(-len(snapshot.flags) // pages) * pages
        return replace(snapshot, regions=(Region("memory", 0, whole, pages, plugged_bytes=0),))
    if block is None:
        return snapshot

    def cut(region: Region) -> Region:
        if region.pages % pages or region.start_pfn % pages:
            raise BadInputError(
                f"{region.name} is no whole number of blocks of {format_size(pages * PAGE_BYTES)}",
                hint=f"its own are {format_size(region.block_pages * PAGE_BYTES)}",
            )
        return replace(region, block_pages=pages)

    return replace(snapshot, regions=tuple(map(cut, snapshot.regions)))


def _consistency(snapshot: Snapshot) -> str:
    if snapshot.moved < 0:
        return "not known: a dump does not say what changed while it was read"
    if snapshot.paused:
        return "read with the vCPUs stopped"
    stopped = snapshot.notes.get("stopped_seconds")
    rest = f"; tables and struct pages with the vCPUs stopped for {stopped} s" if stopped else ""
    return (
        f"flags while the guest ran: {snapshot.moved:,} of {len(snapshot.flags):,} frames "
        f"changed meanwhile{rest}"
    )


def _as_json(name: str, state: StateView, base_pfn: int) -> dict[str, Any]:
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
        "moved": snapshot.moved,
        "consistency": _consistency(snapshot),
        "notes": snapshot.notes,
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
        "counterfactuals": [
            {key: value for key, value in vars(policy).items() if key != "snapshot"} for policy in policies
        ],
        "huge_pages": vars(huge_supply(memory)),
    }


def _region_json(region: RegionBlame, base_pfn: int) -> dict[str, Any]:
    block_map = region.block_map
    best = region.best
    return {
        "region": block_map.region.name,
        "start_pfn": _first_pfn(block_map.region, base_pfn),
        "block_bytes": block_map.region.block_pages * PAGE_BYTES,
        "blocks": block_map.region.blocks,
        "blocks_plugged": int(block_map.plugged.sum()),
        "blocks_held": region.held,
        "blocks_together": region.together,
        "blocks_following": region.following,
        "blocks_no_room": region.no_room,
        "blocks_free": region.free,
        "blocks_unexplained": region.unexplained,
        "blocks_without_any_flag": region.blank,
        "frees_most": {"class": best.frame_class.name.lower(), "blocks": best.frees} if best else None,
        "held_blocks": [
            {
                "block": index,
                "pfn": _first_pfn(block_map.region, base_pfn) + index * block_map.region.block_pages,
                "named": named,
                "alone": alone,
                "frames": frames,
                "page_tables": kinds,
            }
            for index, named, alone, frames, kinds in _each_block(region)
        ],
    }


def _first_pfn(region: Region, base_pfn: int) -> int:
    return region.start_pfn + base_pfn // region.block_pages * region.block_pages


def _each_block(region: RegionBlame) -> Iterator[tuple[int, str, bool, dict[str, int], dict[str, int]]]:
    """For each plugged block: index, what it is named after, alone, frames by class, tables by kind."""
    import numpy as np

    from orchestrator.model.blame import table_kind_name
    from orchestrator.model.frame_class import FrameClass

    block_map = region.block_map
    names = [frame_class.name.lower() for frame_class in FrameClass]
    named, alone = block_map.named, block_map.alone
    for index in np.flatnonzero(block_map.plugged).tolist():
        counts, kinds = block_map.counts[index], region.table_kinds[index]
        yield (
            index,
            names[named[index]],
            bool(alone[index]),
            {names[i]: int(counts[i]) for i in np.flatnonzero(counts).tolist()},
            {table_kind_name(kind): int(kinds[kind]) for kind in np.flatnonzero(kinds).tolist()},
        )


def _show(name: str, state: StateView, base_pfn: int, *, list_blocks: bool) -> None:
    from orchestrator.model.blame import huge_supply
    from orchestrator.model.blocks import map_memory
    from orchestrator.report.text import clean
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
    evidence = snapshot.notes.get("evidence", "")
    if not len(snapshot.evidence):
        why = evidence or "this snapshot is of an older version"
        out.print(
            f"[yellow]flags only ({escape(clean(why, 200))}): stacks, pins and per-CPU lists are not told[/]"
        )
    for region in blame_regions(state):
        _show_region(region, base_pfn, list_blocks=list_blocks, dump=snapshot.moved < 0)
    memory = map_memory(snapshot, classes=state.frames)
    if len(state.tables):
        out.print(_policy_table(counterfactuals(state, memory, seed=0)), soft_wrap=False)
    supply = huge_supply(memory)
    out.print(
        f"Of {supply.ranges:,} aligned ranges of 2 MiB, {supply.free:,} are free and "
        f"{supply.freeable:,} hold nothing that cannot move: that many huge pages could be had.\n"
    )


def _show_region(region: RegionBlame, base_pfn: int, *, list_blocks: bool, dump: bool) -> None:
    from orchestrator.report.text import clean

    block_map = region.block_map
    size = block_map.region.block_pages * PAGE_BYTES
    plugged = int(block_map.plugged.sum())
    out.print(
        f"{escape(clean(block_map.region.name, 60))}: {plugged:,} of {block_map.region.blocks:,} blocks of "
        f"{format_size(size)} are the guest's ({format_size(plugged * size)}); {region.held:,} hold what "
        "cannot move"
    )
    if not plugged:
        return
    out.print(_class_table(region), soft_wrap=False)
    if region.no_room:
        out.print(
            f"{region.no_room:,} hold movable memory that has nowhere to go, or were not come to for want of "
            "room: memory elsewhere is full."
        )
    out.print(
        f"{region.unexplained:,} hold nothing that would keep them: unexplained, if they were asked for "
        f"({region.free:,} in all are free)."
    )
    if region.blank and dump:
        out.print(
            f"{region.blank:,} have not a single flag: plain kernel memory, or memory that was removed "
            "(a dump does not say which)."
        )
    if region.following:
        out.print(
            f"{region.following:,} hold nothing but struct pages of other memory that stays, and go with it."
        )
    best = region.best
    if best:
        out.print(
            f"[bold]Without {_words(best.frame_class.name)} alone, {best.frees:,} of {region.held:,} would "
            f"come free; no other single class frees more.[/] {region.together:,} are held by several."
        )
    if list_blocks:
        for index, named, alone, frames, kinds in _each_block(region):
            pfn = _first_pfn(block_map.region, base_pfn) + index * block_map.region.block_pages
            parts = [f"{count} {_words(each)}" for each, count in frames.items()]
            more = f" [{'; '.join(f'{count} {kind}' for kind, count in kinds.items())}]" if kinds else ""
            lone = " alone" if alone else ""
            out.print(escape(f"{pfn * PAGE_BYTES:#014x} {_words(named)}{lone}: {', '.join(parts)}{more}"))


def _class_table(region: RegionBlame) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    for column in ("blocks", "alone", "frees", "frames"):
        table.add_column(column, justify="right")
    for share in region.classes:
        style = "" if share.holds else "[dim]"
        held = (f"{share.alone:,}", f"{share.frees:,}") if share.holds else ("", "")
        cells = (_words(share.frame_class.name), f"{share.blocks:,}", *held, f"{share.frames:,}")
        table.add_row(*(f"{style}{cell}" for cell in cells))
        for kind in region.tables if share.frame_class.name == "PAGE_TABLE" else ():
            cells = (f"  {kind.kind}", f"{kind.blocks:,}", f"{kind.alone:,}", "", f"{kind.tables:,}")
            table.add_row(*(f"[dim]{cell}" for cell in cells))
    return table


def _policy_table(policies: tuple[PolicyResult, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("modelled: if this policy had run")
    for column in ("tables freed", "moved", "blocks free", "2 MiB ranges"):
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
    from orchestrator.report.text import class_words

    return class_words(name)
