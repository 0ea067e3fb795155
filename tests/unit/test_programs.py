"""The programs that run inside guests, compiled and run on this machine."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import InfrastructureError
from orchestrator.guest.programs import build_program
from orchestrator.procfs import kib_lines
from orchestrator.workloads import WorkloadDriver, load_workload

ROOT = Path(__file__).parents[2]
WORKLOADS: dict[Path, WorkloadDriver] = {
    yaml.parent: load_workload(yaml.parent) for yaml in sorted((ROOT / "workloads").glob("*/workload.yaml"))
}
SOURCES = {"guest-probe": ROOT / "guests" / "programs" / "guest-probe.c"} | {
    driver.processes[0]: folder / driver.program
    for folder, driver in WORKLOADS.items()
    if driver.program.endswith(".c")
}
LINKAGE = {driver.processes[0]: driver.linkage for driver in WORKLOADS.values()}
HOLDERS = sorted(SOURCES.keys() - {"guest-probe"})
GIB, MIB = 1 << 30, 1 << 20


def may_mount() -> bool:
    (capabilities,) = [
        line.split()[1]
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("CapEff:")
    ]
    return bool(int(capabilities, 16) >> 21 & 1)  # CAP_SYS_ADMIN


def has_io_uring() -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    ring = libc.syscall(425, 1, ctypes.create_string_buffer(120))  # io_uring_setup(), asm/unistd_64.h
    if ring >= 0:
        os.close(ring)
        return True
    return ctypes.get_errno() not in {errno.ENOSYS, errno.EPERM}


needs_mount = pytest.mark.skipif(not may_mount(), reason="only who has CAP_SYS_ADMIN may mount")
needs_io_uring = pytest.mark.skipif(
    not has_io_uring(), reason="the kernel or a seccomp filter refuses io_uring"
)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    cache = tmp_path_factory.mktemp("cache")
    # As in a guest, where a process is known by the name of its file.
    return {
        name: build_program(source, cache, LINKAGE.get(name, "static")).rename(cache / name)
        for name, source in SOURCES.items()
    }


def run(program: Path, *words: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [program, *map(str, words)], capture_output=True, timeout=30, check=False, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_there_is_nothing_to_warn_of(source: Path, tmp_path: Path) -> None:
    argv = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-c", "-o", "x.o", str(source)]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
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


def test_another_header_makes_another_program(tmp_path: Path) -> None:
    source, header = tmp_path / "mine" / "tiny.c", tmp_path / "common" / "tiny.h"
    for path, text in (
        (source, '#include "../common/tiny.h"\nint main(void) { return CODE; }\n'),
        (header, ""),
    ):
        path.parent.mkdir()
        path.write_text(text)
    header.write_text("#define CODE 3\n")
    first = build_program(source, tmp_path / "cache")
    assert run(first).returncode == 3
    header.write_text("#define CODE 4\n")
    assert run(build_program(source, tmp_path / "cache")).returncode == 4
    header.write_text("#define CODE 3 /* again */\n")
    assert build_program(source, tmp_path / "cache") == first, "what the compiler sees is the same"
    header.unlink()
    with pytest.raises(InfrastructureError, match="does not compile") as refused:
        build_program(source, tmp_path / "cache")
    assert "tiny.h" in refused.value.details


def test_linkage_is_part_of_a_program(tmp_path: Path) -> None:
    source = tmp_path / "tiny.c"
    source.write_text("int main(void) { return 0; }\n")
    static, dynamic = build_program(source, tmp_path / "c"), build_program(source, tmp_path / "c", "dynamic")
    interpreter = b"/ld-linux-x86-64.so.2"
    assert interpreter in dynamic.read_bytes()
    assert interpreter not in static.read_bytes()


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
        ("guest-probe", ["pageflags", "more"]),
        *((name, words) for name in HOLDERS for words in ([], ["0"], ["-4096"], ["1MiB"], ["4096", "x=1"])),
        ("sparse-map", ["4096", "stride=0"]),
        ("sparse-map", ["4096", "advice=forget"]),
        ("sparse-map", ["4096", "advice"]),
        ("sparse-map", ["4096", "chunk=all"]),
        ("sparse-map", ["4096", "chunk=99999999999999999999"]),
        ("sparse-map", ["4096", "window=all"]),
        ("sparse-map", ["4096", "=keep"]),
        ("sockets", ["4096", "connections=0"]),
        ("sockets", ["4096", "family=unixtcp"]),
        ("sockets", ["4096", "family="]),
    ],
)
def test_bad_arguments(programs: dict[str, Path], program: str, words: list[str]) -> None:
    done = run(programs[program], *words)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr


Hold = Callable[..., dict[str, float]]


@pytest.fixture
def hold(programs: dict[str, Path]) -> Iterator[Hold]:
    """Run a program that stays; what it leaves running is killed in the end."""
    pids: list[int] = []

    def start(name: str, *words: object) -> dict[str, float]:
        done = run(programs[name], *words)
        assert (done.returncode, done.stderr) == (0, b"")
        answer: dict[str, float] = json.loads(done.stdout)
        pids.append(int(answer["pid"]))
        return answer

    yield start
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def end(answer: dict[str, float]) -> None:
    """End it as a driver does, and wait for that."""
    process = psutil.Process(int(answer["pid"]))
    process.send_signal(signal.SIGTERM)

    def ended() -> bool | None:
        try:
            return True if process.status() == psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return True

    assert wait_for(ended, Deadline(20), every=0.01)


def test_a_sparse_map_costs_a_table_per_2_mib(hold: Hold) -> None:
    answer = hold("sparse-map", GIB, "advice=keep")
    assert answer["pages_touched"] == 512
    # 512 last-level tables, and the few that any process has.
    assert 512 * 4096 <= answer["page_table_bytes_touched"] <= 600 * 4096
    assert answer["page_table_bytes_discarded"] == answer["page_table_bytes_touched"], "nothing was discarded"
    assert answer["held_bytes"] == answer["page_table_bytes_discarded"]
    assert answer["start_seconds"] >= answer["touch_seconds"] > 0
    process = psutil.Process(int(answer["pid"]))
    assert process.name() == "sparse-map"
    assert process.memory_info().rss >= 512 * 4096


def test_letting_go_gives_the_pages_back_and_the_process_stays(hold: Hold) -> None:
    answer = hold("sparse-map", GIB + 1, f"stride={4 << 20}", "advice=dontneed", f"chunk={64 << 20}")
    assert answer["pages_touched"] == 257, "a page in the last, broken stride as well"
    assert psutil.Process(int(answer["pid"])).memory_info().rss < 257 * 4096
    end(answer)


def status_bytes(pid: float | str, name: str) -> int:
    pid = pid if isinstance(pid, str) else int(pid)
    return kib_lines(Path(f"/proc/{pid}/status").read_text())[name]


def test_with_a_window_tables_grow_where_pages_do_not(hold: Hold, frees_empty_tables: bool) -> None:
    span, window = 16 * GIB, 128 * MIB
    tables, at_once = span // (2 * MIB), window // (2 * MIB)
    answer, whole = hold("sparse-map", span, f"window={window}"), hold("sparse-map", span)
    assert answer["pages_touched"] == whole["pages_touched"] == tables
    resident = status_bytes(answer["pid"], "VmHWM")
    assert status_bytes(whole["pid"], "VmHWM") >= tables * 4096
    assert resident <= at_once * 4096 + 4 * MIB, "the pages of a window, and the program itself"
    most = at_once if frees_empty_tables else tables
    assert most * 4096 <= answer["page_table_bytes_touched"] <= (most + 90) * 4096
    assert answer["held_bytes"] == status_bytes(answer["pid"], "VmPTE")
    left = 0 if frees_empty_tables else tables
    assert left * 4096 <= answer["held_bytes"] <= (left + 90) * 4096


@pytest.mark.parametrize(("stride", "window"), [(3 * MIB, 4 * MIB), (8 * MIB, 4 * MIB), (4096, 4096)])
def test_a_window_leaves_no_page_out(hold: Hold, stride: int, window: int) -> None:
    """Also where no page of a window is due, or its first one is not at its beginning."""
    span = 64 * MIB + 1
    whole = hold("sparse-map", span, f"stride={stride}", "backing=file", "advice=keep")
    pieces = hold("sparse-map", span, f"stride={stride}", "backing=file", f"window={window}", "advice=keep")
    assert pieces["pages_touched"] == whole["pages_touched"] == -(-span // stride)
    mapped = [
        one.rss
        for answer in (whole, pieces)
        for one in psutil.Process(int(answer["pid"])).memory_maps()
        if "sparse-map-" in one.path
    ]
    assert mapped == [-(-span // stride) * 4096] * 2
    end(hold("sparse-map", span, f"stride={stride}", f"window={window}"))


def test_a_sparse_map_of_a_file_costs_the_same_tables(hold: Hold) -> None:
    answer = hold("sparse-map", GIB, "backing=file", "advice=keep")
    assert 512 * 4096 <= answer["page_table_bytes_touched"] <= 600 * 4096
    process = psutil.Process(int(answer["pid"]))
    (mapped,) = [path for path in process.memory_maps() if "sparse-map-" in path.path]
    assert mapped.rss == 512 * 4096, "the pages that were touched, and none that was read ahead"
    assert not list(Path("/var/tmp").glob("sparse-map-*")), "nothing is left to clean up"
    gone = hold("sparse-map", GIB, "backing=file", "chunk=4096")
    assert gone["page_table_bytes_touched"] >= 512 * 4096
    assert not [
        path
        for path in psutil.Process(int(gone["pid"])).memory_maps()
        if path.rss and "sparse-map-" in path.path
    ]


@pytest.mark.parametrize(
    ("name", "words", "amount"),
    [
        ("pipes", [], 2 * MIB + 1),
        ("pipes", ["capacity=65536"], MIB),
        ("sockets", ["family=tcp"], MIB + 1),
        ("sockets", ["family=unix", "connections=16"], MIB + 1),
        ("mlock", [], 65536),
        ("mlock", ["thp=guest"], 65536),
        pytest.param("pin", [], 65536, marks=needs_io_uring),
        pytest.param("tmpfs", [f"file={MIB}"], 5 * MIB + 4096, marks=needs_mount),
    ],
)
def test_what_is_asked_for_is_held_to_the_byte(hold: Hold, name: str, words: list[str], amount: int) -> None:
    answer = hold(name, amount, *words)
    assert answer["held_bytes"] == amount
    assert psutil.Process(int(answer["pid"])).name() == name
    end(answer)


def test_a_program_that_is_killed_at_work_says_by_which_signal(programs: dict[str, Path]) -> None:
    """As by the OOM killer: its child is gone, and who waits for the first word of it is told."""
    argv = [str(programs["sparse-map"]), str(64 << 40), "stride=4096", f"window={2 * MIB}"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as parent:
        children = wait_for(lambda: psutil.Process(parent.pid).children() or None, Deadline(20), every=0.01)
        assert children
        children[0].kill()
        out, said = parent.communicate(timeout=20)
    assert (parent.returncode, out, said) == (128 + signal.SIGKILL, b"", b"")


@pytest.mark.parametrize(
    ("name", "things"),
    [("threads", "threads"), ("vmas", "areas"), pytest.param("dentries", "files", marks=needs_mount)],
)
def test_kernel_objects_are_made_until_the_amount_is_there(hold: Hold, name: str, things: str) -> None:
    answer = hold(name, MIB)
    assert answer["held_bytes"] >= MIB
    process = psutil.Process(int(answer["pid"]))
    if name == "threads":
        assert process.num_threads() == answer[things] + 1
        assert process.memory_info().rss < 4 * MIB, "next to nothing of it is user memory"
    assert answer[things] >= 64
    end(answer)


def test_a_pin_is_a_pin_and_locked_memory_is_locked(hold: Hold) -> None:
    def status(answer: dict[str, float], name: str) -> str:
        text = Path(f"/proc/{int(answer['pid'])}/status").read_text()
        return next(line.split(":")[1].strip() for line in text.splitlines() if line.startswith(name))

    assert status(hold("mlock", 65536), "VmLck") == "64 kB"
    if has_io_uring():
        assert status(hold("pin", 65536), "VmPin") == "64 kB"


@needs_mount
def test_a_tmpfs_is_of_its_process_alone(hold: Hold) -> None:
    answer = hold("tmpfs", MIB)
    (line,) = [
        line
        for line in Path(f"/proc/{int(answer['pid'])}/mounts").read_text().splitlines()
        if " /mnt " in line
    ]
    assert line.startswith("tmpfs ")
    assert line not in Path("/proc/self/mounts").read_text()
    end(answer)


def test_churn_leaves_one_object_in_so_many(hold: Hold) -> None:
    first = hold("churn", 8 * MIB, "rounds=2", "keep_one_in=8", "seed=5")
    assert 8 * MIB / 8 / 2 < first["live_bytes"] < 8 * MIB / 8 * 2
    assert first["rss_bytes_full"] > 8 * MIB
    assert first["held_bytes"] >= first["live_bytes"]
    assert first["page_table_bytes_full"] > 0 < first["page_table_bytes_freed"]
    again, other = (hold("churn", 8 * MIB, "rounds=2", "keep_one_in=8", f"seed={seed}") for seed in (5, 6))
    assert (again["live_bytes"], again["live_objects"]) == (first["live_bytes"], first["live_objects"])
    assert other["live_bytes"] != first["live_bytes"]
    sized = hold("churn", MIB, "smallest=64", "largest=64", "keep_one_in=1", "rounds=1")
    assert sized["live_objects"] * 64 == sized["live_bytes"] == MIB


@pytest.mark.parametrize(
    ("name", "words", "why"),
    [
        ("churn", [MIB, "allocator=jemalloc"], "not the allocator that was asked for"),
        ("churn", [MIB, "allocator=tcmalloc"], "not the allocator that was asked for"),
        ("churn", [MIB, "smallest=128", "largest=64"], "smallest is larger than largest"),
        ("sparse-map", [MIB, "backing=file", "advice=free"], "Invalid argument"),
        ("mlock", [1 << 47], "mmap: Cannot allocate memory"),
    ],
)
def test_a_program_that_cannot_says_why(
    programs: dict[str, Path], name: str, words: list[object], why: str
) -> None:
    done = run(programs[name], *words)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode().startswith(f"{name}: ")
    assert why in done.stderr.decode()
