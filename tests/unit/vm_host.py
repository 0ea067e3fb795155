"""A host with VMs that a test makes up, behind the shell that all of it is read through."""

from __future__ import annotations

import errno
import fnmatch
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.host.shell import HostShell

PRESENT, ZERO, HUGE = 1 << 3, 1 << 5, 1 << 6  # PAGE_IS_*, include/uapi/linux/fs.h
GIB, MIB, RANGE, PAGE = 1 << 30, 1 << 20, 2 << 20, 4096
RAM = 0x7F00_0000_0000  # where the RAM of the VMs begins in their process
MEMINFO = "PageTables:  100 kB\nSecPageTables:  4096 kB\n"

STAT = "{pid} (qemu) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {ticks} 0 0"


@dataclass
class FakeVm:
    """A process that runs a VM; all of its RAM, `size` bytes, is one anonymous mapping at RAM."""

    pid: int
    argv: Sequence[str]
    size: int = GIB
    kvm: Sequence[int] = (9,)
    cgroup: str = "0::/"
    regions: Sequence[tuple[int, int, int]] = ()
    """(first byte, byte behind the last, categories), from the beginning of its RAM."""
    may_read: bool = True
    vfio: bool = False
    ticks: int = 77
    lines: Sequence[str] = ()
    """More lines of maps."""
    fails: int = 0
    """The error number that reading its memory ends with."""

    @property
    def told(self) -> dict[str, Any]:
        """As the reader tells of it."""
        return {
            "pid": self.pid,
            "ticks": self.ticks,
            "comm": "qemu-system-x86",
            "argv": list(self.argv),
            "vmm": True,
            "may_read": self.may_read,
            "kvm": list(self.kvm) if self.may_read else [],
            "vcpus": 1,
            "vfio": self.vfio,
            "threads": [self.pid, self.pid + 1],
            "user": 0,
            "cgroup": self.cgroup,
        }


@dataclass
class FakeVmHost:
    """What is there to be read."""

    vms: Sequence[FakeVm]
    files: Mapping[str, str] = field(default_factory=dict)
    written: Mapping[str, str] = field(default_factory=dict)
    """Files at paths that a command line names."""
    unread: Sequence[tuple[int, str]] = ()
    cut: bool = False
    asked: list[str] = field(default_factory=list)

    def shell(self) -> HostShell:
        """It, as everything reads it."""
        return HostShell(self._call)

    def _call(self, name: str, *words: Any, **_: object) -> Any:
        self.asked.append(name)
        return getattr(self, f"_{name}")(*words)

    def _vms(self, seconds: float) -> dict[str, Any]:
        assert seconds > 0
        return {"vms": [vm.told for vm in self.vms], "unread": list(self.unread), "cut": self.cut}

    def _texts(self, patterns: Sequence[str]) -> dict[str, str]:
        there = {"/proc/meminfo": MEMINFO, **self.files}
        for vm in self.vms:
            there[f"/proc/{vm.pid}/status"] = (
                f"Name:\tqemu\nUid:\t0\t0\t0\t0\nVmRSS:\t{vm.size >> 10} kB\nVmPTE:\t80 kB\n"
            )
            there[f"/proc/{vm.pid}/stat"] = STAT.format(pid=vm.pid, ticks=vm.ticks)
        return {
            path: text
            for path, text in there.items()
            if any(fnmatch.fnmatchcase(path, one) for one in patterns)
        }

    def _regular_text(self, path: str, most: int) -> str:
        if path not in self.written:
            raise FileNotFoundError(errno.ENOENT, "no such file")
        return self.written[path][:most]

    def _page_tables(self, pid: int, seconds: float) -> dict[str, Any]:
        vm = self._vm(pid)
        status = f"VmRSS:\t{vm.size >> 10} kB\nVmPTE:\t80 kB\n"
        return {
            "started": vm.ticks, "before": status, "after": status, "cgroup": vm.cgroup,
            "tables": (10, 2, 1, 0), "deposited": 3, "zero_only": 0, "sparse": 0, "unseen": 0,
            "scanned": True, "shared": [], "libraries": [],
            "cpu_seconds": 0.0, "longest_seconds": 0.0,
        }  # fmt: skip

    def _large_mappings(self, pid: int, least: int) -> list[str]:
        vm = self._vm(pid)
        line = f"{RAM:x}-{RAM + vm.size:x} rw-p 00000000 00:00 0 "
        return [line, *vm.lines] if vm.size >= least else list(vm.lines)

    def _ram_regions(self, pid: int, ticks: int, address: int, size: int, seconds: float) -> bytes:
        vm = self._vm(pid)
        assert (ticks, seconds > 0) == (vm.ticks, True)
        cut = (
            (max(RAM + first, address), min(RAM + end, address + size), told)
            for first, end, told in vm.regions
        )
        return b"".join(struct.pack("3Q", *one) for one in cut if one[0] < one[1])

    def _vm(self, pid: int) -> FakeVm:
        vm = next(vm for vm in self.vms if vm.pid == pid)
        if vm.fails:
            raise OSError(vm.fails, "it cannot be read")
        return vm


def qemu(*words: str, memory: str = "1G", name: str = "web") -> list[str]:
    """A command line."""
    return ["/usr/bin/qemu-system-x86_64", "-name", f"guest={name},debug-threads=on", "-m", memory, *words]
