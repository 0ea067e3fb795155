"""What an audit measured, as a file that `orchestrator model overcommit` reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.audit.reading import Audit, VmReading
from orchestrator.errors import BadInputError
from orchestrator.printable import clean
from orchestrator.procfs import kib_lines
from orchestrator.store.atomic import replace_text
from orchestrator.units import MIB, format_size, write_size

_FIRST_LINE: Final = "# Written by `orchestrator audit --overcommit`; change what you know better."
_MOST_GUESTS = 300  # more would take `model overcommit` minutes
_ROOM = 2  # as many guests may come as would fit twice
_NAME = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True)
class _Class:
    """A VM as a class of guests; bytes."""

    name: str
    vm: VmReading
    size: int
    resident: int


def write_overcommit(path: Path, audit: Audit, meminfo: str) -> None:
    """Write it, with the host's memory of `meminfo` (/proc/meminfo).

    A file of someone else's is left alone. Raises BadInputError, also when no VM of known size was found.
    """
    if path.exists() and not _is_ours(path):
        raise BadInputError(
            f"{path} was not written by `audit --overcommit`", hint="name another file, or remove that one"
        )
    replace_text(path, overcommit_text(audit, meminfo))


def overcommit_text(audit: Audit, meminfo: str) -> str:
    """The file. What cannot be measured from outside is an assumption, and a comment says so."""
    values = kib_lines(meminfo)
    classes = list(_classes(audit.vms))
    total = values.get("MemTotal", 0)
    if not classes or not total:
        raise BadInputError(
            "there is nothing to write: no VM was found whose size and resident memory are known",
            hint="orchestrator audit says why, VM by VM",
        )
    of_vms = sum(one.resident for one in classes)
    others = max(0, total - values.get("MemAvailable", 0) - of_vms)
    many = _how_many(total - others, classes)
    lines = [
        _FIRST_LINE,
        f"# {clean(audit.machine)}, Linux {clean(audit.kernel)}.",
        "# Sizes, `used` and `huge` are measured. All else is assumed: nothing outside of a guest tells what",
        "# its memory will do, or what its own page tables map.",
        "version: 1",
        f"name: {json.dumps(clean(audit.machine) or 'host')}",
        "host:",
        f"  memory: {write_size(total)}",
        f"  reserved: {write_size(others // MIB * MIB)}  # in use now by other than these VMs",
        f"  swap: {write_size(values.get('SwapFree', 0))}",
        "guests:",
    ]
    for one in classes:
        lines += _class_lines(one, many)
    lines += [f"# {line}" for line in _left_out(audit.vms, classes)]
    minutes = many * len(classes)
    lines += [
        "arrive_every: 1min",
        f"lasts: {minutes + 10}min",
        "policies: [none, empty, pressure_random, lru]",
        "actions: [drop, migrate, compress, swap]",
    ]
    return "\n".join(lines) + "\n"


def _class_lines(one: _Class, many: int) -> Iterator[str]:
    share = min(1.0, one.resident / one.size)
    huge = min(1.0, (one.vm.huge.value or 0) / one.resident) if one.resident else 0.0
    yield f"  {json.dumps(one.name)}:"
    held, needed = one.vm.second_level_bytes, one.vm.second_level_needed
    told = f"held {format_size(held.value)}" if held.value is not None else clean(held.reason, 200)
    more = f", needed {format_size(needed.value)} (predicted)" if needed.value is not None else ""
    yield f"    # Its second-level tables: {told}{more}. The model has one table for each 2 MiB of data."
    yield f"    size: {write_size(one.size)}"
    yield f"    at_most: {many}  # assumed: as many as would fit {_ROOM} times, in even parts"
    yield f"    phases: [{{after: 0s, used: {share:.4f}}}]  # as it is now; how it changes was not watched"
    yield "    entries_per_table: 512  # assumed, the fewest tables: only a look into the guest tells"
    yield f"    huge: {huge:.4f}  # of QEMU's memory; the guest's own share is not known"


def _how_many(room: int, classes: list[_Class]) -> int:
    """Guests of each class, so that together they would fit the room `_ROOM` times."""
    together = max(1, sum(one.resident for one in classes))
    return max(1, min(_MOST_GUESTS // len(classes), _ROOM * room // together))


def _classes(vms: tuple[VmReading, ...]) -> Iterator[_Class]:
    seen: set[str] = set()
    for vm in vms[:50]:  # as many as the file may have
        if vm.memory.value and vm.resident.value is not None:
            name = _NAME.sub("_", vm.domain or vm.comm) or "vm"
            name = f"{name}-{vm.pid}" if name in seen else name
            seen.add(name)
            size = vm.memory.value + (vm.virtio_mem.value or 0)
            yield _Class(name, vm, size, min(size, vm.resident.value))


def _left_out(vms: tuple[VmReading, ...], classes: list[_Class]) -> Iterator[str]:
    pids = {one.vm.pid for one in classes}
    for vm in vms:
        if vm.pid not in pids:
            why = vm.memory.reason if vm.memory.value is None else vm.resident.reason
            name = clean(vm.domain or vm.comm)
            yield f"Left out: {name} ({vm.pid}): {clean(why, 200) or 'more than 50 VMs'}"


def _is_ours(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as stream:
        return stream.read(len(_FIRST_LINE)) == _FIRST_LINE
