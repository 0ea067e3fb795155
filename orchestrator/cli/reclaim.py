"""`reclaim`: free second-level page tables that a VM holds, by a lever."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource
from rich.markup import escape

from orchestrator.cli.options import LEAST_INTERVAL_SECONDS, json_option
from orchestrator.cli.output import clean_text, err, out, print_json
from orchestrator.cli.reclaim_policy import run_policy
from orchestrator.cli.signals import stop_at_signals
from orchestrator.cli.tables import plain_table, print_table
from orchestrator.errors import BadInputError, ExitCode, InfrastructureError
from orchestrator.units import format_size, parse_duration

if TYPE_CHECKING:
    from rich.table import Table

    from orchestrator.host_kinds import HostKind
    from orchestrator.levers import Lever, Prediction, Pulled
    from orchestrator.levers.base import Held
    from orchestrator.reclaim import LiveVm, MomentHeld, Pull

_NOT_KNOWN = "?"
_SETTLE_SECONDS: Final = 15.0
_OF_POLICY: Final = ("policy", "act")  # options that LEVER does not take


def _seconds(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text) if text.replace(".", "", 1).isdigit() else parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command("reclaim")
@click.argument("lever", required=False)
@click.option("--domain", metavar="NAME", help="The VM, by libvirt's name.")
@click.option(
    "--policy",
    metavar="FILE.yaml",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Look at VMs, and use the lever of this file where one is due by it; in place of LEVER.",
)
@click.option(
    "--act",
    is_flag=True,
    help="With --policy: do what is due. Without it, print it and note it in the journal.",
)
@click.option("--connect", metavar="URI", default="qemu:///system", show_default=True, help="Its libvirt.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--watch",
    metavar="TIME",
    callback=_seconds,
    help="LEVER: how long to wait before measuring again, since faults make tables anew; "
    f"{_SETTLE_SECONDS:.0f}s if not given. "
    "With --policy: look again and again, every so often.",
)
@click.option(
    "--min-present", type=click.IntRange(1, 512), help="collapse: pages of a range that must be there."
)
@click.option("--max-growth", metavar="SIZE", help="collapse: memory that the VM's process may gain.")
@click.option("--size", metavar="SIZE", help="slot: size of the DIMM.")
@json_option
@click.pass_context
def reclaim_command(
    ctx: click.Context,
    *,
    lever: str | None,
    domain: str | None,
    policy: Path | None,
    act: bool,
    watch: float | None,
    connect: str,
    dry_run: bool,
    yes: bool,
    min_present: int | None,
    max_growth: str | None,
    size: str | None,
    as_json: bool,
) -> None:
    """Free second-level page tables that a VM holds, by LEVER, or by a policy.

    flush and collapse-and-flush (all VMs of the host), slot and collapse (one VM). Each says first which VMs
    it touches and what it may cost, asks, and measures before, at once and after --watch. What it changes is
    put back at once, and by `clean` after a kill. docs/second-level.md tells what each does, docs/reclaim.md
    what a policy is; with one, nothing is changed without --act.

    \b
    orchestrator reclaim flush --domain web1 --dry-run
    orchestrator reclaim collapse --domain web1 --connect qemu+ssh://root@HOST/system --max-growth 16MiB --yes
    orchestrator reclaim --policy reclaim.yaml --watch 30s --act
    """
    from orchestrator.host_kinds import host_kind

    _check_together(ctx)
    kind = host_kind(connect)
    if not kind.shared or kind.takes_our_memory:
        raise BadInputError(f"{connect!r} has no VMs but our own", hint="use --connect qemu:///system")
    if policy:
        if watch is not None and watch < LEAST_INTERVAL_SECONDS:
            raise BadInputError(f"--watch: less than {LEAST_INTERVAL_SECONDS}s would disturb the host")
        reached = run_policy(policy, kind, watch, act=act)
        ctx.exit(ExitCode.COMPLETED if reached else ExitCode.INFRASTRUCTURE)
    assert lever is not None  # noqa: S101  # checked with the others
    assert domain is not None  # noqa: S101  # as above
    chosen = _lever(lever, {"min_present": min_present, "max_growth": max_growth, "size": size})
    if not (dry_run or yes or sys.stdin.isatty()):
        raise BadInputError("there is no terminal to ask at", hint="see --dry-run first, and then give --yes")
    settle = _SETTLE_SECONDS if watch is None else watch
    _once(kind, domain, lever, chosen, settle, dry_run=dry_run, yes=yes, as_json=as_json)


def _check_together(ctx: click.Context) -> None:
    """Raise BadInputError for options that go with LEVER and --policy, and what both lack."""
    given = {
        param.name: param.opts[0] if param.param_type_name == "option" else param.human_readable_name
        for param in ctx.command.params
        if ctx.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
        and ctx.params[param.name or ""] is not None
    }
    if "policy" in given:
        strange = [words for name, words in given.items() if name not in {*_OF_POLICY, "connect", "watch"}]
        if strange:
            raise BadInputError(
                f"--policy and {strange[0]} exclude each other", hint="the file has the lever and the VMs"
            )
        return
    if "lever" not in given:
        raise BadInputError(
            "neither LEVER nor --policy is given", hint="orchestrator reclaim flush --domain NAME --dry-run"
        )
    strange = [words for name, words in given.items() if name in _OF_POLICY]
    if strange:
        raise BadInputError(
            f"{strange[0]} is for --policy; LEVER is used once", hint="see --dry-run and --yes"
        )
    if "domain" not in given:
        raise BadInputError(f"{ctx.params['lever']} needs --domain", hint="virsh list has the names of VMs")


def _once(
    kind: HostKind,
    domain: str,
    lever: str,
    chosen: Lever,
    settle: float,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Use a lever on a VM, or say what would be done."""
    from orchestrator.guest.cache import cache_dir
    from orchestrator.host.runtime import runtime_folder
    from orchestrator.reclaim import LiveVm
    from orchestrator.reclaim.document import before_it, moment, result

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
        document = before_it(vm, lever, chosen, why_not, predicted)
        if dry_run:
            if as_json:
                print_json({**document, "measured": {"before": moment(before)}})
            else:
                _print(vm, lever, chosen, why_not)
                print_table(_table(predicted, {"now": before}))
            return
        if why_not:
            raise InfrastructureError(f"{lever} is refused on {host.shell.name}", details=why_not)
        if not yes:
            _print(vm, lever, chosen, why_not, console=err)
            click.confirm("Do it?", abort=True, err=True)
        one, pulled = _pulled(vm, chosen, settle)
    if as_json:
        print_json(document | result(pulled, one.moments, settle))
        return
    heads = ("before", "at once", f"after {settle:.0f} s")
    print_table(_table(predicted, dict(zip(heads, one.moments.values(), strict=True))))
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


def _pulled(vm: LiveVm, lever: Lever, settle: float) -> tuple[Pull, Pulled]:
    from orchestrator.reclaim import Pull

    one = Pull(vm, lever)
    try:
        return one, one.run(settle)
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


def _table(predicted: Prediction, columns: Mapping[str, MomentHeld]) -> Table:
    """What is measured, by the head of its column, and beside it what was predicted of the end."""
    moments = list(columns.values())
    table = plain_table()
    for head in ("", *columns, "predicted: at least", "at most"):
        table.add_column(head, justify="left" if not head else "right")

    def add(name: str, values: list[int | None], least: int | None = None, most: int | None = None) -> None:
        predictions = (_NOT_KNOWN if one is None else format_size(one) for one in (least, most))
        table.add_row(
            name, *map(_size, values), *(predictions if (least, most) != (None, None) else ("", ""))
        )

    resident = moments[0].host.resident
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
