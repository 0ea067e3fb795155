"""What QEMU's monitor and libvirt answer: a guest that has taken its QEMU over answers what it likes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

from orchestrator.host.domain_memory import read_domain
from orchestrator.host.libvirt_domain import LibvirtDomain
from orchestrator.host.ost import in_words, is_ejection, is_failure, is_insertion, is_pending
from targets.base import GOLDEN, TARGETS, Target

_SPLIT = b"\n@@\n"
PCI = (
    b'{"return": [{"bus": 0, "devices": [{"slot": 0, "regions": [{"type": "memory", "address": 4096, "size": 8192, "bar": 1}]},'
    b'{"slot": 1, "regions": [], "pci_bridge": {"devices": [{"slot": 2, "regions": []}]}}]}]}'
)
MEMORY = (
    b'{"return": [{"type": "virtio-mem", "data": {"memaddr": 4294967296, "size": 0, "requested-size": 0,'
    b' "max-size": 1073741824, "block-size": 2097152}}, {"type": "dimm", "data": {"id": "dimm0", "slot": 0, "addr": 1,'
    b' "size": 134217728}}]}'
)
OST = b'{"info": {"device": "dimm0", "source": 3, "status": 128, "slot": "0", "slot-type": "DIMM"}}'
BALLOON = b'{"return": {"actual": 1073741824}}'
ADDRESS = b"Host virtual address for 0x100000 (pc.ram) is 0x7f3c00000000\n"
ERROR = b'{"operation": "write", "nospace": true, "reason": "No space left on device"}'


def _library() -> ModuleType:
    module = ModuleType("libvirt_qemu")
    module.qemuMonitorCommand = lambda handle, _command, _flags: handle.answer  # type: ignore[attr-defined]
    module.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP = 1  # type: ignore[attr-defined]
    return module


@TARGETS.register("monitor-replies")
class MonitorReplies(Target):
    """The first byte of an input says what it is the answer to."""

    name: ClassVar = "monitor-replies"
    executions: ClassVar = 100_000
    most_bytes: ClassVar = 3_000
    tokens: ClassVar = (
        *(
            '"return":',
            '"devices":',
            '"regions":',
            '"pci_bridge":',
            '"data":',
            '"slot-type": "DIMM"',
            '"info":',
            '"msg":',
        ),
        *(
            '"type": "virtio-mem"',
            '"type": "dimm"',
            "<domain>",
            "<memory model='virtio-mem'>",
            "<!ENTITY",
            "unit='KiB'",
        ),
    )

    def __init__(self) -> None:
        self._answer = ""
        libvirt: Any = SimpleNamespace(libvirtError=OSError, VIR_DOMAIN_AFFECT_LIVE=1)
        handle = SimpleNamespace(XMLDesc=lambda: self._answer, memoryStats=dict)
        self._handle: Any = handle
        self._domain = LibvirtDomain(libvirt, SimpleNamespace(), handle, SimpleNamespace())  # type: ignore[arg-type]
        self._asked: tuple[Callable[[str], object], ...] = (
            lambda _: self._domain.pci_memory(),
            lambda _: (self._domain.virtio_mem(), self._domain.dimms()),
            lambda text: self._heard("ACPI_DEVICE_OST", text),
            lambda text: self._heard("MEM_UNPLUG_ERROR", text),
            lambda _: self._domain.balloon_bytes(),
            lambda _: self._domain.host_address(1 << 20),
            lambda _: self._domain.files(),
            read_domain,
            lambda text: self._domain._note(None, None, "BLOCK_IO_ERROR", 0, 0, text, None),
        )

    def seeds(self) -> Iterator[bytes]:
        yield from (
            bytes([number]) + text
            for number, text in enumerate((PCI, MEMORY, OST, b'{"msg": "no"}', BALLOON))
        )
        yield b"\x05" + ADDRESS
        for number in (6, 7):
            for path in sorted(GOLDEN.glob("*domain*.xml")):
                yield bytes([number]) + path.read_bytes()[:2900]
        yield b"\x08" + ERROR

    def feed(self, data: bytes) -> None:
        kept = sys.modules.get("libvirt_qemu")
        sys.modules["libvirt_qemu"] = _library()
        try:
            self._answer = self._handle.answer = data[1:].decode(errors="replace")
            self._asked[(data[0] if data else 0) % len(self._asked)](self._answer)
        finally:
            if kept is None:
                del sys.modules["libvirt_qemu"]
            else:
                sys.modules["libvirt_qemu"] = kept

    def _heard(self, event: str, text: str) -> None:
        self._domain._heard(None, None, event, 0, 0, text, None)
        while not self._domain._answers.empty():
            answer = self._domain._answers.get_nowait()
            _ = (
                in_words(answer),
                is_insertion(answer),
                is_ejection(answer),
                is_pending(answer),
                is_failure(answer),
            )
