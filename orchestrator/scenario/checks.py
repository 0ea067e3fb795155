"""What is wrong with a scenario although each of its values is well-formed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import BadInputError
from orchestrator.host.bzimage import bzimage_release, not_a_bzimage
from orchestrator.host.kernel_bugs import known_bugs
from orchestrator.host.machine import MEMORY_BLOCK_BYTES, Machine, VirtioMem
from orchestrator.scenario.model import Body, Scenario, Step
from orchestrator.units import MIB, PMD_BYTES, format_size, write_size
from orchestrator.workloads import load_workload
from orchestrator.yamlfile import Location, dotted

MINIMUM_MEMORY_BYTES = 128 * MIB  # a Debian kernel with its initrd does not boot in less

# What a guest costs the host beside its RAM: QEMU's own heap, code and threads, and its page tables
# (8 bytes for each 4 KiB in the process's and once more in the second-level tables: 1/256).
QEMU_OVERHEAD_BYTES = 128 * MIB
PAGE_TABLE_SHARE = 256


@dataclass(frozen=True)
class FieldProblem:
    """What is wrong at a path of the scenario, and what would be right."""

    path: Location
    wrong: str
    right: str


def machine_problems(machine: Machine) -> Iterator[FieldProblem]:
    """Impossible sizes."""
    if machine.memory < MINIMUM_MEMORY_BYTES:
        wrong = f"machine.memory is {write_size(machine.memory)}, too little to boot"
        yield FieldProblem(
            ("machine", "memory"), wrong, f"it should be at least {write_size(MINIMUM_MEMORY_BYTES)}"
        )
    elif machine.memory % PMD_BYTES:
        yield _not_a_multiple(("memory",), machine.memory, PMD_BYTES)
    if machine.virtio_mem is not None:
        yield from _virtio_mem_faults(machine.virtio_mem)
    for number, size in enumerate(machine.dimms):
        if size == 0 or size % MEMORY_BLOCK_BYTES:
            yield _not_a_multiple(("dimms", number), size, MEMORY_BLOCK_BYTES)


def _virtio_mem_faults(device: VirtioMem) -> Iterator[FieldProblem]:
    if device.block < PMD_BYTES or device.block.bit_count() != 1:
        above = max(PMD_BYTES, 1 << max(device.block - 1, 0).bit_length())
        wrong = f"machine.virtio_mem.block is {write_size(device.block)}"
        right = f"it should be a power of two of at least 2MiB, such as {write_size(above)}"
        yield FieldProblem(("machine", "virtio_mem", "block"), wrong, right)
    elif device.size == 0:
        wrong = "machine.virtio_mem.size is 0B"
        yield FieldProblem(("machine", "virtio_mem", "size"), wrong, "it should be at least one block")
    elif device.size % device.block:
        yield _not_a_multiple(("virtio_mem", "size"), device.size, device.block)
    elif device.plugged > device.size:
        wrong = f"machine.virtio_mem.plugged is {write_size(device.plugged)}, more than its size"
        yield FieldProblem(("machine", "virtio_mem", "plugged"), wrong, f"at most {write_size(device.size)}")
    elif device.plugged % device.block:
        yield _not_a_multiple(("virtio_mem", "plugged"), device.plugged, device.block)


def clock_faults(body: Body | None) -> Iterator[FieldProblem]:
    """What a clock that counts instructions does not go with, in a scenario with one arm written into it."""
    if body is None or body.clock != "instructions":
        return
    if body.accel != "tcg":
        wrong = f"accel is {body.accel!r}, and QEMU counts instructions under TCG only"
        yield FieldProblem(("accel",), wrong, "write `accel: tcg`, or `clock: time`")
    if body.machine.vcpus != 1:
        wrong = (
            f"machine.vcpus is {body.machine.vcpus}, and all vCPUs advance the clock that counts instructions"
        )
        yield FieldProblem(("machine", "vcpus"), wrong, "write `vcpus: 1`, or `clock: time`")


def _not_a_multiple(key: Location, size: int, unit: int) -> FieldProblem:
    above = max(unit, -(-size // unit) * unit)
    path: Location = ("machine", *key)
    near = f"{write_size(above - unit)} or {write_size(above)}" if above > unit else write_size(above)
    what = "not a multiple of" if size else "where it takes at least"
    wrong = f"{dotted(path)} is {write_size(size)}, {what} {write_size(unit)}"
    return FieldProblem(path, wrong, f"it should be {near}")


def guest_overhead_bytes(machine: Machine) -> int:
    """Host memory that a guest takes beside its RAM, at the most."""
    return QEMU_OVERHEAD_BYTES + machine.maximum_memory // PAGE_TABLE_SHARE


def unfit(machines: Mapping[str, Machine], available_bytes: int) -> tuple[str, FieldProblem] | None:
    """The largest arm, if fully plugged it does not fit the host's free memory, and what would fit.

    Where trials run side by side, as many do as there is room for, so it is one guest that has to fit.
    """
    largest = max(machines, key=lambda arm: machines[arm].maximum_memory, default=None)
    if largest is None:
        return None
    machine = machines[largest]
    needed = machine.maximum_memory + guest_overhead_bytes(machine)
    if needed <= available_bytes:
        return None
    share = (available_bytes - QEMU_OVERHEAD_BYTES) * PAGE_TABLE_SHARE // (PAGE_TABLE_SHARE + 1)
    room = share // PMD_BYTES * PMD_BYTES
    wrong = (
        f"arm {largest!r} can take {format_size(needed)} of the host "
        f"({format_size(machine.maximum_memory)} of guest memory and what QEMU needs), "
        f"which has {format_size(available_bytes)} available"
    )
    devices = "memory, virtio_mem.size and dimms" if machine.dimms else "memory and virtio_mem.size"
    right = (
        f"{devices} together should be at most {room // MIB}MiB"
        if room >= MINIMUM_MEMORY_BYTES
        else "free memory on this host"
    )
    return largest, FieldProblem(("machine", "memory"), wrong, right)


def label_faults(steps: Mapping[int, Step], arms: Collection[str]) -> Iterator[FieldProblem]:
    """A fault for each snapshot that is called like an earlier one of an arm that has both.

    Tables could not tell them apart; two in different arms have the same column.
    """
    seen: dict[str, set[str]] = {}  # label -> arms that have it
    for number, step in steps.items():
        label = getattr(step.action, "label", None)
        if label is None:
            continue
        taken = seen.setdefault(label, set())
        both = [arm for arm in step.arms if arm in taken]
        if both:
            where = "" if len(both) == len(arms) else f" (in {', '.join(both)})"
            wrong, right = f"a second snapshot is called {label!r}{where}", "give each its own label"
            yield FieldProblem(("steps", number, step.name, "label"), wrong, right)
        taken.update(step.arms)


def workload_faults(steps: Mapping[int, Step], workloads: Path) -> Iterator[FieldProblem]:
    """A fault for each step that names a workload that is not in the folder, or sets it wrongly."""
    for number, step in steps.items():
        name = getattr(step.action, "workload", None)
        if name is None:
            continue
        settings = getattr(step.action, "set", None)
        try:
            load_workload(workloads / name)
        except BadInputError as error:
            yield FieldProblem(("steps", number, step.name, "workload"), error.brief, error.hint)
            continue
        try:
            load_workload(workloads / name, settings)
        except BadInputError as error:
            yield FieldProblem(("steps", number, step.name, "set"), error.brief, error.hint)


def kernel_file_fault(written: str, path: Path) -> tuple[str, str] | None:
    """What is wrong with a file that shall be booted, and what would be right; None if it is a bzImage."""
    if not path.is_file():
        return f"kernel {written!r}: {path} is not a regular file", "give the path of a bzImage"
    try:
        found = not_a_bzimage(path)
    except OSError as error:
        return f"kernel {written!r}: {path} cannot be read: {error.strerror}", "give the path of a bzImage"
    return (f"kernel {written!r} is {found[0]}", found[1]) if found else None


def kernel_warnings(scenario: Scenario) -> list[str]:
    """What is known to be wrong with the bzImages that a scenario names, by their headers."""
    paths = [path for arm in scenario.arms for path in (arm.kernel, arm.host_kernel) if "/" in path]
    return [
        f"{path}: {warning}"
        for path in dict.fromkeys(paths)
        for warning in known_bugs(bzimage_release(Path(path)))
    ]
