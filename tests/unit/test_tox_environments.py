"""Environments of tox.ini that are not part of `tox` begin: no check runs them whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("faults", ["--list"], "qemu-killed: QEMU is killed"),
        ("soak", ["--help"], "--trials"),
    ],
)
def test_it_finds_what_is_installed(name: str, words: list[str], said: str, tmp_path: Path) -> None:
    """tox-current-env has a `python` of its own, which finds nothing that is not the system's."""
    bin_folder = Path(sys.prefix) / "bin"
    environment = {
        **os.environ,
        "VIRTUAL_ENV": sys.prefix,
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "TOX_WORK_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [bin_folder / "tox", "run", "-e", name, "--", *words],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=ROOT,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert said in done.stdout


def test_none_has_the_python_of_tox() -> None:
    text = (ROOT / "tox.ini").read_text(encoding="utf-8")
    commands = [line.partition("= ")[2] for line in text.splitlines() if line.startswith("commands")]
    assert len(commands) >= 10
    assert not [command for command in commands if command.startswith("python")]
