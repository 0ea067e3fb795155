"""An audit on a terminal: what it comes to in a sentence, then tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.markup import escape

from orchestrator.cli.output import clean_text, out, print_next
from orchestrator.cli.tables import plain_table, print_table
from orchestrator.units import format_size

if TYPE_CHECKING:
    from orchestrator.audit.reading import Advice, Amount, Audit, ProcessReading, VmReading

_NAMED = 3  # in the sentence


def show(audit: Audit, *, top: int) -> None:
    """Print it. Of processes the `top` with most page tables that map nothing."""
    when = datetime.fromtimestamp(audit.when, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    out.print(f"[dim]{escape(audit.machine)}, Linux {escape(audit.kernel)}, {when}[/]")
    out.print(f"[bold]{escape(_sentence(audit))}[/]")
    for sentence in _of_vms(audit.vms):
        out.print(f"[bold]{escape(sentence)}[/]")
    advice = next((words for advice in audit.advice for words in advice.next), None)
    if advice:
        print_next(advice)
    notes: list[str] = []
    if audit.vms:
        _vm_tables(audit.vms, notes)
    if audit.processes:
        _process_table(audit, top, notes)
    _advice_list(audit, top)
    out.print()
    for note in (*notes, *_notes(audit, top)):
        out.print(f"[dim]{escape(note)}[/]")


def _sentence(audit: Audit) -> str:
    readings = _readings(audit)
    held = sum(one.page_table_bytes for one in readings)
    unused = sum(one.unused.value or 0 for one in readings)
    text = f"{format_size(unused)} of {format_size(held)} of page tables map nothing"
    worst = [one for one in _by_unused(readings)[:_NAMED] if one.unused.value]
    if not worst:
        return f"{text}."
    named = ", ".join(f"{format_size(one.unused.value or 0)} in {_name(one)}" for one in worst)
    return f"{text}: {named}."


def _of_vms(vms: Sequence[VmReading]) -> Iterator[str]:
    if not vms:
        return
    emulated = [vm for vm in vms if vm.accelerator == "tcg"]
    known = [vm for vm in vms if vm.second_level_bytes.value is not None]
    held = sum(vm.second_level_bytes.value or 0 for vm in known)
    needed = sum(vm.second_level_needed.value or 0 for vm in known)
    if known:
        yield (
            f"{format_size(held)} of second-level page tables in {_count(len(known), 'VM')}, where "
            f"{format_size(needed)} are needed."
        )
    if emulated:
        yield f"{_count(len(emulated), 'VM')} under TCG, without second-level page tables."
    unknown = len(vms) - len(known) - len(emulated)
    if unknown:
        yield f"{_count(unknown, 'VM')} whose second-level page tables are not known."
    machine = vms[0].second_level_of_machine  # the same for each
    if machine.value:
        yield f"{format_size(machine.value)} of second-level page tables are counted for all VMs together."


def _vm_tables(vms: Sequence[VmReading], notes: list[str]) -> None:
    table = plain_table()
    table.add_column("VM", overflow="fold")
    for title in ("pid", "memory", "resident", "VMM's own", "map nothing", "second level", "its needed"):
        table.add_column(title, justify="right")
    for vm in vms:
        own = vm.page_tables
        table.add_row(
            escape(_vm_name(vm)),
            str(vm.pid),
            *(_amount(one, _vm_name(vm), notes) for one in (vm.memory, vm.resident)),
            format_size(own.page_table_bytes) if own else "-",
            _amount(own.unused, _vm_name(vm), notes) if own else "-",
            *(_amount(one, _vm_name(vm), notes) for one in (vm.second_level_bytes, vm.second_level_needed)),
        )
    out.print()
    print_table(table)
    levers = [(vm, lever) for vm in vms for lever in vm.reclaimable if lever.amount.value != 0]
    if levers:
        table = plain_table()
        table.add_column("VM", overflow="fold")
        for title in ("lever", "frees", "touches", "costs", "next"):
            table.add_column(title, overflow="fold")
        for vm, lever in levers:
            amount = _amount(lever.amount, f"{_vm_name(vm)}, {lever.name}", notes)
            table.add_row(
                *map(escape, (_vm_name(vm), lever.name, amount, lever.scope, lever.cost, lever.next))
            )
        out.print()
        print_table(table)


def _process_table(audit: Audit, top: int, notes: list[str]) -> None:
    table = plain_table()
    table.add_column("process", overflow="fold")
    for title in ("pid", "held", "needed", "deposited", "map nothing", "of resident"):
        table.add_column(title, justify="right")
    for one in _by_unused(audit.processes)[:top]:
        table.add_row(
            escape(clean_text(one.comm)),
            str(one.pid),
            format_size(one.page_table_bytes),
            *(_amount(amount, _name(one), notes) for amount in (one.needed, one.deposited, one.unused)),
            f"{one.page_table_bytes / one.resident_bytes:.1%}" if one.resident_bytes else "-",
        )
    out.print()
    print_table(table)


def _advice_list(audit: Audit, top: int) -> None:
    names = {one.pid: _name(one) for one in _readings(audit)}
    for advice in audit.advice[:top]:
        out.print()
        out.print(escape(f"{_who(advice, names)}: {advice.what} ({advice.diagnosis})"))
        for words in advice.next:
            print_next(words)


def _who(advice: Advice, names: dict[int, str]) -> str:
    first = [names.get(pid, str(pid)) for pid in advice.pids[:_NAMED]]
    more = len(advice.pids) - len(first)
    return ", ".join(first) + (f" and {more} more" if more > 0 else "")


def _notes(audit: Audit, top: int) -> Iterator[str]:
    if len(audit.processes) > top:
        yield f"{len(audit.processes) - top} more of the processes that were read: --top, or --json for all."
    if audit.small_processes:
        yield (
            f"Not looked into: {_count(audit.small_processes, 'process')} with little page tables, "
            f"{format_size(audit.small_page_table_bytes)} in all (--min)."
        )
    if audit.not_ours:
        yield (
            f"root would see {_count(audit.not_ours, 'process')} more, with "
            f"{format_size(audit.not_ours_page_table_bytes)} of page tables."
        )
    for gap in audit.gaps:
        yield f"Not read: {clean_text(gap.comm) or 'process'} ({gap.pid}): {clean_text(gap.reason, 200)}."
    yield "Held is measured (VmPTE); needed, deposited and what maps nothing are predicted from pages."
    cost = audit.cost
    if cost.seconds_per_gib is not None:
        longest = cost.longest_call_seconds * 1000
        yield (
            f"This took {cost.cpu_seconds:.3f} s of CPU time, {cost.seconds_per_gib:.3f} s for each "
            "GiB mapped. "
            f"No call held a process's mmap_lock longer than {longest:.1f} ms."
        )


def _amount(amount: Amount, of: str, notes: list[str]) -> str:
    """For a cell; why it is missing, or what it depends on, is a note below the table."""
    if amount.reason:
        note = f"{of}: {clean_text(amount.reason, 300)}."
        if note not in notes:
            notes.append(note)
    if amount.value is None:
        return "-"
    return format_size(amount.value) + ("*" if amount.reason else "")


def _readings(audit: Audit) -> list[ProcessReading]:
    return [*audit.processes, *(vm.page_tables for vm in audit.vms if vm.page_tables)]


def _by_unused(readings: Sequence[ProcessReading]) -> list[ProcessReading]:
    return sorted(readings, key=lambda one: (-(one.unused.value or 0), -one.page_table_bytes))


def _name(one: ProcessReading) -> str:
    return f"{clean_text(one.comm)} ({one.pid})"


def _vm_name(vm: VmReading) -> str:
    return clean_text(vm.domain or vm.comm)


def _count(number: int, what: str) -> str:
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{number} {what if number == 1 else plural}"
