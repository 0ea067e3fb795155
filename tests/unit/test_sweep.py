"""Sweeps: the grid is played as single questions are, the same to the byte on any number of processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from orchestrator.analysis.sweep import SweepView
from orchestrator.cli import main
from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import BadInputError, FileProblemsError, InfrastructureError
from orchestrator.model.cost import CostTable
from orchestrator.model.overcommit import answers
from orchestrator.model.replay import EvictionAction, replay
from orchestrator.model.trace import Trace
from orchestrator.report.sweep import MOST_MAPS, write_page
from orchestrator.scenario.kind import SWEEP_KEYS
from orchestrator.scenario.model import ScenarioText
from orchestrator.scenario.overcommit import OvercommitText, load_overcommit
from orchestrator.scenario.sweep import SweepText, load_sweep
from orchestrator.store.sweep_file import SweepFacts, read_sweep, write_sweep
from orchestrator.store.trace_file import write_trace
from orchestrator.sweep import InProcess, Processes, SweepTask, tasks_of
from orchestrator.sweep.tasks import Row
from orchestrator.units import GIB, KIB

SHIPPED = {"shipped": CostTable.shipped()}
BASE = """\
version: 1
name: few
host: {memory: 64GiB, swap: 8GiB}
guests:
  redis:
    size: 16GiB
    at_most: 6
    entries_per_table: 6
    phases:
      - {after: 0s, used: 0.1}
      - {after: 5min, used: 0.9}
arrive_every: 1min
lasts: 12min
policies: [none, lru]
actions: [compress, swap]
seeds: 2
"""
GRID = """\
version: 1
name: small
overcommit:
  file: base.yaml
  grid:
    host.memory: [48GiB, 64GiB]
    guests.redis.phases.1.used: [0.6, 0.9]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCHESTRATOR_CACHE", os.environ.get("ORCHESTRATOR_CACHE", str(tmp_path / "cache")))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "grid.yaml").write_text(GRID)
    return tmp_path


def typed(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([*map(str, words)])
    return int(end.value.code or 0)


@pytest.mark.slow
def test_one_process_and_two_write_the_same_bytes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for processes in (1, 2):
        words = ("--processes", processes, "-o", f"of{processes}.parquet", "--json")
        assert typed("model", "sweep", "grid.yaml", *words) == 0
        printed = json.loads(capsys.readouterr().out)
        assert (printed["origin"], printed["points"], printed["rows"]) == ("modelled", 4, 12)
    for kind in ("parquet", "html"):
        assert Path(f"of1.{kind}").read_bytes() == Path(f"of2.{kind}").read_bytes()
    # And what they have is what the questions have, one by one.
    facts, rows = read_sweep(Path("of2.parquet"))
    assert facts.axes == ("host.memory", "guests.redis.phases.1.used", "costs")
    assert {row["origin"] for row in rows} == {"modelled"}
    expected = []
    for memory in (48, 64):
        for used in (0.6, 0.9):
            text = BASE.replace("64GiB", f"{memory}GiB").replace("used: 0.9", f"used: {used}")
            (folder / "one.yaml").write_text(text)
            asked = load_overcommit(folder / "one.yaml")
            for one in answers(asked.question, list(asked.choices), SHIPPED["shipped"], seeds=asked.seeds):
                p99, fit = one.added.p99, one.fit
                expected.append(
                    (memory * GIB, used, one.policy, *fit, *one.killed, *p99, *one.table_bytes_peak)
                )
    ranged = [
        f"{name}_{end}"
        for name in ("fit", "killed", "added_p99_seconds", "table_bytes_peak")
        for end in ("low", "typical", "high")
    ]
    columns = ("host.memory", "guests.redis.phases.1.used", "policy", *ranged)
    assert [tuple(row[name] for name in columns) for row in rows] == expected
    assert len({row["fit_typical"] for row in rows}) > 1, "the grid makes a difference"


def test_a_sweep_is_named_by_all_that_it_reads(folder: Path) -> None:
    def named() -> str:
        return load_sweep(folder / "compare.yaml").sha256

    trace(folder, "zipf")
    (folder / "costs.json").write_text("{}")  # read when it is played
    (folder / "compare.yaml").write_text(COMPARED + "costs: [shipped, costs.json]\n")
    names = [named()]
    for file in ("costs.json", "zipf.npz", "compare.yaml"):
        (folder / file).write_bytes((folder / file).read_bytes() + b"\n")
        names.append(named())
    grid = load_sweep(folder / "grid.yaml").sha256
    (folder / "base.yaml").write_text(BASE + "# another\n")
    assert load_sweep(folder / "grid.yaml").sha256 != grid
    assert len(set(names)) == 4


def trace(folder: Path, name: str) -> Trace:
    random = np.random.default_rng(1)
    table = random.zipf(1.3, 4000).clip(max=300).astype(np.uint32) - 1
    made = Trace(name, 300, table, np.full(len(table), 2, dtype=np.uint8), "made up")
    write_trace(folder / f"{name}.npz", made)
    return made


COMPARED = """\
version: 1
name: budgets
compare:
  traces: [zipf.npz]
  budgets: [40KiB, 200KiB]
  policies: [none, lru, pressure_random]
  actions: [drop, swap]
  seeds: 2
"""


@pytest.mark.slow  # three policies are compiled
def test_comparisons_are_the_replays_that_they_say(folder: Path) -> None:
    touches = trace(folder, "zipf")
    (folder / "compare.yaml").write_text(COMPARED)
    tasks = tasks_of(load_sweep(folder / "compare.yaml"), SHIPPED)
    rows = [row for _, rows in InProcess(folder / "compiled").run(tasks) for row in rows]
    found = {
        (row["budget_bytes"], row["seed"], row["policy"], row["action"]): (row["misses"], row["peak_bytes"])
        for row in rows
    }
    assert len(found) == len(rows) == 2 * 2 * (1 + 2 + 2)
    for (budget, seed, policy, action), figures in found.items():
        counts = replay(
            touches,
            str(policy),
            int(budget or 0),
            action=EvictionAction(str(action or "drop")),
            seed=int(seed or 0),
        )
        assert figures == (counts.misses, counts.peak_tables * 4 * KIB)
    random = {found[40 * KIB, seed, "pressure_random", "drop"] for seed in (0, 1)}
    assert len(random) == 2, "seeds differ"


FAULTS = [
    (
        "    host.memory: [48GiB, 64GiB]",
        "    host.memory: [48GiB, 64Gib]",
        "6:26: host.memory: '64Gib' is not a size",
        "write 64GiB",
    ),
    ("    host.memory: [", "    host.memroy: [", "6:", "memroy"),
    ("    host.memory: [", "    machine.memory: [", "6:5: the file has no 'machine.memory'", ""),
    ("    host.memory: [48GiB, 64GiB]", "    policies: [none, lru]", "6:5: 'policies' is no axis", ""),
    ("    host.memory: [48GiB, 64GiB]", "    host.memory: [48GiB, 48GiB]", "6:18: ", "twice"),
    (
        "    host.memory: [48GiB, 64GiB]",
        "    host.memory: [48GiB, 49152MiB]",
        "6:26: 49152MiB is here",
        "once",
    ),
    ("    host.memory: [48GiB, 64GiB]", "    host: [48GiB, 64GiB]", "6:", ""),
    ("phases.1.used: [0.6, 0.9]", "phases.2.used: [0.6, 0.9]", "7:5: the file has no", ""),
    ("phases.1.used: [0.6, 0.9]", "phases.1.used: [0.6, 1.9]", "7:39: ", "1"),
    ("phases.1.used: [0.6, 0.9]", "phases: [0.6, 0.9]", "7:", ""),
    ("file: base.yaml", "file: another.yaml", "4:9: there is no file", "another.yaml"),
    ("name: small", "name: small\ncosts: [shipped, c.json]", "3:18: there is no file", "c.json"),
    ("name: small", "name: small\ncompare: {traces: [t.npz], budgets: [4KiB]}", "", "either `overcommit`"),
    ("version: 1", "version: 2", "1:10: ", ""),
    (
        "    host.memory: [48GiB, 64GiB]\n",
        f"    host.memory: {[f'{n}GiB' for n in range(1, 161)]}\n    seeds: {list(range(1, 101))}\n",
        "5:3: 32,000 points",
        "at most 10,000",
    ),
]


@pytest.mark.parametrize(("right", "wrong", "place", "words"), FAULTS)
def test_what_is_wrong_is_told_by_line(folder: Path, right: str, wrong: str, place: str, words: str) -> None:
    assert right in GRID
    (folder / "grid.yaml").write_text(GRID.replace(right, wrong))
    with pytest.raises(FileProblemsError) as faults:
        load_sweep(folder / "grid.yaml")
    printed = str(faults.value)
    assert f"grid.yaml:{place}" in printed, printed
    assert words in printed, printed


def test_faults_of_the_file_that_is_varied_are_its_own(folder: Path) -> None:
    (folder / "base.yaml").write_text(BASE.replace("lasts: 12min", "lasts: 12 moons"))
    with pytest.raises(FileProblemsError, match=r"base\.yaml:13:8"):
        load_sweep(folder / "grid.yaml")


def test_kinds_of_files_are_told_apart(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(SweepText.model_fields) >= SWEEP_KEYS
    assert not SWEEP_KEYS & (set(OvercommitText.model_fields) | set(ScenarioText.model_fields))
    assert typed("validate", "grid.yaml") == 0
    assert "ok (4 points)" in capsys.readouterr().out
    for words, other in (
        (("model", "sweep", "base.yaml"), "model overcommit base.yaml"),
        (("model", "overcommit", "grid.yaml"), "model sweep grid.yaml"),
        (("run", "grid.yaml"), "model sweep grid.yaml"),
        (("model", "sweep", Path(__file__).parents[2] / "scenarios/quickstart.yaml"), "orchestrator run"),
    ):
        assert typed(*words) == 2
        assert other in capsys.readouterr().err


def test_the_shipped_sweeps_are_sound() -> None:
    shipped = sorted((Path(__file__).parents[2] / "scenarios" / "sweeps").glob("*.yaml"))
    assert shipped
    for path in shipped:
        assert load_sweep(path).points_in_all > 1


def row(point: int, policy: str, fit: float, killed: float, p99: float) -> Row:
    return {
        "point": point,
        "host.memory": GIB * (1 + point),
        "costs": "shipped",
        "policy": policy,
        "action": None,
        "fit_typical": fit,
        "killed_typical": killed,
        "added_p99_seconds_typical": p99,
    }


FACTS = SweepFacts(
    name="x", description="", question="overcommit", axes=("host.memory", "costs"), inputs_sha256="0"
)


def test_the_front_is_what_nothing_of_the_same_point_beats() -> None:
    rows = [
        row(0, "none", 10, 5, 0),
        row(0, "lru", 14, 2, 1e-4),
        row(0, "fifo", 14, 2, 1.01e-4),  # the same to two digits
        row(0, "clock", 13, 2, 2e-4),
        row(0, "empty", 10, 4, 0),
        row(1, "none", 30, 0, 0),
        row(1, "lru", 30, 0, 1e-4),
    ]
    view = SweepView(FACTS, rows)
    assert view.front == {(0, "lru"), (0, "fifo"), (0, "empty"), (1, "none")}
    assert view.times_on_front == {"none": 1, "lru": 1, "fifo": 1, "clock": 0, "empty": 1}
    said = " ".join(view.sentences())
    assert "Points: 2" in said
    assert "Never: clock." in said
    assert view.span("lru", view.question.across) == "14 to 30"


def test_a_page_draws_so_many_maps_and_tells_of_the_others(tmp_path: Path) -> None:
    rows = [
        row(point, f"p{policy}", point + policy, 0, policy * 1e-5) | {"guests": float(point % 2)}
        for point in range(4)
        for policy in range(MOST_MAPS + 3)
    ]
    facts = FACTS.model_copy(update={"axes": ("host.memory", "guests", "costs"), "name": "<b>x"})
    write_page(tmp_path / "page.html", SweepView(facts, rows))
    text = (tmp_path / "page.html").read_text()
    found = re.search(r'id="charts">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    specs = json.loads(found[1])
    assert len(specs) == 1 + MOST_MAPS
    assert "3 more maps are not drawn" in text
    assert "<b>x" not in text
    (shown,) = specs["chart-map-2"]["datasets"].values()
    assert [value["v"] for value in shown] == [2, 3, 4, 5], "policy p2, host by host"


def test_values_that_round_alike_have_cells_of_their_own(tmp_path: Path) -> None:
    rows = [row(point, "lru", point, 0, 0) | {"host.memory": GIB + point} for point in range(2)]
    write_page(tmp_path / "page.html", SweepView(FACTS, rows))
    found = re.search(r'id="charts">(.*?)</script>', (tmp_path / "page.html").read_text(), re.DOTALL)
    assert found is not None
    (drawn,) = json.loads(found[1])["chart-map-0"]["datasets"].values()
    assert [value["v"] for value in drawn] == [0, 1], "and no median of both"


def test_what_is_no_table_is_not_read_as_one(tmp_path: Path) -> None:
    write_sweep(tmp_path / "a.parquet", FACTS, [row(0, "none", 1, 0, 0)])
    facts, rows = read_sweep(tmp_path / "a.parquet")
    assert (facts, rows[0]["fit_typical"], rows[0]["action"]) == (FACTS, 1, None)
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    for path in ("b.parquet", "nowhere.parquet"):
        with pytest.raises(BadInputError, match="no table of a sweep"):
            read_sweep(tmp_path / path)


def test_a_file_of_something_else_is_not_replaced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "grid.parquet").write_text("precious")
    assert typed("model", "sweep", "grid.yaml") == 2
    assert "exists and is not" in capsys.readouterr().err
    assert (folder / "grid.parquet").read_text() == "precious"


@dataclass(frozen=True)
class Dies(SweepTask):
    """As if it had taken too much memory."""

    def rows(self) -> list[Row]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []


@dataclass(frozen=True)
class Waits(SweepTask):
    """Says who computes it, and does not end."""

    folder: Path

    def rows(self) -> list[Row]:
        (self.folder / str(os.getpid())).touch()
        time.sleep(600)
        return []


@pytest.mark.slow
def test_a_process_that_was_killed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="was killed") as error:
        list(Processes(tmp_path / "compiled", 2).run([Dies(), Dies()]))
    assert "--processes 1" in error.value.hint
    assert not psutil.Process().children(recursive=True) or all(
        "resource_tracker" in " ".join(child.cmdline()) for child in psutil.Process().children()
    )


_SWEEP = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_sweep import Waits
from orchestrator.cli.signals import stop_at_signals
from orchestrator.sweep import Processes
if __name__ == "__main__":
    folder = Path(sys.argv[2])
    try:
        with stop_at_signals():
            list(Processes(folder / "compiled", 2).run([Waits(folder), Waits(folder)]))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_its_processes_end_with_a_sweep_that_is_interrupted_or_killed(
    tmp_path: Path, number: signal.Signals
) -> None:
    script = tmp_path / "sweep.py"
    script.write_text(_SWEEP)
    words = [sys.executable, str(script), str(Path(__file__).parent), str(tmp_path)]

    def computing() -> list[int] | None:
        found = [int(path.name) for path in tmp_path.iterdir() if path.name.isdecimal()]
        return found if len(found) == 2 else None

    with subprocess.Popen(words, process_group=0) as sweep:
        pids = wait_for(computing, Deadline(90), every=0.05)
        assert pids is not None
        started = [psutil.Process(pid) for pid in pids]
        os.killpg(sweep.pid, number) if number == signal.SIGINT else sweep.kill()
        assert sweep.wait(60) == (130 if number == signal.SIGINT else -number)
    _, alive = psutil.wait_procs(started, timeout=30)
    assert not alive


def test_progress_and_interruption(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    class Interrupted(InProcess):
        def run(self, tasks: Any) -> Any:
            yield 0, []
            raise KeyboardInterrupt

    monkeypatch.setattr("orchestrator.sweep.InProcess", Interrupted)
    assert typed("model", "sweep", "grid.yaml", "--processes", 1) == 130
    assert "1 of 4 points" in capsys.readouterr().err
    assert not list(folder.glob("*.parquet"))
    assert not list(folder.glob("*.html"))
