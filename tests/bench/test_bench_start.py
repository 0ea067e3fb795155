"""From `orchestrator run` to the first command in a guest: from a saved state, and from power-on.

On real guests, so it takes minutes under software emulation. On the machine as it is, and on one whose KVM
hangs: to wait for that at each run would be most of a warm start.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from orchestrator.guest.cache import CACHE_VARIABLE, cache_dir
from orchestrator.host import kvm

ROOT = Path(__file__).parents[2]
SCENARIO = """\
version: 1
name: first-command
guest: debian-13
machine: {memory: 1GiB, vcpus: 2, virtio_mem: {size: 2GiB, block: 2MiB}}
arms: {only: {kernel: "6.12"}}
steps:
  - exec: {argv: ["true"]}
"""
RUN_SECONDS = 600.0
# The orchestrator with a QEMU and a /dev/kvm of its own for the one purpose of trying KVM.
_HANGS = """\
import sys
from pathlib import Path
from orchestrator.host import kvm
kvm.QEMU, kvm._DEVICE = sys.argv.pop(1), Path(sys.argv.pop(1))
from orchestrator.cli import main
main(sys.argv[1:])
"""
_QEMU = """\
#!/bin/sh
[ "$1" != --version ] || { echo 'QEMU emulator version 0'; exit; }
echo >>"$0.tried"
exec sleep 3600
"""


class Machine:
    """How runs are called. With `hangs`, a kernel prints nothing under KVM, and `tried` counts how often."""

    def __init__(self, folder: Path, *, hangs: bool) -> None:
        self._qemu = folder / "qemu"
        self.argv = [sys.executable, "-m", "orchestrator"]
        self.environment = dict(os.environ)
        if hangs:
            self._qemu.write_text(_QEMU)
            self._qemu.chmod(0o755)
            (folder / "kvm").touch()
            self.argv = [sys.executable, "-c", _HANGS, str(self._qemu), str(folder / "kvm")]
            # Its KVM check is none that another run should find; the image is what takes minutes.
            cache = folder / "cache"
            cache.mkdir()
            for name in ("images", "ssh", "libvirt", "programs"):
                if (cache_dir() / name).is_dir():
                    (cache / name).symlink_to(cache_dir() / name)
            self.environment[CACHE_VARIABLE] = str(cache)

    @property
    def tried(self) -> int:
        """How often the QEMU that hangs was started."""
        noted = self._qemu.with_name("qemu.tried")
        return len(noted.read_text().splitlines()) if noted.exists() else 0


def first_command_seconds(machine: Machine, folder: Path, *words: str) -> float:
    """Seconds from the call of `run` until the first command in the guest had ended."""
    folder.mkdir()
    scenario = folder / "first-command.yaml"
    scenario.write_text(SCENARIO)
    argv = [*machine.argv, "run", str(scenario), "--guests-dir", str(ROOT / "guests")]
    began = time.monotonic()
    with subprocess.Popen(
        [*argv, "--results", str(folder / "results"), *words],
        env=machine.environment,
        stdout=subprocess.DEVNULL,
    ) as run:
        ended = None
        while ended is None and run.poll() is None and time.monotonic() < began + RUN_SECONDS:
            time.sleep(0.02)
            for events in folder.glob("results/*/trials/*/events.jsonl"):
                if '"step.end"' in events.read_text():
                    ended = time.monotonic()
        assert run.wait(RUN_SECONDS) == 0
    assert ended is not None
    return ended - began


@pytest.mark.guest
@pytest.mark.timeout(3 * RUN_SECONDS)
@pytest.mark.parametrize("hangs", [False, True], ids=["the machine as it is", "KVM hangs"])
def test_a_warm_start_takes_a_quarter_of_a_cold_one(
    benchmark: BenchmarkFixture, tmp_path: Path, *, hangs: bool
) -> None:
    machine = Machine(tmp_path, hangs=hangs)
    # Whatever it finds, there is a state behind it.
    making = first_command_seconds(machine, tmp_path / "making")
    cold = first_command_seconds(machine, tmp_path / "cold", "--cold")
    words = (machine, tmp_path / "warm")
    warm = benchmark.pedantic(first_command_seconds, args=words, rounds=1)
    benchmark.extra_info.update(cold_seconds=cold, warm_seconds=warm)
    print(f"\nfirst command after {warm:.1f} s warm, {cold:.1f} s cold")  # noqa: T201  # what a benchmark is for
    if hangs:
        assert making > kvm.KVM_PROBE_SECONDS, "the first run had to find it out"
        assert machine.tried == 1, "and no other"
    assert warm <= cold / 4
