"""What the reader finds of processes that run VMs, near and far; a process of ours stands in for one."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from vm_host import MIB, PAGE, RANGE

from orchestrator.host import vm_processes
from orchestrator.host.shell import HostShell
from orchestrator.processes import started_ticks

# It calls itself QEMU, has 16 MiB with some pages in them, and says where.
CHILD = """
import ctypes, mmap, sys
memory = mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for page in (3, 4, 600):
    memory[page * 4096] = 1
print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)
sys.stdin.read()
"""


@contextmanager
def child() -> Iterator[tuple[int, int]]:
    """Its id, and where its memory begins."""
    argv = ["qemu-system-of-a-test", "-c", CHILD]
    process = subprocess.Popen(argv, executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield process.pid, int(process.stdout.readline())
    finally:
        process.communicate(b"")


def test_a_process_of_a_known_name_is_told_of(shell: HostShell) -> None:
    with child() as (pid, _):
        told = shell.vms(30)
        (found,) = (one for one in told["vms"] if one["pid"] == pid)
        assert (found["argv"][0], found["kvm"], found["vcpus"]) == ("qemu-system-of-a-test", [], 0)
        assert found["ticks"] == started_ticks(pid)
        assert found["user"] == os.getuid()
        assert found["cgroup"] == Path(f"/proc/{pid}/cgroup").read_text()
        assert not told["cut"]
    assert all(one["pid"] != pid for one in shell.vms(30)["vms"])


def test_a_look_that_takes_too_long_says_so(shell: HostShell) -> None:
    assert shell.vms(0)["cut"]


def test_a_process_that_holds_a_vm_is_told_of_whatever_it_is_called(tmp_path: Path) -> None:
    """/proc as it is with KVM; links stand in for descriptors."""
    folder = tmp_path / "123"
    (folder / "task" / "123").mkdir(parents=True)
    (folder / "task" / "130").mkdir()
    (folder / "fd").mkdir()
    (folder / "cmdline").write_bytes(b"/opt/crosvm\0run\0")
    (folder / "comm").write_text("crosvm\n")
    (folder / "task" / "123" / "comm").write_text("crosvm\n")
    (folder / "task" / "130" / "comm").write_text("CPU 0/KVM\n")
    (folder / "task" / "130" / "cgroup").write_text("0::/vm/vcpu0\n")
    (folder / "cgroup").write_text("0::/vm/emulator\n")
    (folder / "stat").write_text("123 (cro) svm) S " + " ".join(map(str, range(4, 24))))
    links = {
        "8": "anon_inode:kvm-vm",
        "9": "anon_inode:kvm-vcpu:0",
        "10": "anon_inode:kvm-vcpu:1",
        "0": "/dev/null",
    }
    for number, link in {**links, "11": "/dev/vfio/7"}.items():
        (folder / "fd" / number).symlink_to(link)
    found = vm_processes._vm(folder)
    assert found is not None
    assert (found["kvm"], found["vcpus"], found["vfio"], found["vmm"]) == ([8], 2, True, False)
    assert (found["threads"], found["cgroup"]) == ([123, 130], "0::/vm/vcpu0\n")
    (folder / "fd" / "8").unlink()
    assert vm_processes._vm(folder) is None


def test_its_memory_is_found_and_scanned(shell: HostShell) -> None:
    with child() as (pid, address):
        lines = shell.large_mappings(pid, RANGE)
        mapping = next(
            line
            for line in lines
            if int(line.split("-")[0], 16) <= address < int(line.split("-")[1].split()[0], 16)
        )
        assert mapping.split()[1] == "rw-p"
        ticks = started_ticks(pid)
        assert ticks is not None
        raw = shell.ram_regions(pid, ticks, address, 16 * MIB, 30)
        regions = np.frombuffer(raw, dtype="<u8").reshape(-1, 3).astype(np.int64)
        pages = [
            (first - address) // PAGE
            for first, end, _ in regions.tolist()
            for first in range(first, end, PAGE)
        ]
        assert pages == [3, 4, 600]
        with pytest.raises(OSError, match="ended") as other:
            shell.ram_regions(pid, ticks + 1, address, PAGE, 30)
        assert other.value.errno == errno.ESRCH


def test_pieces_cover_all_and_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call of the kernel's is bounded by addresses and by pages, wherever its bounds fall."""
    with mmap.mmap(-1, 8 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as region:
        region.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(0, 2048, 3):
            region[page * PAGE] = 1
        view = np.frombuffer(region, dtype=np.uint8)
        address = view.ctypes.data
        del view
        ticks = started_ticks(os.getpid())
        assert ticks is not None
        whole = vm_processes.ram_regions(os.getpid(), ticks, address, 8 * MIB, 30)
        monkeypatch.setattr(vm_processes, "_PIECE", 7 * PAGE)
        monkeypatch.setattr(vm_processes, "_PIECE_PAGES", 2)
        assert vm_processes.ram_regions(os.getpid(), ticks, address, 8 * MIB, 30) == whole
        assert len(whole) == 24 * 683
        with pytest.raises(TimeoutError):
            vm_processes.ram_regions(os.getpid(), ticks, address, 8 * MIB, -1)


def test_a_path_of_someone_elses_is_opened_without_effect(shell: HostShell, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("text")
    assert shell.regular_text(str(plain), 3) == "tex"
    link, fifo = tmp_path / "link", tmp_path / "fifo"
    link.symlink_to(plain)
    os.mkfifo(fifo)
    for path in (link, fifo, tmp_path, tmp_path / "missing"):
        with pytest.raises(OSError, match=r".*"):
            shell.regular_text(str(path), 100)
