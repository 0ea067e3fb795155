"""`reclaim`: free second-level page tables that a VM holds, by a lever."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from orchestrator.cli.options import json_option
from orchestrator.cli.output import clean_text, err, out, print_json
from orchestrator.cli.signals import stop_at_signals
from orchestrator.cli.tables import plain_table, print_table
from orchestrator.errors import BadInputError, InfrastructureError
from orchestrator.units import format_size, parse_duration

if TYPE_CHECKING:
    from rich.table import Table

    from orchestrator.levers import Lever, Prediction, Pulled
    from orchestrator.levers.base import Held
    from orchestrator.reclaim import LiveVm, Measured, MomentHeld

_NOT_KNOWN = "?"


def _seconds(_ctx: click.Context, _parameter: click.Parameter, text: str) -> float:
    try:
        return float(text) if text.replace(".", "", 1).isdigit() else parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command("reclaim")
@click.argument("lever")
@click.option("--domain", metavar="NAME", required=True, help="The VM, by libvirt's name.")
@click.option("--connect", metavar="URI", default="qemu:///system", show_default=True, help="Its libvirt.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--watch",
    default="15s",
    show_default=True,
    callback=_seconds,
    help="How long to wait before measuring again: faults make tables anew.",
)
@click.option(
    "--min-present", type=click.IntRange(1, 512), help="collapse: pages of a range that must be there."
)
@click.option("--max-growth", metavar="SIZE", help="collapse: memory that the VM's process may gain.")
@json_option
def reclaim_command(
    *,
    lever: str,
    domain: str,
    connect: str,
    dry_run: bool,
    yes: bool,
    watch: float,
    min_present: int | None,
    max_growth: str | None,
    as_json: bool,
) -> None:
    """Free second-level page tables that a VM holds, by LEVER.

    flush (all VMs of the host), collapse (one VM) or collapse-and-flush. Each says first which VMs it touches
    and what it may cost, asks, and measures before, at once and after --watch. What it changes on the host is
    put back at once, and by `clean` after a kill. docs/second-level.md tells what each does.

    \b
    orchestrator reclaim flush --domain web1 --dry-run
    orchestrator reclaim collapse --domain web1 --connect qemu+ssh://root@HOST/system --max-growth 16MiB --yes
    """
    from orchestrator.guest.cache import cache_dir
    from orchestrator.host.runtime import runtime_folder
    from orchestrator.host_kinds import host_kind
    from orchestrator.reclaim import LiveVm

    chosen = _lever(lever, {"min_present": min_present, "max_growth": max_growth})
    kind = host_kind(connect)
    if not kind.shared or kind.takes_our_memory:
        raise BadInputError(f"{connect!r} has no VMs but our own", hint="use --connect qemu:///system")
    if not (dry_run or yes or sys.stdin.isatty()):
        raise BadInputError("there is no terminal to ask at", hint="see --dry-run first, and then give --yes")
    with (
        stop_at_signals("putting the host back as it was"),
        runtime_folder(Path("reclaim") / lever) as runtime,
        kind.connect(runtime, cache_dir()) as host,
        host.running_domain(domain) as handle,
    ):
        vm = LiveVm.find(handle, host.shell, runtime)
        before = vm.measure()
        why_not = chosen.refusal(vm.target)
        predicted = vm.predict(chosen, before)
        document = _document(vm, lever, chosen, why_not, predicted)
        if dry_run:
            if as_json:
                print_json({**document, "measured": {"before": _moment(before)}})
            else:
                _print(vm, lever, chosen, why_not)
                print_table(_table(predicted, before, None))
            return
        if why_not:
            raise InfrastructureError(f"{lever} is refused on {host.shell.name}", details=why_not)
        if not yes:
            _print(vm, lever, chosen, why_not, console=err)
            click.confirm("Do it?", abort=True, err=True)
        pulled, measured = _pulled(vm, chosen, watch)
    if as_json:
        print_json(document | _result(pulled, measured))
        return
    print_table(_table(predicted, measured.before, measured))
    counts = [f"{name.replace('_', ' ')} {value:.0f}" for name, value in pulled.values.items()]
    out.print(escape(", ".join(filter(None, [f"{lever}: {pulled.outcome}", *counts, pulled.message]))))


def _lever(name: str, parameters: dict[str, object]) -> Lever:
    from pydantic import ValidationError

    from orchestrator.levers import LEVERS

    kind = LEVERS[name]
    given = {key: value for key, value in parameters.items() if value is not None}
    strange = [key for key in given if key not in kind.model_fields]
    if strange:
        raise BadInputError(f"{name} takes no --{strange[0].replace('_', '-')}")
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-") if first["loc"] else "option"
        raise BadInputError(f"--{option}: {first['msg'].removeprefix('Value error, ')}") from None


def _pulled(vm: LiveVm, lever: Lever, watch: float) -> tuple[Pulled, Measured]:
    from orchestrator.reclaim import pull

    try:
        return pull(vm, lever, watch)
    except OSError as error:
        raise InfrastructureError(
            f"{vm.name} was gone before it was measured again", details=str(error), hint="virsh list"
        ) from error


def _print(vm: LiveVm, name: str, lever: Lever, why_not: str, *, console: Any = out) -> None:
    if why_not:
        console.print(f"[bold red]refused:[/] {escape(why_not)}")
    touched = vm.touched(lever)
    console.print(f"{name} acts on {lever.scope.value}: {escape(', '.join(_names(vm, lever)))}")
    unasked = [one for one in touched if not one.command.state_folder]
    if unasked and len(touched) > 1:
        pids = ", ".join(str(one.pid) for one in unasked)
        console.print(f"[yellow]whether it is migrated or backed up is not known of process {pids}[/]")
    console.print(f"cost: {escape(lever.cost)}")
    console.print(f"undone: {escape(lever.undone)}")


def _names(vm: LiveVm, lever: Lever) -> Iterator[str]:
    for one in vm.touched(lever):
        yield f"{clean_text(one.command.name or one.comm)} (process {one.pid})"


def _document(vm: LiveVm, name: str, lever: Lever, why_not: str, predicted: Prediction) -> dict[str, Any]:
    return {
        "lever": name,
        "domain": vm.name,
        "host": vm.target.shell.name,
        "scope": lever.scope.value,
        "vms": [{"pid": one.pid, "name": clean_text(one.command.name)} for one in vm.touched(lever)],
        "cost": lever.cost,
        "undone": lever.undone,
        "refused": why_not,
        "predicted": {
            "second_level_at_least_bytes": predicted.tables_at_least,
            "second_level_at_most_bytes": predicted.tables_at_most,
            "grows_at_most_bytes": predicted.takes_at_most,
            "ranges": predicted.ranges,
        },
    }


def _moment(moment: MomentHeld) -> dict[str, Any]:
    return {
        "second_level_bytes": moment.own.value,
        "second_level_reason": moment.own.reason,
        "second_level_of_host_bytes": moment.host.second_level,
        "resident_bytes": moment.host.resident,
        "host_page_table_bytes": moment.host.page_tables,
        "faults": moment.host.faults,
    }


def _result(pulled: Pulled, measured: Measured) -> dict[str, Any]:
    return {
        "outcome": pulled.outcome.value,
        "message": pulled.message,
        "values": dict(pulled.values),
        "watched_seconds": measured.watched_seconds,
        "measured": {
            "before": _moment(measured.before),
            "at_once": _moment(measured.at_once),
            "after": _moment(measured.after),
        },
    }


def _table(predicted: Prediction, before: MomentHeld, measured: Measured | None) -> Table:
    """What is measured, and beside it what was predicted of the end."""
    moments = [before, measured.at_once, measured.after] if measured else [before]
    heads = ["before", "at once", f"after {measured.watched_seconds:.0f} s"] if measured else ["now"]
    table = plain_table()
    for head in ("", *heads, "predicted: at least", "at most"):
        table.add_column(head, justify="left" if not head else "right")

    def add(name: str, values: list[int | None], least: int | None = None, most: int | None = None) -> None:
        predictions = (_NOT_KNOWN if one is None else format_size(one) for one in (least, most))
        table.add_row(
            name, *map(_size, values), *(predictions if (least, most) != (None, None) else ("", ""))
        )

    resident = before.host.resident
    add(
        "second-level tables of the VM",
        [one.own.value for one in moments],
        predicted.tables_at_least,
        predicted.tables_at_most,
    )
    add("second-level tables of all VMs", [one.host.second_level for one in moments])
    add(
        "resident memory of its process",
        [one.host.resident for one in moments],
        resident,
        resident + predicted.takes_at_most,
    )
    add("page tables of its process", [one.host.page_tables for one in moments])
    table.add_row("faults that KVM has handled for it", *(_count(one.host) for one in moments), "", "")
    return table


def _size(value: int | None) -> str:
    return _NOT_KNOWN if value is None else format_size(value)


def _count(held: Held) -> str:
    return _NOT_KNOWN if held.faults is None else f"{held.faults:,}"
