"""A probe is one file: what it declares of its series is seen wherever series and metrics are."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import json_keys
import pytest
import series_table
from synthetic_run import ARMS

from orchestrator.analysis.arm_table import ROWS
from orchestrator.export.document import RunDocument
from orchestrator.headline import METRICS
from orchestrator.observation import Origin, Reading
from orchestrator.probes import PROBES, DeclaredSeries, Probe, declared_series, moment_series
from orchestrator.series import Headline, Series
from orchestrator.summary.moments import HEAD

SOURCE = '''"""Tasks of the host."""

from orchestrator.observation import Origin, Reading
from orchestrator.probes.base import PROBES, Probe
from orchestrator.series import Chart, Headline, Line, Series

_CHART = Chart("host-tasks", "Tasks of the host", "Those that can run.", order=115)


@PROBES.register("host_tasks")
class HostTasks(Probe):
    """Tasks that can run (proc_loadavg(5))."""

    series = (
        Series(
            "runnable",
            "count",
            "tasks of the host that can run",
            headlines=(Headline("host_runnable_tasks", "largest", "lower", 1),),
            line=Line(_CHART, "can run"),
            moment="runnable_tasks",
        ),
        Series(
            "soon", "seconds", "time that they will wait", origin=Origin.PREDICTED, moment="waiting_seconds"
        ),
    )

    def from_host(self, host):
        text = host.shell.texts("/proc/loadavg")["/proc/loadavg"]
        runnable = int(text.split()[3].partition("/")[0])
        yield Reading("runnable", runnable)
        yield Reading("soon", runnable / 2)
'''

# What a run does with probes, in a process that begins with the file in its place.
PROGRAM = """
import json, sys
from pathlib import Path
import orchestrator.probes
orchestrator.probes.__path__.append(sys.argv[1])

import json_keys, series_table
from fakes import MACHINE, FakeChannel, FakeDomain, FakeShell
from synthetic_run import ARMS, META, plan_json
from orchestrator import summary
from orchestrator.analysis.differences import label_of
from orchestrator.analysis.run import RunAnalysis
from orchestrator.claims.of_runs import AtMoment
from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import InfrastructureError
from orchestrator.export.document import RunDocument
from orchestrator.headline import METRICS
from orchestrator.host.shell import HostShell
from orchestrator.probes import HostView
from orchestrator.records.events import Mark, TrialBegin, TrialEnd
from orchestrator.report.frame import Scripts
from orchestrator.report.page import render
from orchestrator.run.sampling import Sampling
from orchestrator.scenario.expect import Expectation
from orchestrator.store import RunWriter, open_run

running = {}

def call(name, paths, **_):
    if name != "texts" or paths != ["/proc/loadavg"] or not running:
        raise InfrastructureError("the host does not say")
    return {"/proc/loadavg": f"0.5 0.4 0.3 {running['now']}/412 77"}

writer = RunWriter.create(Path(sys.argv[2]), "r1", plan_json(ARMS), META)
for arm in ARMS:
    running.update(now=3) if arm is ARMS[0] else running.clear()
    with writer.trial(f"{arm.name}-01") as trial:
        trial.record(TrialBegin(t_ns=0, arm=arm.name))
        view = HostView(FakeDomain(pid=7, shell=HostShell(call)), MACHINE, "tcg")
        sampling = Sampling(trial, lambda: 5 * 10**9, FakeShell(channel=FakeChannel()), view, 0.01)
        with sampling.running([]):
            wait_for(lambda: sampling._rounds[1] or None, Deadline(20), every=0.01)
        trial.record(Mark(t_ns=8 * 10**9, label="loaded"))
        trial.record(TrialEnd(t_ns=9 * 10**9, outcome="completed"))
writer.finish("completed", 0)
summary.refresh(writer.directory)
frame = open_run(writer.directory).trials[0].observations()
seen = frame[(frame["source"] == "host_tasks") & frame["value"].notna()]
print(json.dumps({
    "metrics": METRICS,
    "observed": seen[["name", "value", "unit", "origin"]].drop_duplicates().values.tolist(),
    "show": RunDocument.of_run(RunAnalysis.open(writer.directory)).as_json(),
    "keys": json_keys.table(RunDocument),
    "evidence": AtMoment("r1", ARMS[0].name, "loaded", "waiting_seconds").origin,
    "page": render(RunAnalysis.open(writer.directory), Scripts("", "")),
    "table": series_table.table(),
    "label": label_of("host_runnable_tasks"),
    "bound": Expectation(metric="host_runnable_tasks", arm="6.12", at_most=4).at_most,
}))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, results: Path) -> dict[str, Any]:
    """What a run has of the probe."""
    folder = tmp_path_factory.mktemp("probes")
    (folder / "host_tasks.py").write_text(SOURCE)
    here = Path(__file__).parent
    env = os.environ | {"PYTHONPATH": f"{here.parents[1]}:{here}"}
    argv = [sys.executable, "-c", PROGRAM, str(folder), str(results)]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_it_is_observed_as_declared(found: dict[str, Any]) -> None:
    assert found["observed"] == [
        ["runnable", 3.0, "count", "measured"],
        ["soon", 1.5, "seconds", "predicted"],
    ]


def test_its_metric_is_a_column_and_a_gap_has_its_reason(found: dict[str, Any], results: Path) -> None:
    assert found["metrics"] == [*METRICS[:-1], "host_runnable_tasks", "accel"]
    had, missing = rows(results / "r1" / "summary.csv")
    assert list(had)[-2:] == ["host_runnable_tasks", "accel"]
    assert (float(had["host_runnable_tasks"]), missing["host_runnable_tasks"]) == (3.0, "")
    gaps = {(row["trial"], row["metric"]): row["reason"] for row in rows(results / "r1" / "summary_gaps.csv")}
    assert gaps[f"{ARMS[1].name}-01", "host_runnable_tasks"] == "the host does not say"
    assert (f"{ARMS[0].name}-01", "host_runnable_tasks") not in gaps
    assert found["bound"] == 4


def test_its_chart_is_a_section_of_the_page(found: dict[str, Any]) -> None:
    assert '<section id="host-tasks">' in found["page"]
    assert "Tasks of the host over time, 6.12. can run: from 3 to 3, at most 3." in found["page"]
    assert 'id="chart-host-tasks-0"' in found["page"]
    assert 'id="chart-host-tasks-1"' not in found["page"], "the other arm has no reading"


def test_it_has_its_row_in_the_docs(found: dict[str, Any]) -> None:
    shown = "largest: `host_runnable_tasks`; moments.csv: `runnable_tasks`; chart *Tasks of the host*"
    added = (
        f"| `host_tasks/runnable` | count | tasks of the host that can run | {shown} |\n"
        "| `host_tasks/soon` | seconds | time that they will wait (*predicted*) "
        "| moments.csv: `waiting_seconds` |\n"
    )
    assert added in found["table"]
    assert found["table"].replace(added, "") == series_table.table()


def test_a_series_that_is_read_at_moments_is_a_column_of_theirs(found: dict[str, Any], results: Path) -> None:
    had, missing = rows(results / "r1" / "moments.csv")
    assert set(had) == {"run", "trial", *HEAD, "runnable_tasks", "waiting_seconds"}
    assert (had["moment"], had["runnable_tasks"], had["waiting_seconds"]) == ("loaded", "3", "1.5")
    assert (missing["runnable_tasks"], missing["waiting_seconds"]) == ("", "")
    gaps = {
        (row["trial"], row["reading"]): row["reason"] for row in rows(results / "r1" / "moments_gaps.csv")
    }
    assert gaps[f"{ARMS[1].name}-01", "waiting_seconds"] == "the host does not say"
    assert (f"{ARMS[0].name}-01", "waiting_seconds") not in gaps
    assert found["evidence"] == "predicted"


def test_such_a_series_is_in_the_json_and_in_the_page(found: dict[str, Any]) -> None:
    (had,), (missing,) = (trial["moments"] for trial in found["show"]["trials"])
    assert (had["runnable_tasks"], had["waiting_seconds"], missing["waiting_seconds"]) == (3.0, 1.5, None)
    added = (
        "| `trials[].moments[].runnable_tasks` | number or null "
        "| Measured: series `host_tasks/runnable` (docs/run-folder.md). |\n"
        "| `trials[].moments[].waiting_seconds` | number or null "
        "| Predicted: series `host_tasks/soon` (docs/run-folder.md). |\n"
    )
    assert added in found["keys"]
    assert found["keys"].replace(added, "") == json_keys.table(RunDocument)
    section = found["page"].partition('<section id="moments">')[2].partition("</section>")[0]
    assert '<abbr title="tasks of the host that can run">runnable_tasks</abbr></th>' in section
    assert 'waiting_seconds</abbr> <span class="origin predicted">predicted</span></th>' in section
    assert '<td class="number">3</td><td class="number">1.5 s</td>' in section
    assert 'title="the host does not say"' in section


def test_the_page_of_docs_has_the_series_of_the_probes() -> None:
    page = series_table.PAGE.read_text(encoding="utf-8")
    assert page == series_table.rendered(page), "python tests/unit/series_table.py   writes it again"
    assert page.count("`guest_meminfo/PageTables`") == 1


def test_every_probe_declares_series() -> None:
    assert {one.source for one in declared_series()} == set(PROBES.names())


@pytest.mark.parametrize("origin", Origin)
def test_no_two_series_share_a_column_of_moments(origin: Origin) -> None:
    again = Series("again", "bytes", "as another probe has it", origin=origin, moment="needed_bytes")
    with pytest.raises(ValueError, match=r"host_pagemap/.* and another/again have one column"):
        moment_series([*declared_series(), DeclaredSeries("another", again)])


@pytest.mark.parametrize("name", ["trial", "seconds"])
def test_no_series_takes_a_column_that_each_moment_has(name: str) -> None:
    with pytest.raises(ValueError, match="of its own"):
        Series("age", "seconds", "of the host", moment=name)


def test_lines_of_a_chart_have_one_unit() -> None:
    units: dict[str, set[str]] = {}
    for one in declared_series():
        if one.series.chart:
            units.setdefault(one.series.chart.name, set()).add(one.series.unit)
    assert set(map(len, units.values())) == {1}


def test_a_reading_of_no_declared_series_is_an_error() -> None:
    class Some(Probe):
        series = (Series("thp_*", "count", "of THP"), Series("*", "bytes", "the rest"))

    class Few(Probe):
        series = (Series("one", "count", "always 1"),)

    units = {
        one.name: one.unit for one in Some.observe("some", 0, "t", [Reading("thp_split", 1), Reading("x", 1)])
    }
    assert units == {"thp_split": "count", "x": "bytes"}
    with pytest.raises(LookupError, match="few declares no series 'two'"):
        Few.observe("few", 0, "t", [Reading("one", 1), Reading("two", 2)])
    with pytest.raises(ValueError, match="of one name"):
        Series("thp_*", "count", "of THP", headlines=(Headline("thp", "last"),))


def test_its_metric_is_compared_and_has_its_row(found: dict[str, Any]) -> None:
    assert found["label"] == "host runnable tasks"
    assert '<abbr title="host_runnable_tasks">host runnable tasks</abbr>' in found["page"]


def test_every_metric_has_one_row_but_the_acceleration() -> None:
    named = [metric for _, rows_of_group in ROWS for metric, _ in rows_of_group]
    assert sorted(named) == sorted(set(METRICS) - {"accel"})
