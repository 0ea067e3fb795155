"""The programs that runs are made with. `./bootstrap` and `doctor --fix` install every one of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path

from orchestrator.doctor.check import BOOTSTRAP, QEMU, CheckResult, Level, Subject

# As in debian-packages.sh: 7.2 emulates nested SVM wrongly and lacks the virtio-mem fixes.
QEMU_MINIMUM = (8, 2)
ANSWER_SECONDS = 20.0
_QEMU_VERSION = re.compile(r"version (\d+)\.(\d+)(\.\d+)?")
# A user's PATH on Debian lacks the sbin folders, where mke2fs is.
_SBIN = ("/usr/sbin", "/sbin")


def qemu(_subject: Subject) -> CheckResult:
    """The emulator, and whether it is new enough."""
    if shutil.which(QEMU) is None:
        return CheckResult(Level.BAD, f"{QEMU} is not installed", BOOTSTRAP)
    said = _first_line([QEMU, "--version"])
    version = _QEMU_VERSION.search(said)
    if version is None:
        return CheckResult(Level.BAD, f"{QEMU} does not say its version: {said}", BOOTSTRAP)
    number = version[0].removeprefix("version ")
    if (int(version[1]), int(version[2])) < QEMU_MINIMUM:
        wanted = ".".join(map(str, QEMU_MINIMUM))
        return CheckResult(Level.BAD, f"{number}: too old, {wanted} or later is needed", BOOTSTRAP)
    return CheckResult(Level.OK, number)


def tool(program: str, version_argv: tuple[str, ...] = ()) -> Callable[[Subject], CheckResult]:
    """A check that `program` is there; found is its version where it tells one, else its path."""
    return partial(_tool, program, version_argv)


def find_program(program: str) -> str | None:
    """Path of a program of a run; None where it is not installed."""
    return shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_SBIN)))


def _tool(program: str, version_argv: tuple[str, ...], _subject: Subject) -> CheckResult:
    path = find_program(program)
    if path is None:
        return CheckResult(Level.BAD, f"{program} is not installed", BOOTSTRAP)
    said = _first_line([path, *version_argv]) if version_argv else ""
    return CheckResult(Level.OK, said or path)


def compiler(_subject: Subject) -> CheckResult:
    """gcc with a static libc, shown by linking a program: guests' own libc may be another."""
    if shutil.which("gcc") is None:
        return CheckResult(Level.BAD, "gcc is not installed", BOOTSTRAP)
    with tempfile.TemporaryDirectory(prefix="orchestrator-doctor-") as scratch:
        done = subprocess.run(
            ["gcc", "-static", "-x", "c", "-o", f"{scratch}/program", "-"],
            input="int main(void) { return 0; }\n",
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
            check=False,
        )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["gcc failed"])[-1]
        return CheckResult(Level.BAD, f"cannot link a static program: {last[:200]}", BOOTSTRAP)
    return CheckResult(Level.OK, f"gcc {_first_line(['gcc', '-dumpfullversion'])}, links statically")


def ansible(_subject: Subject) -> CheckResult:
    """ansible-playbook, beside our interpreter or on PATH: where the guests' set-up looks for it."""
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    path = shutil.which("ansible-playbook", path=places)
    if path is None:
        return CheckResult(Level.BAD, "ansible-playbook is not installed", BOOTSTRAP)
    # Asking the program itself takes a second.
    try:
        return CheckResult(Level.OK, f"ansible-core {metadata.version('ansible-core')}")
    except metadata.PackageNotFoundError:
        return CheckResult(Level.OK, path)


def _first_line(argv: list[str]) -> str:
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # mke2fs -V speaks there
        text=True,
        errors="replace",
        timeout=ANSWER_SECONDS,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    return lines[0].strip()[:200] if lines else ""
