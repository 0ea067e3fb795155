"""A QEMU that libvirt did not start, found as it is."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.audit.reading import VmReading
from orchestrator.audit.vm import find_vms
from orchestrator.deadline import Deadline, wait_for
from orchestrator.host.shell import HostShell

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="there is no qemu-system-x86_64"),
]
MIB = 1 << 20
UUID = "5f1c1f6e-3b0a-4d55-9c0e-6a1f4c1d2e3f"
# Nothing of the guest runs (-S), and no image is needed.
BARE = ("qemu-system-x86_64", "-S", "-display", "none", "-nodefaults", "-accel", "tcg", "-uuid", UUID)
FILLED = (
    "-m",
    "96",
    "-object",
    "memory-backend-ram,id=m,size=96M,prealloc=on",
    "-machine",
    "memory-backend=m",
)


@contextmanager
def qemu(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([*BARE, *words], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def found(shell: HostShell, process: subprocess.Popen[bytes], memory: int) -> VmReading:
    """As soon as its memory is there."""

    def look() -> VmReading | None:
        assert process.poll() is None, process.stderr and process.stderr.read()
        vms = find_vms(shell, None, Deadline(30))
        return next((vm for vm in vms if vm.pid == process.pid and vm.resident.value == memory), None)

    seen = wait_for(look, Deadline(60), every=0.2)
    assert seen is not None, [vm for vm in find_vms(shell, None, Deadline(30)) if vm.pid == process.pid]
    return seen


def test_a_plain_qemu_is_found_with_its_size_and_what_is_resident(shell: HostShell) -> None:
    with qemu("-name", "guest=plain,debug-threads=on", *FILLED) as process:
        vm = found(shell, process, 96 * MIB)
    assert (vm.domain, vm.uuid, vm.vmm, vm.accelerator) == ("plain", UUID, "qemu", "tcg")
    assert vm.memory.value == 96 * MIB
    assert vm.second_level_bytes.reason == vm.second_level_needed.reason == "no second level under TCG"
    assert vm.balloon.value is None
    assert "left alone" in vm.balloon.reason
    assert vm.page_tables is not None
    # An independent source: what the kernel counts of the whole process.
    assert vm.page_tables.resident_bytes >= 96 * MIB


def test_one_that_has_touched_nothing_has_nothing_resident(shell: HostShell) -> None:
    with qemu("-m", "256") as process:
        vm = found(shell, process, 0)
    assert (vm.memory.value, vm.resident.value, vm.domain) == (256 * MIB, 0, None)
    assert vm.memmap.value == 4 * MIB


def test_memory_that_is_shared_is_found_by_its_size_as_well(shell: HostShell) -> None:
    backend = "memory-backend-memfd,id=m,size=64M,share=on,prealloc=on"
    with qemu("-m", "64", "-object", backend, "-machine", "memory-backend=m") as process:
        vm = found(shell, process, 64 * MIB)
    assert not vm.resident.reason, "it is known which mapping it is"


def test_one_that_libvirt_would_ask_about_itself_is_no_vm(shell: HostShell) -> None:
    with qemu("-machine", "none") as process:
        time.sleep(0.5)
        assert process.poll() is None
        assert process.pid not in {vm.pid for vm in find_vms(shell, None, Deadline(30))}


def test_what_libvirt_wrote_down_is_read_where_the_command_line_says(
    shell: HostShell, tmp_path: Path
) -> None:
    key = tmp_path / "lib" / "qemu" / "domain-1-embedded" / "master-key.aes"
    key.parent.mkdir(parents=True)
    key.write_bytes(b"x" * 32)
    state = tmp_path / "run" / "qemu" / "embedded.xml"
    state.parent.mkdir(parents=True)
    secret = f"secret,id=masterKey0,format=raw,file={key}"
    with qemu("-name", "guest=embedded", "-object", secret, *FILLED) as process:
        state.write_text(
            f"<domstatus pid='{process.pid}'><domain type='qemu'><name>embedded</name><uuid>{UUID}</uuid>"
            "<memory unit='MiB'>96</memory><currentMemory unit='MiB'>64</currentMemory>"
            "<devices><memballoon model='virtio'/></devices></domain></domstatus>"
        )
        assert found(shell, process, 96 * MIB).balloon.value == 64 * MIB
        state.unlink()
        state.symlink_to("/dev/zero")
        told = found(shell, process, 96 * MIB)
    assert told.balloon.value is None
    assert "cannot be read" in told.balloon.reason
