"""What is wrong with a scenario although each of its values is well-formed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import BadInputError, Problem
from orchestrator.host.kernel_faults import bzimage_release, known_faults
from orchestrator.host.machine import MEMORY_BLOCK_BYTES, Machine, VirtioMem
from orchestrator.host_kinds import host_kind
from orchestrator.scenario.model import Scenario
from orchestrator.units import MIB, PMD_BYTES, format_size, write_size
from orchestrator.workloads import load_workload
from orchestrator.yamlfile import Location, dotted

MINIMUM_MEMORY_BYTES = 128 * MIB  # a Debian kernel with its initrd does not boot in less

# What a guest costs the host beside its RAM: QEMU's own heap, code and threads, and its page tables
# (8 bytes for each 4 KiB in the process's and once more in the second-level tables: 1/256).
QEMU_OVERHEAD_BYTES = 128 * MIB
PAGE_TABLE_SHARE = 256


@dataclass(frozen=True)
class Fault:
    """What is wrong at a path of the scenario, and what would be right."""

    path: Location
    wrong: str
    right: str


def machine_faults(machine: Machine) -> Iterator[Fault]:
    """Impossible sizes."""
    if machine.memory < MINIMUM_MEMORY_BYTES:
        wrong = f"machine.memory is {write_size(machine.memory)}, too little to boot"
        yield Fault(("machine", "memory"), wrong, f"it should be at least {write_size(MINIMUM_MEMORY_BYTES)}")
    elif machine.memory % PMD_BYTES:
        yield _not_a_multiple(("memory",), machine.memory, PMD_BYTES)
    if machine.virtio_mem is not None:
        yield from _virtio_mem_faults(machine.virtio_mem)
    for number, size in enumerate(machine.dimms):
        if size == 0 or size % MEMORY_BLOCK_BYTES:
            yield _not_a_multiple(("dimms", number), size, MEMORY_BLOCK_BYTES)


def _virtio_mem_faults(device: VirtioMem) -> Iterator[Fault]:
    if device.block < PMD_BYTES or device.block.bit_count() != 1:
        above = max(PMD_BYTES, 1 << max(device.block - 1, 0).bit_length())
        wrong = f"machine.virtio_mem.block is {write_size(device.block)}"
        right = f"it should be a power of two of at least 2MiB, such as {write_size(above)}"
        yield Fault(("machine", "virtio_mem", "block"), wrong, right)
    elif device.size == 0:
        wrong = "machine.virtio_mem.size is 0B"
        yield Fault(("machine", "virtio_mem", "size"), wrong, "it should be at least one block")
    elif device.size % device.block:
        yield _not_a_multiple(("virtio_mem", "size"), device.size, device.block)
    elif device.plugged > device.size:
        wrong = f"machine.virtio_mem.plugged is {write_size(device.plugged)}, more than its size"
        yield Fault(("machine", "virtio_mem", "plugged"), wrong, f"at most {write_size(device.size)}")
    elif device.plugged % device.block:
        yield _not_a_multiple(("virtio_mem", "plugged"), device.plugged, device.block)


def _not_a_multiple(key: Location, size: int, unit: int) -> Fault:
    above = max(unit, -(-size // unit) * unit)
    path: Location = ("machine", *key)
    near = f"{write_size(above - unit)} or {write_size(above)}" if above > unit else write_size(above)
    what = "not a multiple of" if size else "where it takes at least"
    wrong = f"{dotted(path)} is {write_size(size)}, {what} {write_size(unit)}"
    return Fault(path, wrong, f"it should be {near}")


def guest_overhead_bytes(machine: Machine) -> int:
    """Host memory that a guest takes beside its RAM, at the most."""
    return QEMU_OVERHEAD_BYTES + machine.maximum_memory // PAGE_TABLE_SHARE


def check_fits(scenario: Scenario, available_bytes: int) -> list[Problem]:
    """A problem if the largest arm, fully plugged, does not fit the host's free memory.

    Where trials run side by side, as many do as there is room for, so it is one guest that has to fit.
    """
    if not host_kind(scenario.body.host).takes_our_memory:
        return []
    largest = max(scenario.arms, key=lambda arm: arm.machine.maximum_memory)
    needed = largest.machine.maximum_memory + guest_overhead_bytes(largest.machine)
    if needed <= available_bytes:
        return []
    share = (available_bytes - QEMU_OVERHEAD_BYTES) * PAGE_TABLE_SHARE // (PAGE_TABLE_SHARE + 1)
    room = share // PMD_BYTES * PMD_BYTES
    wrong = (
        f"arm {largest.name!r} can take {format_size(needed)} of the host "
        f"({format_size(largest.machine.maximum_memory)} of guest memory and what QEMU needs), "
        f"which has {format_size(available_bytes)} available"
    )
    devices = "memory, virtio_mem.size and dimms" if largest.machine.dimms else "memory and virtio_mem.size"
    right = (
        f"{devices} together should be at most {room // MIB}MiB"
        if room >= MINIMUM_MEMORY_BYTES
        else "free memory on this host"
    )
    return [scenario.views[largest.name].problem(("machine", "memory"), wrong, right)]


def check_labels(scenario: Scenario) -> list[Problem]:
    """A problem for each snapshot that is called like an earlier one of an arm that has both.

    Tables could not tell them apart; two in different arms have the same column.
    """
    seen: dict[str, set[str]] = {}  # label -> arms that have it
    problems = []
    for number, step in enumerate(scenario.steps):
        label = getattr(step.action, "label", None)
        if label is None:
            continue
        taken = seen.setdefault(label, set())
        both = [arm for arm in step.arms if arm in taken]
        if both:
            where = "" if len(both) == len(scenario.arms) else f" (in {', '.join(both)})"
            wrong, right = f"a second snapshot is called {label!r}{where}", "give each its own label"
            problems.append(scenario.file.problem(("steps", number, step.name, "label"), wrong, right))
        taken.update(step.arms)
    return problems


def kernel_warnings(scenario: Scenario) -> list[str]:
    """What is known to be wrong with the bzImages that a scenario names, by their headers."""
    paths = [path for arm in scenario.arms for path in (arm.kernel, arm.host_kernel) if "/" in path]
    return [
        f"{path}: {warning}"
        for path in dict.fromkeys(paths)
        for warning in known_faults(bzimage_release(Path(path)))
    ]


def check_workloads(scenario: Scenario, workloads: Path) -> list[Problem]:
    """A problem for each step that names a workload that is not in the folder, or sets it wrongly."""
    problems = []
    for number, step in enumerate(scenario.steps):
        name = getattr(step.action, "workload", None)
        if name is None:
            continue
        settings = getattr(step.action, "set", None)
        try:
            load_workload(workloads / name)
        except BadInputError as error:
            at: Location = ("steps", number, step.name, "workload")
            problems.append(scenario.file.problem(at, error.brief, error.hint))
            continue
        try:
            load_workload(workloads / name, settings)
        except BadInputError as error:
            at = ("steps", number, step.name, "set")
            problems.append(scenario.file.problem(at, error.brief, error.hint))
    return problems
