"""Processes that run VMs, and where they have the memory of these.

Sent to other hosts with `orchestrator.host.reader`: Python's standard library and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import re
import stat
import time
from typing import Any

from orchestrator.host.pagemap import Scanner

_MOST_BYTES = 1 << 18
# What an open descriptor is called: anon_inode_getfile() in virt/kvm/kvm_main.c, fops of drivers/vfio.
_KVM_VM, _KVM_VCPU = "anon_inode:kvm-vm", "anon_inode:kvm-vcpu"
_VFIO = ("/dev/vfio/", "anon_inode:[vfio", "anon_inode:[iommufd", "/dev/iommu")
# Programs that run VMs, also without KVM, or as another user who does not let their descriptors be read.
_VMMS = re.compile(r"(qemu-system-.+|qemu-kvm|kvm|cloud-hypervisor|firecracker)")
# vCPU threads, as QEMU (debug-threads=on), Cloud Hypervisor and Firecracker name them.
_VCPU_THREAD = re.compile(r"CPU \d+/KVM|vcpu\d+|fc_vcpu ?\d+")
_MOST_THREADS = 4096


def vms(seconds: float) -> dict[str, Any]:
    """Processes that hold a VM of KVM's open, and those of programs that run VMs.

    `vms` has a dict for each; `unread` (id, cgroup) of processes whose descriptors we may not read, which may
    hold one as well; `cut` whether `seconds` were over before all were looked at.
    """
    until = time.monotonic() + seconds
    found, unread, cut = [], [], False
    for folder in pathlib.Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        if time.monotonic() > until:
            cut = True
            break
        try:
            one = _vm(folder)
            if one is None:
                continue
            if one["may_read"] or one["vmm"]:
                found.append(one)
            if not one["may_read"] and one["argv"]:  # the kernel's threads have none
                unread.append((int(folder.name), one["cgroup"]))
        except (OSError, ValueError):
            continue  # it has ended
    return {"vms": found, "unread": unread, "cut": cut}


def _vm(folder: pathlib.Path) -> dict[str, Any] | None:
    """A process as it is of interest here; None if it runs no VM for sure."""
    with (folder / "cmdline").open("rb") as stream:
        raw = stream.read(_MOST_BYTES)
    argv = [word.decode(errors="replace") for word in raw.split(b"\0")[:-1]]
    known = _VMMS.fullmatch(argv[0].rpartition("/")[2]) if argv else None
    links: dict[str, str] = {}
    may_read = True
    try:
        with os.scandir(folder / "fd") as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # it was closed
                    links[entry.name] = os.readlink(entry.path)  # noqa: PTH115  # a fraction of the time
    except PermissionError:
        may_read = False
    kvm = sorted(int(number) for number, link in links.items() if link == _KVM_VM)
    if not known and not kvm:
        return (
            None if may_read else {"argv": argv, "may_read": False, "vmm": False, "cgroup": _cgroup(folder)}
        )
    threads = sorted(int(one) for one in os.listdir(folder / "task"))[:_MOST_THREADS]  # noqa: PTH208  # as above
    vcpu = next((one for one in threads if _VCPU_THREAD.match(_comm(folder / "task" / str(one)))), None)
    return {
        "pid": int(folder.name),
        "ticks": _ticks(folder),
        "comm": _comm(folder),
        "argv": argv,
        "vmm": bool(known),
        "may_read": may_read,
        "kvm": kvm,
        "vcpus": len({link for link in links.values() if link.startswith(_KVM_VCPU)}),
        "vfio": any(link.startswith(_VFIO) for link in links.values()),
        "threads": threads if kvm else [],
        "user": folder.stat().st_uid,
        "cgroup": _cgroup(folder if vcpu is None else folder / "task" / str(vcpu)),
    }


def _cgroup(folder: pathlib.Path) -> str:
    with (folder / "cgroup").open(errors="replace") as stream:
        return stream.read(_MOST_BYTES)


def _comm(folder: pathlib.Path) -> str:
    try:
        return (folder / "comm").read_text(errors="replace").rstrip("\n")
    except OSError:
        return ""


def large_mappings(pid: int, least: int) -> list[str]:
    """Lines of /proc/PID/maps, of writable mappings of `least` bytes and more."""
    found = []
    with pathlib.Path(f"/proc/{pid}/maps").open(errors="replace") as stream:
        for line in stream:
            start, _, end = line.split(" ", 1)[0].partition("-")
            if int(end, 16) - int(start, 16) >= least and line.split(" ", 2)[1][1:2] == "w":
                found.append(line.rstrip("\n"))
    return found


# In one call of the kernel's, which holds mmap_lock: milliseconds.
_PIECE, _PIECE_PAGES = 4 << 30, 1 << 18


def ram_regions(pid: int, ticks: int, address: int, size: int, seconds: float) -> bytes:
    """(start, end, categories) of PAGEMAP_SCAN, u64 each, of the process that began at `ticks`.

    Raises OSError: ENOTTY where the kernel has no such call, ESRCH when the process has ended, ETIMEDOUT.
    """
    until = time.monotonic() + seconds
    folder = pathlib.Path(f"/proc/{pid}")
    found = bytearray()
    with (folder / "pagemap").open("rb", buffering=0) as pagemap:
        # As in page_tables(): a process that has mappings after its pagemap was opened had them then.
        with (folder / "maps").open("rb") as mappings:
            alive = mappings.read(1)
        if not alive or _ticks(folder) != ticks:
            raise OSError(errno.ESRCH, "it has ended")
        scanner = Scanner(pagemap.fileno())
        place, end = address, address + size
        while place < end:
            if time.monotonic() > until:
                raise OSError(errno.ETIMEDOUT, "it takes too long to read")
            regions, walked = scanner.scan(place, min(end, place + _PIECE), _PIECE_PAGES)
            found += regions.tobytes()
            place = max(walked, place + 4096)
    return bytes(found)


def _ticks(folder: pathlib.Path) -> int:
    return int((folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[19])


def regular_text(path: str, most: int) -> str:
    """A file whose path another process chose: opening it has no effect, whatever it is. Raises OSError.

    No symbolic link, and only then read when it is a regular file: to open a FIFO waits for its other end, to
    open a device may start what it drives.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        with open(descriptor, "rb", closefd=False) as stream:
            return stream.read(most).decode(errors="replace")
    finally:
        os.close(descriptor)
