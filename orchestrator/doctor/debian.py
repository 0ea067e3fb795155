"""The Debian packages that runs need: which are missing, and to install them.

Which they are, and how, stands in debian-packages.sh alone, which ./bootstrap sources.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from orchestrator.doctor.check import CheckResult, Level, Subject
from orchestrator.errors import InfrastructureError
from orchestrator.printable import clean_block

SCRIPT: Final = Path(__file__).with_name("debian-packages.sh")
FIX: Final = "orchestrator doctor --fix"
_LOOK_SECONDS: Final = 60.0


def needed_packages() -> list[str]:
    """All that runs need, by Debian's names."""
    lists = dict(re.findall(r"^(\w+)='([^']*)'", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE))
    return [*lists["packages"].split(), *lists["newer"].split()]


def missing_packages() -> list[str]:
    """Those that are not installed.

    Raises InfrastructureError where packages are not Debian's, or dpkg does not answer.
    """
    absent = [program for program in ("apt-get", "dpkg-query") if shutil.which(program) is None]
    if absent:
        raise InfrastructureError(
            f"there is no {' and no '.join(absent)} on this machine, so nothing can be installed here",
            details=f"Runs need what Debian calls: {' '.join(needed_packages())}",
            hint="install what your system has of these, then: orchestrator doctor",
        )
    argv = ["sh", str(SCRIPT), "missing"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_LOOK_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise InfrastructureError(
            f"dpkg-query did not say in {_LOOK_SECONDS:.0f} s which packages there are", hint=shlex.join(argv)
        ) from None
    if done.returncode:
        raise InfrastructureError(
            f"which packages are missing cannot be told: code {done.returncode}",
            details=clean_block(done.stderr.strip()),
            hint=shlex.join(argv),
        )
    return done.stdout.split()


def install_missing(*, dry_run: bool = False) -> None:
    """Install what is missing as root or through sudo; or print the commands for it.

    Raises InfrastructureError without the right to, or where apt-get fails, which speaks on standard error.
    """
    argv = ["sh", str(SCRIPT), "install", *(["--dry-run"] if dry_run else [])]
    if os.geteuid() != 0 and not dry_run:
        if shutil.which("sudo") is None:
            raise InfrastructureError("only root may install packages", hint=f"as root: {shlex.join(argv)}")
        argv = ["sudo", *([] if sys.stdin.isatty() else ["-n"]), *argv]
    # No deadline of ours: apt-get has its own for the network, and dpkg must not be ended halfway.
    done = subprocess.run(argv, check=False)
    if done.returncode != 0:
        raise InfrastructureError("the packages were not installed, see above", hint=shlex.join(argv))


def packages(_subject: Subject) -> CheckResult:
    """Whether all are there. A program may have come in another way: each has a check of its own."""
    if shutil.which("dpkg-query") is None:
        names = " ".join(needed_packages())
        return CheckResult(Level.NOTE, f"no dpkg here; Debian's names of what runs need: {names}")
    try:
        missing = missing_packages()
    except InfrastructureError as error:
        return CheckResult(Level.UNKNOWN, error.brief, error.hint)
    if missing:
        return CheckResult(Level.NOTE, f"missing: {' '.join(missing)}", FIX)
    return CheckResult(Level.OK, f"all {len(needed_packages())} that runs need")
