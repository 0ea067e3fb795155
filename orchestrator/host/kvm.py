"""Does KVM really run guests on a host? A real kernel is booted under it, and has to print.

/dev/kvm may exist, open and create vCPUs on a machine that cannot run a stock guest (a hypervisor
that passes KVM through without VMX or SVM). So only a kernel that printed under it is believed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from orchestrator.host.shell import HostShell
from orchestrator.printable import printable
from orchestrator.procfs import of_first_processor

KVM_PROBE_SECONDS = 20.0
_NESTED_PATIENCE = 4
QEMU = "qemu-system-x86_64"
_LOOK_SECONDS = 30.0
_DEVICE = Path("/dev/kvm")
_MODULES = Path("/sys/module")
# Printed first thing by every x86 kernel (init/main.c, start_kernel(): pr_notice linux_banner); the
# second is printed once it has found its memory and interrupts, far past the first exits to KVM. A
# panic is not among them: a broken KVM can make a kernel panic early.
_BANNER = "Linux version "
_WELL_UNDER_WAY = "(Memory: |Calibrating delay loop|smpboot: )"
# With any of these QEMU stops the vCPUs for good and goes on itself (kvm_cpu_exec() in accel/kvm/kvm-all.c
# and kvm_arch_handle_exit() in target/i386/kvm/kvm.c: vm_stop(RUN_STATE_INTERNAL_ERROR)). To wait for its
# end would be to wait for the deadline.
_STOPPED = "(KVM internal error|KVM: unknown exit|KVM: entry failed|kvm run failed)"
_MOST_SAID = 200


class KvmState(StrEnum):
    """What became of a kernel under KVM: it printed, its guest failed, or it did neither in time."""

    WORKS = "works"
    FAILS = "fails"
    HANGS = "hangs"


@dataclass(frozen=True)
class KvmCheck:
    """What a probe found. `trouble` is one line for people, empty where KVM works; `seconds` it took."""

    outcome: KvmState
    trouble: str
    seconds: float


def second_level(shell: HostShell) -> str:
    """EPT or NPT where the host's KVM has it switched on, else `none`."""
    for module, parameter, name in (("kvm_intel", "ept", "EPT"), ("kvm_amd", "npt", "NPT")):
        path = str(_MODULES / module / "parameters" / parameter)
        if shell.texts(path).get(path, "").strip() in {"Y", "1"}:
            return name
    return "none"


def loaded(shell: HostShell) -> tuple[str, ...]:
    """The host's modules of KVM, those that are built in as well."""
    found = shell.texts(f"{_MODULES}/kvm*/initstate", f"{_MODULES}/kvm*/parameters/*")
    return tuple(sorted({Path(path).relative_to(_MODULES).parts[0] for path in found}))


def shadow_paging(shell: HostShell) -> str:
    """What a KVM without EPT and NPT is, in a few words; empty where there is no KVM, or one with them."""
    modules = loaded(shell)
    if not modules or second_level(shell) != "none":
        return ""
    flags = of_first_processor(shell.texts("/proc/cpuinfo").get("/proc/cpuinfo", ""), "flags")
    extended = {"vmx", "svm"} & set(flags.split())
    cpu = "" if extended else ", on a CPU without VMX and SVM"
    vendors = [name for name in modules if name != "kvm"]
    if "kvm_pvm" in vendors:
        return f"this KVM is PVM (module kvm_pvm): shadow paging, no EPT or NPT{cpu}"
    return f"this KVM ({' and '.join(vendors or modules)}) has no EPT or NPT: shadow paging{cpu}"


def check_kvm(shell: HostShell, kernel: Path, stopped: Callable[[], bool] = lambda: False) -> KvmCheck | None:
    """Boot `kernel`, a file there, under KVM until it has printed, for up to KVM_PROBE_SECONDS.

    Four times as long in a nested host. None if it was stopped before it was clear.
    """
    # A host of ours is itself emulated, mostly.
    patience = _NESTED_PATIENCE if shell.target and shell.target.ours else 1
    argv = [QEMU, "-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "256"]
    argv += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    argv += ["-serial", "stdio", "-kernel", str(kernel)]
    argv += ["-append", "console=ttyS0 earlyprintk=serial panic=-1"]
    found = shell.watch(
        argv,
        wanted=[_BANNER, _WELL_UNDER_WAY],
        hopeless=_STOPPED,
        seconds=patience * KVM_PROBE_SECONDS,
        stopped=stopped,
    )
    how, seconds = str(found["how"]), float(found["seconds"])
    if how == "stopped":
        return None
    if how == "wanted":
        return KvmCheck(KvmState.WORKS, "", seconds)
    what = shadow_paging(shell)
    hint = f"; {what}" if what else ""
    if how == "time":
        said = _last_line(str(found["out"]))
        printed = f"got no further than '{said}'" if said else "printed nothing"
        trouble = f"a stock kernel {printed} under KVM in {seconds:.0f} s{hint}"
        return KvmCheck(KvmState.HANGS, trouble, seconds)
    why = _first_line(str(found["err"]), _STOPPED) or "QEMU ended"
    trouble = f"/dev/kvm opens but cannot run a stock kernel, which failed after {seconds:.1f} s: {why}{hint}"
    return KvmCheck(KvmState.FAILS, trouble, seconds)


def unusable(shell: HostShell) -> str:
    """Why KVM need not be tried: there is none, or it is not ours to open, or there is no QEMU.

    Empty where it may be tried, which says nothing of whether it works.
    """
    device = shlex.quote(str(_DEVICE))
    script = f"test -e {device} || echo device; test -r {device} -a -w {device} || echo rights; "
    script += f"command -v {QEMU} >/dev/null || echo qemu"
    missing = shell.run(["/bin/sh", "-c", script], seconds=_LOOK_SECONDS).split()
    where = "" if shell.is_here else f" on {shell.name}"
    if "device" in missing:
        return f"there is no /dev/kvm{where}"
    if "rights" in missing:
        return f"/dev/kvm is not yours to open{where} (be in group kvm)"
    return f"{QEMU} is not installed{where}" if "qemu" in missing else ""


def identity(shell: HostShell) -> dict[str, str]:
    """What a check of a host's KVM holds for, apart from the kernel that is tried; empty if not known.

    The device is made anew when KVM's modules are loaded again (misc_register() in kvm_init(),
    virt/kvm/kvm_main.c), which is the only time that their read-only parameters can change. The file of QEMU
    stands for its version: to ask QEMU takes 0.1 s, each time.
    """
    script = f'stat -L -c "%d:%i %t:%T %s %Y %Z" {shlex.quote(str(_DEVICE))} "$(command -v {QEMU})"'
    found = shell.run(["/bin/sh", "-c", f"{script}; command -v {QEMU}"], seconds=_LOOK_SECONDS, check=False)
    lines, boot = found.splitlines(), boot_id(shell)
    if len(lines) != 3 or not boot:
        return {}
    device, program, path = lines
    msrs = f"{_MODULES}/kvm/parameters/ignore_msrs"
    return {
        "boot_id": boot,
        "device": device,
        "qemu": f"{path} {program}",
        "modules": " ".join(loaded(shell)),
        # An MSR that KVM does not know may make a guest fail, and this can be set at any time.
        "ignore_msrs": shell.texts(msrs).get(msrs, "").strip(),
    }


def boot_id(shell: HostShell) -> str:
    """Of the host; empty where its kernel does not say."""
    path = "/proc/sys/kernel/random/boot_id"
    return shell.texts(path).get(path, "").strip()


def qemu_version(shell: HostShell) -> str:
    """As QEMU itself says it."""
    said = shell.run(["timeout", "10", QEMU, "--version"], seconds=_LOOK_SECONDS, check=False)
    return _first_line(said)


def _last_line(text: str) -> str:
    return (_lines(text) or [""])[-1]


def _first_line(text: str, pattern: str = "") -> str:
    """The first line with the pattern in it, else the first line."""
    lines = _lines(text)
    return ([line for line in lines if re.search(pattern, line)] or lines or [""])[0]


def _lines(text: str) -> list[str]:
    """Lines with something in them, bounded, and without what a terminal would act on."""
    lines = (line.strip() for line in printable(text).splitlines())
    return [line[:_MOST_SAID] for line in lines if line]
