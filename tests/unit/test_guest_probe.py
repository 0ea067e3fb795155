"""guest-probe, which reads a guest from inside, compiled and run on this machine."""

from __future__ import annotations

import io
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import psutil
import pytest

from orchestrator.guest.programs import build_program
from orchestrator.guest.sampler import Tick, read_ticks, sampler_argv
from orchestrator.guest.stream import Stream

SOURCE = Path(__file__).parents[2] / "guests" / "programs" / "guest-probe.c"


@pytest.fixture(scope="module")
def guest_probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    # As in a guest, where a process is known by the name of its file.
    return build_program(SOURCE, cache).rename(cache / "guest-probe")


def ticks_of(program: Path, files: list[str], processes: list[str], count: int) -> list[Tick]:
    argv = [str(program), *sampler_argv(0.01, files, processes)[1:]]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as probe:
        assert probe.stdout is not None
        printed = probe.stdout.fileno()
        stream = read_ticks(lambda size: os.read(printed, size))
        ticks = [next(stream) for _ in range(count)]
        probe.stdout.close()
        assert probe.wait(5) in {0, -signal.SIGPIPE}, "it ends when it is read no more"
    return ticks


def test_samples_are_the_files_as_they_are(guest_probe: Path) -> None:
    files = ["/proc/meminfo", "/proc/version", "/proc/nothing"]
    ticks = ticks_of(guest_probe, files, ["guest-probe", "nobody"], 3)
    for tick in ticks:
        assert tick.files["/proc/version"] == Path("/proc/version").read_text()
        assert "\nPageTables:" in (tick.files["/proc/meminfo"] or "")
        assert tick.files["/proc/nothing"] is None
        assert set(tick.files) == set(files)
        # Of all of that name on this machine, the one that we started.
        ((comm, pid, text),) = [
            one for one in tick.processes if one[0] == "guest-probe" and f"\nPPid:\t{os.getpid()}\n" in one[2]
        ]
        assert f"\nPid:\t{pid}\n" in text
        assert comm == "guest-probe"
    uptimes = [tick.uptime_ns for tick in ticks]
    assert uptimes == sorted(uptimes)
    assert uptimes[2] - uptimes[0] > 10_000_000, "there is an interval between them"


@pytest.mark.slow
@pytest.mark.skipif(not os.access("/proc/kpageflags", os.R_OK), reason="only root may read /proc/kpageflags")
def test_page_flags_are_runs_that_cover_all_frames(guest_probe: Path) -> None:
    """`guest-probe snapshot` against this machine's own memory, read plainly."""
    argv = [str(guest_probe), "snapshot", "/proc/sys/kernel/osrelease", "/absent"]
    done = subprocess.run(argv, input=b"all\nflags\n", capture_output=True, timeout=60, check=True)
    written = io.BytesIO(done.stdout)
    stream = Stream(written.read)
    assert (stream.line() or "").startswith("#cpu ")
    assert stream.line() == f"#page_owner {int(Path('/sys/kernel/debug/page_owner').exists())}"
    assert stream.line() == f"#file /proc/sys/kernel/osrelease {len(os.uname().release) + 1}"
    assert stream.file("", len(os.uname().release) + 1) == f"{os.uname().release}\n"
    assert stream.line() == "#file /absent -1"
    stream.exactly(1)
    head, length = (stream.line() or "").split()
    assert head == "#online"
    listed = sorted(map(int, stream.exactly(int(length)).split()))
    states = Path("/sys/devices/system/memory").glob("memory*/online")
    assert listed == sorted(
        int(path.parent.name.removeprefix("memory")) for path in states if path.read_text() == "1\n"
    )
    stream.exactly(1)
    with Path("/proc/kpageflags").open("rb", buffering=0) as plain:  # it takes whole words only
        frames = sum(map(len, iter(lambda: plain.read(1 << 20), b""))) // 8
    for _ in ("all", "flags"):
        head, length = (stream.line() or "").split()
        assert head == "#flags"
        runs = np.frombuffer(stream.exactly(int(length)), dtype="<u8").reshape(-1, 2)
        stream.exactly(1)
        assert (runs[:, 1] > 0).all()
        assert (runs[1:, 0] != runs[:-1, 0]).all(), "neighbouring runs differ, else they were one"
        assert int(runs[:, 1].sum()) == frames
        assert frames * 4096 > psutil.virtual_memory().total
        for bit in (10, 26):  # BUDDY, PGTABLE
            assert ((runs[:, 0] >> np.uint64(bit)) & np.uint64(1)).any()
        head, cpu_ns, reading_ns, parent_ns = (stream.line() or "").split()
        assert head == "#cpu"
        assert 0 < int(reading_ns) <= int(cpu_ns)
        assert int(parent_ns) > 0, "we have used some CPU ourselves"
    assert stream.line() is None
