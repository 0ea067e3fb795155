"""The programs that run inside guests, compiled and run on this machine."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import InfrastructureError
from orchestrator.guest.programs import build_program
from orchestrator.guest.sampler import Tick, read_ticks, sampler_argv
from orchestrator.guest.stream import Stream

ROOT = Path(__file__).parents[2]
SOURCES = {
    "guest-probe": ROOT / "guests" / "programs" / "guest-probe.c",
    "sparse-map": ROOT / "workloads" / "sparse-map" / "sparse-map.c",
}
GIB = 1 << 30


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    cache = tmp_path_factory.mktemp("cache")
    # As in a guest, where a process is known by the name of its file.
    return {name: build_program(source, cache).rename(cache / name) for name, source in SOURCES.items()}


def run(program: Path, *words: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [program, *map(str, words)], capture_output=True, timeout=30, check=False, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_there_is_nothing_to_warn_of(source: Path, tmp_path: Path) -> None:
    argv = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-c", "-o", tmp_path / "x.o", source]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_is_compiled_once_for_each_text(tmp_path: Path) -> None:
    source = tmp_path / "tiny.c"
    source.write_text("int main(void) { return 7; }\n")
    first = build_program(source, tmp_path / "cache")
    stamp = first.stat().st_mtime_ns
    assert run(first).returncode == 7
    assert build_program(source, tmp_path / "cache") == first
    assert first.stat().st_mtime_ns == stamp
    source.write_text("int main(void) { return 8; }\n")
    assert run(build_program(source, tmp_path / "cache")).returncode == 8
    source.write_text("int main(void) { return x; }\n")
    with pytest.raises(InfrastructureError, match="does not compile") as refused:
        build_program(source, tmp_path / "cache")
    assert "tiny.c:1" in refused.value.details
    with pytest.raises(InfrastructureError, match="no program source"):
        build_program(tmp_path / "absent.c", tmp_path / "cache")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("guest-probe", []),
        ("guest-probe", ["sample"]),
        ("guest-probe", ["sample", "9", "/proc/meminfo"]),
        ("guest-probe", ["pageflags"]),
        ("sparse-map", []),
        ("sparse-map", ["1024", "512", "dontneed"]),
        ("sparse-map", ["0", "4096", "dontneed", "0"]),
        ("sparse-map", ["4096", "0", "dontneed", "0"]),
        ("sparse-map", ["4096", "4096", "forget", "0"]),
        ("sparse-map", ["4096", "4096", "dontneed", "all"]),
        ("sparse-map", ["-4096", "4096", "dontneed", "0"]),
    ],
)
def test_bad_arguments(programs: dict[str, Path], program: str, words: list[str]) -> None:
    done = run(programs[program], *words)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr


def ticks_of(program: Path, files: list[str], processes: list[str], count: int) -> list[Tick]:
    argv = [str(program), *sampler_argv(0.01, files, processes)[1:]]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as probe:
        assert probe.stdout is not None
        stream = read_ticks(lambda size: os.read(probe.stdout.fileno(), size))
        ticks = [next(stream) for _ in range(count)]
        probe.stdout.close()
        assert probe.wait(5) in {0, -signal.SIGPIPE}, "it ends when nobody reads it any more"
    return ticks


def test_samples_are_the_files_as_they_are(programs: dict[str, Path]) -> None:
    files = ["/proc/meminfo", "/proc/version", "/proc/nothing"]
    ticks = ticks_of(programs["guest-probe"], files, ["guest-probe", "nobody"], 3)
    for tick in ticks:
        assert tick.files["/proc/version"] == Path("/proc/version").read_text()
        assert "\nPageTables:" in (tick.files["/proc/meminfo"] or "")
        assert tick.files["/proc/nothing"] is None
        assert set(tick.files) == set(files)
        ((comm, pid, text),) = [one for one in tick.processes if one[0] == "guest-probe"]
        assert f"\nPid:\t{pid}\n" in text
        assert comm == "guest-probe"
    uptimes = [tick.uptime_ns for tick in ticks]
    assert uptimes == sorted(uptimes)
    assert uptimes[2] - uptimes[0] > 10_000_000, "there is an interval between them"


@pytest.mark.skipif(not os.access("/proc/kpageflags", os.R_OK), reason="only root may read /proc/kpageflags")
def test_page_flags_are_runs_that_cover_all_frames(programs: dict[str, Path]) -> None:
    """`guest-probe snapshot` against this machine's own memory, read plainly."""
    argv = [programs["guest-probe"], "snapshot", "/proc/sys/kernel/osrelease", "/absent"]
    done = subprocess.run(argv, input=b"all\nflags\n", capture_output=True, timeout=60, check=True)
    written = io.BytesIO(done.stdout)
    stream = Stream(written.read)
    words = (stream.line() or "").split()
    assert words[0] == "#cpu"
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
        head, length, reading_ns = (stream.line() or "").split()
        assert head == "#flags"
        runs = np.frombuffer(stream.exactly(int(length)), dtype="<u8").reshape(-1, 2)
        stream.exactly(1)
        assert (runs[:, 1] > 0).all()
        assert (runs[1:, 0] != runs[:-1, 0]).all(), "neighbouring runs differ, else they were one"
        assert int(runs[:, 1].sum()) == frames
        assert frames * 4096 > psutil.virtual_memory().total
        for bit in (10, 26):  # BUDDY, PGTABLE
            assert ((runs[:, 0] >> np.uint64(bit)) & np.uint64(1)).any()
        head, cpu_ns, parent_ns = (stream.line() or "").split()
        assert head == "#cpu"
        assert 0 < int(reading_ns) <= int(cpu_ns)
        assert int(parent_ns) > 0, "we have used some CPU ourselves"
    assert stream.line() is None


@pytest.fixture
def sparse_map(programs: dict[str, Path]) -> Iterator[Callable[..., dict[str, float]]]:
    """Run sparse-map; what it leaves running is killed in the end."""
    pids: list[int] = []

    def start(*words: object) -> dict[str, float]:
        done = run(programs["sparse-map"], *words)
        assert (done.returncode, done.stderr) == (0, b"")
        answer: dict[str, float] = json.loads(done.stdout)
        pids.append(int(answer["pid"]))
        return answer

    yield start
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_sparse_map_costs_a_table_per_2_mib(sparse_map: Callable[..., dict[str, float]]) -> None:
    answer = sparse_map(GIB, 2 << 20, "keep", 0)
    assert answer["pages_touched"] == 512
    # 512 last-level tables, and the few that any process has.
    assert 512 * 4096 <= answer["page_table_bytes_touched"] <= 600 * 4096
    assert answer["page_table_bytes_let_go"] == answer["page_table_bytes_touched"], "nothing was let go"
    process = psutil.Process(int(answer["pid"]))
    assert process.name() == "sparse-map"
    assert process.memory_info().rss >= 512 * 4096


def test_letting_go_gives_the_pages_back_and_the_process_stays(
    sparse_map: Callable[..., dict[str, float]],
) -> None:
    answer = sparse_map(GIB + 1, 4 << 20, "dontneed", 64 << 20)
    assert answer["pages_touched"] == 257, "a page in the last, broken stride as well"
    process = psutil.Process(int(answer["pid"]))
    assert process.memory_info().rss < 257 * 4096
    assert answer["touch_seconds"] > 0
    process.send_signal(signal.SIGTERM)

    def ended() -> bool | None:
        try:
            return True if process.status() == psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return True

    assert wait_for(ended, Deadline(5), every=0.01)
