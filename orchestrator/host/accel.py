"""Does KVM really run guests here? And which second-level translation would it use?

/dev/kvm may exist, open and create vCPUs on a machine that cannot run a stock guest (a hypervisor
that passes KVM through without VMX or SVM). So only a kernel that printed under it is believed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from orchestrator.deadline import Deadline
from orchestrator.host.shell import HostShell

_CONSOLE_BYTES = 1 << 20
KVM_PROBE_SECONDS = 20.0
_DEVICE = Path("/dev/kvm")
_MODULES = Path("/sys/module")
# Printed first thing by every x86 kernel (init/main.c, start_kernel(): pr_notice linux_banner); the
# second is printed once it has found its memory and interrupts, far past the first exits to KVM. A
# panic is not among them: a broken KVM can make a kernel panic early.
_BANNER = "Linux version "
_WELL_UNDER_WAY = re.compile(r"(Memory: |Calibrating delay loop|smpboot: )")


@dataclass(frozen=True)
class Acceleration:
    """`name` is kvm or tcg; `reason` is one line for people; `second_level` is EPT, NPT or none."""

    name: str
    reason: str
    second_level: str


def second_level(shell: HostShell) -> str:
    """EPT or NPT where the host's KVM has it switched on, else `none`."""
    for module, parameter, name in (("kvm_intel", "ept", "EPT"), ("kvm_amd", "npt", "NPT")):
        path = str(_MODULES / module / "parameters" / parameter)
        if shell.texts(path).get(path, "").strip() in {"Y", "1"}:
            return name
    return "none"


def probe_kvm(kernel: Path) -> str:
    """Boot `kernel` under KVM until it has printed. Empty when it did, else why KVM is no use."""
    if not _DEVICE.exists():
        return "there is no /dev/kvm"
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return "/dev/kvm is not yours to open (be in group kvm)"
    if shutil.which("qemu-system-x86_64") is None:
        return "qemu-system-x86_64 is not installed"
    # A file without a name: nothing stays behind, however this ends.
    with tempfile.TemporaryFile() as console:
        number = console.fileno()
        # Should we be killed, so is it: a kernel that hangs would keep a CPU busy for good.
        argv = ["setpriv", "--pdeathsig", "KILL"]
        argv += ["qemu-system-x86_64", "-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "256"]
        argv += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        argv += ["-serial", f"file:/dev/fd/{number}", "-kernel", str(kernel)]
        argv += ["-append", "console=ttyS0 earlyprintk=serial panic=-1"]
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[number],
        ) as qemu:
            try:
                deadline = Deadline(KVM_PROBE_SECONDS)
                while not deadline.expired:
                    ended = qemu.poll() is not None  # before reading, so that its last words are read
                    printed = os.pread(number, _CONSOLE_BYTES, 0).decode(errors="replace")
                    if _BANNER in printed and _WELL_UNDER_WAY.search(printed):
                        return ""
                    if ended:
                        assert qemu.stderr is not None  # noqa: S101  # it is a pipe
                        said = qemu.stderr.read().strip().splitlines() or ["QEMU ended"]
                        return f"/dev/kvm opens but cannot run a stock kernel: {said[0][:200]}"
                    time.sleep(0.05)
                return f"a stock kernel printed nothing under KVM in {KVM_PROBE_SECONDS:.0f} s"
            finally:
                qemu.kill()


def probe_kvm_of(shell: HostShell, kernel: Path) -> str:
    """`probe_kvm` on a host elsewhere, for a kernel that is there."""
    if not shell.texts("/sys/module/kvm/parameters/*"):
        return f"{shell.name} has no KVM"
    # Should timeout(1) be killed, so is QEMU: a kernel that hangs would keep a CPU of theirs busy for good.
    argv = ["timeout", "-k", "5", f"{KVM_PROBE_SECONDS:.0f}", "setpriv", "--pdeathsig", "KILL"]
    argv += ["qemu-system-x86_64", "-machine", "q35", "-accel", "kvm"]
    argv += ["-cpu", "host", "-m", "256", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    argv += ["-serial", "stdio", "-kernel", str(kernel)]
    argv += ["-append", "console=ttyS0 earlyprintk=serial panic=-1"]
    printed = shell.run(argv, seconds=2 * KVM_PROBE_SECONDS, check=False)
    if _BANNER in printed and _WELL_UNDER_WAY.search(printed):
        return ""
    return f"KVM of {shell.name} cannot run a stock kernel"


def choose(wanted: str, kernel: Path, shell: HostShell | None = None) -> Acceleration:
    """`auto`, `kvm` or `tcg`, decided. Asking for kvm where it does not work is left to the caller.

    `shell` is a host elsewhere, and `kernel` a file there.
    """
    if wanted == "tcg":
        return Acceleration("tcg", "software emulation, as the scenario asks", "none")
    trouble = probe_kvm_of(shell, kernel) if shell else probe_kvm(kernel)
    if trouble:
        return Acceleration("tcg", f"software emulation: {trouble}", "none")
    return Acceleration("kvm", "KVM: a stock kernel printed under it", second_level(shell or HostShell()))
