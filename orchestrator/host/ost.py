"""What a guest answers by the _OST method, in the words of the ACPI specification (6.5, 6.3.5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from orchestrator.host.domain import DimmAnswer

# Source events: the notification that is answered, or what the guest did by itself (0x100 and up).
_INSERTIONS: Final = frozenset({0x00, 0x01, 0x200})  # bus check, device check, insertion processing
_EJECTIONS: Final = frozenset({0x03, 0x103})  # ejection request, ejection processing

_GENERAL: Final[Mapping[int, str]] = {
    0x00: "success",
    0x01: "non-specific failure",
    0x02: "unrecognized notify code",
}
_EJECTION: Final[Mapping[int, str]] = {
    0x80: "device ejection not supported by OSPM",
    0x81: "device in use by application",
    0x82: "device busy",
    0x83: "ejection dependency is busy or not supported for ejection by OSPM",
    0x84: "ejection is in progress (pending)",
}
_INSERTION: Final[Mapping[int, str]] = {
    0x80: "device insertion in progress (pending)",
    0x81: "device driver load failure",
    0x82: "device insertion not supported by OSPM",
}
_EJECTION_PENDING: Final = 0x84
_INSERTION_PENDING: Final = 0x80


def is_insertion(answer: DimmAnswer) -> bool:
    """Whether it answers a plug."""
    return answer.source in _INSERTIONS


def is_ejection(answer: DimmAnswer) -> bool:
    """Whether it answers an unplug; what QEMU itself refuses is one."""
    return answer.source is None or answer.source in _EJECTIONS


def is_pending(answer: DimmAnswer) -> bool:
    """Whether the guest says no more than that it has begun (Linux: acpi_generic_hotplug_event())."""
    pending = _EJECTION_PENDING if is_ejection(answer) else _INSERTION_PENDING
    return answer.status == pending


def is_failure(answer: DimmAnswer) -> bool:
    """Whether it is a refusal."""
    return answer.status != 0 and not is_pending(answer)


def in_words(answer: DimmAnswer) -> str:
    """The status with its number, `device busy (0x82)`; or what QEMU said."""
    if answer.status is None:
        return answer.error
    special = _EJECTION if is_ejection(answer) else _INSERTION
    words = _GENERAL.get(answer.status) or special.get(answer.status) or "a status that ACPI does not name"
    return f"{words} ({answer.status:#04x})"
