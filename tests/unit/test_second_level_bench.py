"""The workload second-level-bench: its driver, and what its program refuses on this machine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeShell

from orchestrator.deadline import Deadline
from orchestrator.errors import BadInputError, CommandError
from orchestrator.guest.programs import build_program
from orchestrator.units import MIB
from orchestrator.workloads import load_workload

FOLDER = Path(__file__).parents[2] / "workloads" / "second-level-bench"


def printed(**changes: Any) -> str:
    answer = {
        "ranges": 10,
        "second_level_bytes_dropped": 4096,
        "second_level_bytes_made": 45056,
        "exits": {"table": 42, "entry": 40, "walk": 0},
        "faults": {"table": 40, "entry": 40, "walk": 0},
        "rounds": {"table": [900, 1000, 1100, 9000], "entry": [500, 500, 600, 600], "walk": [40, 40, 40, 40]},
    }
    return json.dumps({**answer, **changes})


def started(text: str) -> dict[str, float]:
    shell = FakeShell({"/usr/local/bin/kvm-bench": text})
    driver = load_workload(FOLDER, {"span": "20MiB", "rounds": 4, "warm_up": 1})
    found = driver.start(shell, seed=7, deadline=Deadline(60))
    assert shell.commands == [["/usr/local/bin/kvm-bench", str(20 * MIB), "rounds=4", "warm_up=1"]]
    assert shell.oom_score_adj["/usr/local/bin/kvm-bench"] == 0, "not what the connection has"
    return found


def test_a_table_is_what_it_adds_to_an_entry() -> None:
    found = started(printed())
    assert found["second_level_table_instructions_per_range"] == 105
    assert found["second_level_entry_instructions_per_range"] == 55
    assert found["second_level_instructions_per_table"] == 50
    # Of all four rounds together, over ten ranges.
    assert found["second_level_table_exits_per_range"] == 1.05
    assert found["second_level_entry_faults_per_range"] == 1
    assert found["second_level_walk_exits_per_range"] == 0
    assert [found[f"second_level_table_instructions_round_{n:02d}"] for n in (1, 4)] == [900, 9000]
    # Quartiles of 900, 1000, 1100, 9000 are 975 and 3075.
    assert found["second_level_table_instructions_quartile_distance_per_range"] == 210
    assert found["second_level_bytes_made"] == 45056


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        printed(ranges=0),
        printed(ranges="10"),
        printed(exits={}),
        printed(exits={"table": -1, "entry": 40, "walk": 0}),
        printed(faults=[1, 2, 3]),
        printed(rounds={"table": [1, 2, 3, 4]}),
        printed(rounds={phase: [1, 2, 3] for phase in ("table", "entry", "walk")}),
        printed(rounds={phase: [1, 2, 3, True] for phase in ("table", "entry", "walk")}),
    ],
)
def test_an_answer_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(CommandError, match="printed no result"):
        started(text)


@pytest.mark.parametrize(
    ("settings", "why"),
    [({"span": "3MiB"}, "multiple"), ({"span": "4GiB"}, "span"), ({"rounds": 65}, "rounds")],
)
def test_settings_that_cannot_be(settings: dict[str, object], why: str) -> None:
    with pytest.raises(BadInputError, match=why):
        load_workload(FOLDER, settings)


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["3145728"], 2, b"usage"),
        (["2097152", "rounds=0"], 2, b"rounds=0"),
        (["2097152", "warm_up=65"], 2, b"usage"),
        (["4294967296"], 2, b"usage"),
        (["2097152"], 1, b"does not count instructions"),
    ],
)
def test_what_the_program_refuses(tmp_path: Path, words: list[str], code: int, why: bytes) -> None:
    program = build_program(FOLDER / "kvm-bench.c", tmp_path)
    done = subprocess.run([str(program), *words], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (code, b"")
    assert why in done.stderr
