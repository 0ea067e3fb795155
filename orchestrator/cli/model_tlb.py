"""`model tlb`: TLB misses and references of page walks, by the huge pages that memory could supply."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.model_input import keep_compiled, named_values
from orchestrator.cli.options import Choice, json_option, results_option
from orchestrator.cli.output import err, out, print_json
from orchestrator.cli.tables import plain_table, print_table
from orchestrator.errors import BadInputError
from orchestrator.suggestion import suggest
from orchestrator.units import PMD_BYTES, format_size, parse_size

if TYPE_CHECKING:
    from orchestrator.analysis.huge_supply import Supplies, Supply
    from orchestrator.model.tlb import Load, TlbAnswer, TlbFigures
    from orchestrator.model.tlb_cpu import TlbCpu

_ACCESSES: Final = (
    "uniform",
    "zipf",
    "sequential",
    "hot",
)  # model.tlb_access.ACCESSES, not needed for --help
_MEMORY: Final = 64 << 30
_SHARE: Final = click.FloatRange(0, 1)


def _memory(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    try:
        return None if text is None else parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command("tlb")
@click.argument("target", metavar="[RUN|FILE]", required=False)
@click.option(
    "--memory", metavar="SIZE", callback=_memory, help="Memory accessed; else the snapshot's, or 64GiB."
)
@click.option(
    "--huge",
    "shares",
    type=_SHARE,
    multiple=True,
    metavar="SHARE",
    help="Of the guest's memory in huge pages; may be given several times; else 0 and 1. Not with a run.",
)
@click.option(
    "--host-huge",
    type=_SHARE,
    default=1.0,
    show_default=True,
    metavar="SHARE",
    help="Of that memory which the host backs by huge pages: assumed, also of a run.",
)
@click.option(
    "--access", type=Choice(_ACCESSES), default="uniform", show_default=True, help="Which page comes next."
)
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter of it, as share=0.1."
)
@click.option(
    "--cpu",
    "cpu_name",
    default="skylake",
    show_default=True,
    metavar="NAME|FILE",
    help="skylake, skylake-small-caches, amd-16h, none, or a file as in docs/model.md.",
)
@click.option("--levels", type=click.IntRange(4, 5), default=4, show_default=True, help="Of page tables.")
@click.option("--accesses", type=click.IntRange(1, 1 << 32), default=500_000, show_default=True)
@click.option(
    "--warm-up",
    type=click.IntRange(0, 1 << 32),
    default=200_000,
    show_default=True,
    help="Accesses before that, which fill the caches and are not counted.",
)
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--trial", metavar="TRIAL", help="Which trial of a run; else the first with a snapshot.")
@click.option("--snapshot", metavar="LABEL", help="Which snapshot of a run; else the last.")
@results_option
@json_option
def tlb_command(
    *,
    target: str | None,
    memory: int | None,
    shares: tuple[float, ...],
    host_huge: float,
    access: str,
    settings: tuple[str, ...],
    cpu_name: str,
    levels: int,
    accesses: int,
    warm_up: int,
    seeds: int,
    trial: str | None,
    snapshot: str | None,
    results: Path,
    as_json: bool,
) -> None:
    """Count TLB misses and memory references of page walks over a stated pattern of accesses.

    Without a second level, and with one. Every figure is modelled, and none is a time.

    \b
    RUN    a run: of a snapshot, how many ranges of 2 MiB are free or movable, so that the guest
           could map them huge, as it was and with what each policy frees
    FILE   a snapshot (.npz of a trial), likewise

    \b
    orchestrator model tlb --memory 64GiB --huge 0.5 --host-huge 1 --access zipf
    orchestrator model tlb last --snapshot loaded --access hot --set share=0.2
    """
    from orchestrator.analysis.huge_supply import supplies_of
    from orchestrator.analysis.text import counted
    from orchestrator.model.tlb import ASSUMPTIONS, Load, MappedMemory, tlb_answer
    from orchestrator.model.tlb_access import access_pattern

    if target and shares:
        raise BadInputError("--huge is for memory that is made up", hint="a run says what could be huge")
    if not target and (trial or snapshot):
        raise BadInputError("--trial and --snapshot select from a run", hint="name one, as `last`")
    load = Load(access_pattern(access, named_values(settings, "share=0.1")), accesses, warm_up, levels)
    cpu = _cpu(cpu_name)
    found = supplies_of(target, results, trial, snapshot) if target else _typed(shares)
    own = found.huge_ranges * PMD_BYTES if found.huge_ranges else _MEMORY
    size = own if memory is None else memory
    keep_compiled()

    @cache
    def answer(share: float) -> TlbAnswer:
        return tlb_answer(cpu, load, MappedMemory(size, share, host_huge), seeds)

    with err.status("translating"):
        answers = [(supply, answer(supply.share)) for supply in found.supplies]
    if as_json:
        print_json(
            {
                "origin": "modelled",
                "cpu": cpu.model_dump(mode="json"),
                "access": {"pattern": access, **load.pattern.model_dump(mode="json")},
                **_asked(load, seeds),
                "memory_bytes": size,
                "host_huge": host_huge,
                "assumptions": list(ASSUMPTIONS),
                **{key: value for key, value in asdict(found).items() if key != "supplies"},
                "modelled": [{**asdict(supply), **asdict(one)} for supply, one in answers],
            }
        )
        return
    _say(found, cpu, load, f"{format_size(size)}, {access}{_words(load)}", host_huge)
    print_table(_table(answers))
    out.print(
        f"modelled, {accesses:,} accesses, medians of {counted(seeds, 'seed')}: misses of all TLBs for each "
        "access, and references to page tables for each walk and each access; none is a time"
    )
    for assumption in ASSUMPTIONS:
        out.print(f"[dim]assumed: {escape(assumption)}[/]")


def _asked(load: Load, seeds: int) -> dict[str, int]:
    counted = ("accesses", "warm_up", "levels")
    return {"seeds": seeds, **{name: getattr(load, name) for name in counted}}


def _words(load: Load) -> str:
    return "".join(f", {name} {value}" for name, value in load.pattern.model_dump().items())


def _say(found: Supplies, cpu: TlbCpu, load: Load, what: str, host_huge: float) -> None:
    out.print(
        f"{escape(what)}; {load.levels} levels of page tables; CPU {escape(cpu.name)}; "
        f"{100 * host_huge:g} % of memory in huge pages of the host (assumed)"
    )
    if found.snapshot:
        of = f"{found.trial}, snapshot {found.snapshot}" if found.trial else found.snapshot
        out.print(f"{escape(of)}: {found.huge_ranges:,} ranges of 2 MiB, mapped huge as far as they can be")
    for parts, source in cpu.sources.items():
        out.print(f"[dim]{escape(parts)}: {escape(source)}[/]")


def _table(answers: list[tuple[Supply, TlbAnswer]]) -> Table:
    table = plain_table()
    table.add_column("modelled", no_wrap=True)
    table.add_column("huge", justify="right", no_wrap=True)
    for level in ("1 level", "2 levels"):
        for title in (f"misses, {level}", "a walk", "an access"):
            table.add_column(title, justify="right")
    for supply, answer in answers:
        figures = (*_cells(answer.one_level), *_cells(answer.two_levels))
        table.add_row(escape(supply.what), f"{100 * supply.share:.1f} %", *figures)
    return table


def _cells(one: TlbFigures) -> Iterator[str]:
    yield f"{one.tlb_misses_per_access.typical:.4f}"
    yield f"{one.references_per_walk.typical:.2f}" if one.references_per_walk else "-"
    yield f"{one.references_per_access.typical:.4f}"


def _cpu(name: str) -> TlbCpu:
    from orchestrator.model.tlb_cpu import SHIPPED_CPUS, TlbCpu, shipped_cpu
    from orchestrator.yamlfile import load_yaml_model

    if shipped := shipped_cpu(name):
        return shipped
    if Path(name).suffix in {".yaml", ".yml"} or Path(name).is_file():
        return load_yaml_model(Path(name), TlbCpu)
    raise BadInputError(
        f"no CPU {name!r}, and no file of that name", hint=suggest(name, [one.name for one in SHIPPED_CPUS])
    )


def _typed(shares: tuple[float, ...]) -> Supplies:
    from orchestrator.analysis.huge_supply import Supplies, Supply

    shares = shares or (0.0, 1.0)
    return Supplies(tuple(Supply("as given", "", None, share) for share in dict.fromkeys(shares)))
