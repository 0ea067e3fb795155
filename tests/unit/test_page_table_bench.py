"""The workload page-table-bench: its program, run on this machine, and its driver."""

from __future__ import annotations

import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeShell

from orchestrator.deadline import Deadline
from orchestrator.errors import BadInputError, CommandError
from orchestrator.guest.programs import build_program
from orchestrator.metric import COST_PHASES
from orchestrator.workloads import load_workload
from orchestrator.workloads.page_table_bench import parse_rounds

FOLDER = Path(__file__).parents[2] / "workloads" / "page-table-bench"
MIB = 1 << 20


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    return build_program(FOLDER / "pt-bench.c", cache).rename(cache / "pt-bench")


def run(program: Path, *words: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([program, *map(str, words)], capture_output=True, timeout=60, check=False)


def measured(program: Path, *words: object) -> dict[str, Any]:
    done = run(program, *words, "unit=nanoseconds")
    assert (done.returncode, done.stderr) == (0, b"")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize(
    ("words", "pages"),
    [
        ([], 16),
        (["layout=dense"], 8192),
        (["discard=free"], 16),
        (["discard=free", "chunk=pmd", "layout=dense"], 8192),
        (["chunk=pmd"], 16),
        (["chunk=page"], 16),
        (["chunk=page", "layout=dense"], 8192),
        (["backing=shared"], 16),
        (["backing=file", "layout=dense"], 8192),
        (["thp=always", "layout=dense"], 8192),
        (["threads=2"], 16),
        (["threads=3", "backing=shared"], 16),
        (["threads=4", "layout=dense", "chunk=pmd"], 8192),
    ],
)
def test_it_measures_every_phase_of_every_round(program: Path, words: list[str], pages: int) -> None:
    answer = measured(program, 32 * MIB, *words, "rounds=3", "warm_up=2")
    assert (answer["ranges"], answer["pages"], answer["unit"]) == (16, pages, "nanoseconds")
    for part, count in (("warm_up", 2), ("rounds", 3)):
        assert set(answer[part]) == set(COST_PHASES)
        assert {len(values) for values in answer[part].values()} == {count}
        assert min(map(min, answer[part].values())) > 0
    assert parse_rounds(json.dumps(answer), unit="nanoseconds", rounds=3, warm_up=2)["pages"] == pages


def test_a_round_makes_a_table_for_each_range(program: Path) -> None:
    answer = measured(program, 512 * MIB, "thp=never", "rounds=1", "warm_up=0", "discard=free")
    grown = answer["page_table_bytes_touched"] - answer["page_table_bytes_mapped"]
    # A last-level table for each range, and those above them: of 1 GiB, of 512 GiB, of 256 TiB.
    assert 256 <= grown / 4096 <= 256 + 4
    assert answer["page_table_bytes_discarded"] == answer["page_table_bytes_touched"], "MADV_FREE frees none"


def test_cpu_time_is_within_what_passed(program: Path) -> None:
    answer = measured(program, 32 * MIB, "layout=dense", "rounds=4")
    passed = sum(map(sum, answer["rounds"].values()))
    assert 0 < answer["cpu"] < passed * 1.05, "of one thread; what lies between the phases is little"


def test_a_clock_that_counts_no_instructions_is_refused(program: Path) -> None:
    done = run(program, 2 * MIB, "unit=instructions")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"does not count instructions" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        [2 * MIB - 4096],
        [2 * MIB, "threads=2"],
        [32 * MIB, "threads=5"],
        [32 * MIB, "rounds=0"],
        [32 * MIB, "rounds=65"],
        [32 * MIB, "warm_up=65"],
        [32 * MIB, "unit=seconds"],
        [32 * MIB, "layout=half"],
    ],
)
def test_what_it_cannot_do_is_a_bad_argument(program: Path, words: list[object]) -> None:
    done = run(program, *words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr


def test_madv_free_is_for_anonymous_memory(program: Path) -> None:
    done = run(program, 2 * MIB, "backing=shared", "discard=free", "unit=nanoseconds")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"MADV_FREE" in done.stderr


def printed(unit: str = "instructions", **changes: Any) -> str:
    answer = {
        "unit": unit,
        "ranges": 16,
        "pages": 32,
        "cpu": 540,
        "page_table_bytes_mapped": 40960,
        "page_table_bytes_touched": 106496,
        "page_table_bytes_discarded": 45056,
        "warm_up": {phase: [1000 * n] for n, phase in enumerate(COST_PHASES, start=1)},
        "rounds": {phase: [16 * n, 20 * n, 24 * n, 200 * n] for n, phase in enumerate(COST_PHASES, start=1)},
    }
    return json.dumps({**answer, **changes})


def started(text: str, **settings: object) -> dict[str, float]:
    shell = FakeShell({"/usr/local/bin/pt-bench": text})
    driver = load_workload(FOLDER, {"rounds": 4, "warm_up": 1, "oom_score_adj": 7, **settings})
    found = driver.start(shell, seed=7, deadline=Deadline(60))
    (argv,) = shell.commands
    assert shell.oom_score_adj[argv[0]] == 7
    assert argv[:2] == ["/usr/local/bin/pt-bench", str(2 << 30)]
    assert f"unit={settings.get('unit', 'instructions')}" in argv
    return found


def test_each_phase_has_its_median_and_spread_and_every_round() -> None:
    found = started(printed())
    assert found["touch_instructions_per_table"] == statistics.median([16, 20, 24, 200]) / 16
    assert found["munmap_instructions_per_page"] == 6 * 22 / 32
    # Quartiles of 16, 20, 24, 200 are 19 and 68.
    assert found["discard_instructions_quartile_distance_per_table"] == 2 * 49 / 16
    assert found["fork_instructions_warm_up_01"] == 4000, "apart, and in no median"
    assert [found[f"mremap_instructions_round_{n:02d}"] for n in (1, 2, 3, 4)] == [80, 100, 120, 1000]
    assert found["others_share"] == pytest.approx(1 - 540 / (21 * 260))
    assert (found["tables"], found["pages"]) == (16, 32)
    assert not [name for name in found if "seconds" in name]


def test_in_the_root_cgroup_it_is_the_same_program(tmp_path: Path) -> None:
    shell = FakeShell({"sh -c": printed()})
    driver = load_workload(FOLDER, {"rounds": 4, "warm_up": 1, "cgroup": "root"})
    driver.start(shell, seed=7, deadline=Deadline(60))
    (argv,) = shell.commands
    assert shell.oom_score_adj["sh"] == 0, "not what the connection has"
    assert argv[3:7] == ["sh", "/usr/local/bin/pt-bench", str(2 << 30), "unit=instructions"]
    # The script, with another file in place of the cgroup's: it moves itself, and becomes the program.
    assert "/sys/fs/cgroup/cgroup.procs" in argv[2]

    def moved(procs: Path) -> subprocess.CompletedProcess[str]:
        script = argv[2].replace("/sys/fs/cgroup/cgroup.procs", str(procs))
        words = [*argv[:2], script, "sh", "echo", "a b", "c"]
        return subprocess.run(words, capture_output=True, check=False, text=True)

    done, refused = moved(tmp_path / "procs"), moved(tmp_path / "not-there" / "procs")
    assert (done.stdout, (tmp_path / "procs").read_text()) == ("a b c\n", "0\n")
    assert refused.returncode != 0
    assert not refused.stdout, "it does not run where it was not moved"


def test_nanoseconds_become_seconds() -> None:
    found = started(printed("nanoseconds"), unit="nanoseconds")
    assert found["touch_seconds_per_table"] == pytest.approx(22e-9 / 16)
    assert not [name for name in found if "instructions" in name]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        printed("nanoseconds"),
        printed(ranges=0),
        printed(cpu=-1),
        printed(pages="32"),
        printed(rounds={}),
        printed(rounds={phase: [1, 2, 3] for phase in COST_PHASES}),
        printed(rounds={phase: [1, 2, 3, "4"] for phase in COST_PHASES}),
        printed(rounds={phase: [1, 2, 3, True] for phase in COST_PHASES}),
        printed(warm_up={phase: [] for phase in COST_PHASES}),
    ],
)
def test_an_answer_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(CommandError, match="printed no result"):
        started(text)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"span": "3MiB"}, "multiple"),
        ({"discard": "free", "backing": "file"}, "MADV_FREE"),
        ({"threads": 2, "span": "2MiB"}, "each thread"),
        ({"threads": 5}, "threads"),
        ({"rounds": 65}, "rounds"),
        ({"unit": "cycles"}, "unit"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], why: str) -> None:
    with pytest.raises(BadInputError, match=why):
        load_workload(FOLDER, settings)
