"""What QEMU's monitor says, taken apart. The readers raise OF_ANOTHER_SHAPE, those of events nothing."""

from __future__ import annotations

from typing import Any

from orchestrator.host.domain import Dimm, DimmAnswer, VirtioMemState
from orchestrator.jsontext import parse_json
from orchestrator.printable import clean

OF_ANOTHER_SHAPE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What reading JSON of another shape raises: QEMU is a process that its guest may have taken over."""


def dimm_answer(event: str, data: str | None) -> DimmAnswer | None:
    """What an event of QEMU's monitor says of a DIMM; None when it says nothing that counts.

    The numbers of an ACPI_DEVICE_OST are the guest's own, 32 bits each; QEMU names the slot.
    """
    said = event_data(data)
    if event == "ACPI_DEVICE_OST":
        try:
            info = said["info"]
            if info["slot-type"] != "DIMM":
                return None
            numbers = int(info["slot"]), int(info["source"]), int(info["status"])
            return DimmAnswer(clean(info.get("device", "")), *numbers)
        except OF_ANOTHER_SHAPE:
            return None
    if event in {"MEM_UNPLUG_ERROR", "DEVICE_UNPLUG_GUEST_ERROR"}:
        error = clean(said.get("msg") or "the guest refused", 400)
        return DimmAnswer(clean(said.get("device", "")), None, None, None, error)
    return None


def event_data(text: str | None) -> dict[str, Any]:
    """The data of an event; empty where it is no JSON object."""
    try:
        said = parse_json(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def virtio_mem_of(devices: Any) -> VirtioMemState | None:
    """The virtio-mem device of `query-memory-devices` (qapi/machine.json), in bytes; None without one."""
    for device in devices:
        if device["type"] == "virtio-mem":
            data = device["data"]
            return VirtioMemState(
                address=int(data["memaddr"]),
                size=int(data["size"]),
                requested=int(data["requested-size"]),
                maximum=int(data["max-size"]),
                block=int(data["block-size"]),
            )
    return None


def dimms_of(devices: Any) -> tuple[Dimm, ...]:
    """The DIMMs of `query-memory-devices`, by address."""
    data = [device["data"] for device in devices if device["type"] == "dimm"]
    found = (Dimm(str(one["id"]), int(one["slot"]), int(one["addr"]), int(one["size"])) for one in data)
    return tuple(sorted(found, key=lambda dimm: dimm.address))


def pci_memory_of(buses: Any) -> tuple[list[tuple[int, int]], int]:
    """Address and bytes of each memory BAR of `query-pci` (qapi/pci.json), and the number of buses."""
    waiting = list(buses)
    bars, count = [], 0
    while waiting:
        count += 1
        for device in waiting.pop()["devices"]:
            memory = (region for region in device["regions"] if region["type"] == "memory")
            bars += [(int(region["address"]), int(region["size"])) for region in memory]
            bridge = device.get("pci_bridge")
            if bridge:
                waiting.append({"devices": bridge.get("devices", [])})
    return sorted(bars), count
