"""OOM kills of a run: counted, named, and said first; figures at the end say whose owner is gone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_run import ARMS, META, FakeArm, plan_json

from orchestrator import summary
from orchestrator.analysis.arm_table import AFTER_KILLS
from orchestrator.analysis.differences import difference_groups
from orchestrator.analysis.run import RunAnalysis
from orchestrator.cli.main import main
from orchestrator.cli.run import _print_result
from orchestrator.errors import ExitCode
from orchestrator.observation import Observation
from orchestrator.records.events import OomKilled, TrialBegin, TrialEnd
from orchestrator.report.page import build_report
from orchestrator.run import RunResult
from orchestrator.store import RunWriter, open_run

S, MIB = 10**9, 1 << 20
OWNER = OomKilled(
    t_ns=70 * S,
    workload="sparse-map",
    pid=312,
    comm="sparse-map",
    out_of="memory",
    uptime_seconds=71.2,
    total_vm_bytes=500 << 30,
    anon_rss_bytes=2944 << 10,
    file_rss_bytes=4096,
    shmem_rss_bytes=0,
    page_table_bytes=634680 << 10,
    oom_score_adj=0,
)
OTHER = OWNER.model_copy(
    update={"workload": "", "comm": "agetty\x1b[2J", "pid": 201, "page_table_bytes": 52 << 10}
)
OLDER_KERNEL = OTHER.model_copy(update={"comm": "sshd", "page_table_bytes": None, "oom_score_adj": None})


def run_of(results: Path, *kills: Sequence[OomKilled], counted: Sequence[int], arms: int = 2) -> Path:
    """A run of one trial for each arm and each two entries; `counted` is what vmstat has at its end."""
    chosen: tuple[FakeArm, ...] = ARMS[:arms]
    repeats = len(kills) // arms
    writer = RunWriter.create(results, "r1", plan_json(chosen, repeats), META)
    order = [(arm, repeat) for repeat in range(1, repeats + 1) for arm in chosen]
    for (arm, repeat), killed, total in zip(order, kills, counted, strict=True):
        name = f"{arm.name}-{repeat:02d}"
        with writer.trial(name) as trial:
            trial.record(TrialBegin(t_ns=0, arm=arm.name))
            for t, kills_by_then, tables in ((1, 2, 8 * MIB), (69, 2, 620 * MIB), (80, 2 + total, 9 * MIB)):
                trial.observe(
                    [
                        Observation(t * S, name, "guest_vmstat", "oom_kill", kills_by_then, "count"),
                        Observation(t * S, name, "guest_meminfo", "PageTables", tables, "bytes"),
                        Observation(t * S, name, "host_vmstat", "oom_kill", 5, "count"),
                    ]
                )
            for one in killed:
                trial.record(one)
            trial.record(TrialEnd(t_ns=90 * S, outcome="completed"))
    writer.finish("completed", 0)
    summary.refresh(writer.directory)
    return writer.directory


def test_kills_are_counted_from_the_first_reading_on_and_read_back(tmp_path: Path) -> None:
    directory = run_of(tmp_path, (OWNER, OTHER), (), counted=(2, 0))
    old, new = summary.summarise_run(open_run(directory))
    assert (old.metrics["guest_oom_kills"], new.metrics["guest_oom_kills"]) == (2, 0)
    assert old.metrics["host_oom_kills"] == 0, "it had counted five before"
    assert "host_cgroup_oom_kills" in old.gaps
    assert [one.comm for one in old.oom_kills] == ["sparse-map", "agetty\x1b[2J"]
    assert old.oom_kills[0].page_table_bytes == 634680 << 10
    printable = tuple(replace(one, comm=one.comm.replace("\x1b", "\ufffd")) for one in old.oom_kills)
    assert summary.saved(open_run(directory)) == [replace(old, oom_kills=printable), new]
    older = replace(old.oom_kills[0], page_table_bytes=None)
    assert older.page_table_bytes is None


def test_the_first_sentence_says_who_was_killed_and_with_what(tmp_path: Path) -> None:
    analysis = RunAnalysis.open(run_of(tmp_path, (OWNER, OTHER), (), counted=(2, 0)))
    first, *others = analysis.conclusions
    assert first == (
        "OOM kills in the guest: 2 with 6.12 (sparse-map with 619.8 MiB of page tables, "
        "agetty\N{REPLACEMENT CHARACTER}[2J); none with 7.3-pt-reclaim."
    )
    (tables,) = (one for one in others if "ended with" in one)
    assert tables == (
        "6.12 ended with 9 MiB of guest page tables (after sparse-map was killed), 7.3-pt-reclaim with 9 MiB."
    )


def test_without_kills_nothing_is_said_of_them(tmp_path: Path) -> None:
    directory = run_of(tmp_path, (), (), counted=(0, 0))
    analysis = RunAnalysis.open(directory)
    assert "OOM" not in " ".join(analysis.conclusions)
    assert any("about the same" in one for one in analysis.conclusions)
    page = build_report(analysis).read_text()
    assert 'id="oom-kills"' not in page
    assert "owner killed" not in page


def test_kills_that_no_log_names_are_said_all_the_same(tmp_path: Path) -> None:
    analysis = RunAnalysis.open(run_of(tmp_path, (), (), counted=(3, 1)))
    assert analysis.conclusions[0] == (
        "OOM kills in the guest: 3 with 6.12 (no kernel log has a name); "
        "1 with 7.3-pt-reclaim (no kernel log has a name)."
    )


def test_several_trials_have_the_worst_and_how_many(tmp_path: Path) -> None:
    kills = ((OWNER,), (), (OWNER, OTHER, OLDER_KERNEL), (), (), ())
    analysis = RunAnalysis.open(run_of(tmp_path, *kills, counted=(1, 0, 3, 0, 0, 0)))
    assert analysis.conclusions[0].startswith(
        "OOM kills in the guest: 3 at most, in 2 of 3 trials with 6.12 (sparse-map 2 times with 619.8 MiB of "
        "page tables, "
    )


def test_many_names_are_cut(tmp_path: Path) -> None:
    kills = [OTHER.model_copy(update={"comm": f"p{number}"}) for number in range(9)]
    analysis = RunAnalysis.open(run_of(tmp_path, (OWNER, *kills), counted=(10,), arms=1))
    assert "(sparse-map with 619.8 MiB of page tables, p0, p1, p2, 6 more)" in analysis.conclusions[0]


def test_the_figure_at_the_end_says_that_its_owner_is_gone(tmp_path: Path) -> None:
    kills = ((OWNER,), ()) * 5
    analysis = RunAnalysis.open(run_of(tmp_path, *kills, counted=(1, 0) * 5))
    cells = {
        row.metric: [cell.text for cell in row.cells]
        for group in analysis.groups
        for row in group.rows
        if row.metric.startswith("guest_page_table_bytes") or row.metric == "guest_oom_kills"
    }
    assert cells["guest_page_table_bytes_end"] == ["9 MiB, owner killed", "9 MiB"]
    assert cells["guest_page_table_bytes_peak"] == ["620 MiB", "620 MiB"]
    assert cells["guest_oom_kills"] == ["1", "0"]
    comparison = analysis.verdicts.comparison
    assert comparison
    notes = {
        row.metric: row.note
        for group in difference_groups(comparison, comparison.pairs[0])
        for row in group.rows
    }
    assert AFTER_KILLS in notes["guest_page_table_bytes_end"]
    assert AFTER_KILLS not in notes["guest_page_table_bytes_peak"]


def test_the_end_of_a_run_begins_with_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = run_of(tmp_path, (OWNER,), (), counted=(1, 0))
    result = RunResult(directory, ExitCode.COMPLETED, (), RunAnalysis.open(directory))
    _print_result(result, {"report": "report.html"}, as_json=False)
    assert capsys.readouterr().out.startswith("OOM kills in the guest: 1 with 6.12 (sparse-map with 619.8")


def test_terminal_page_and_json_have_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = run_of(tmp_path, (OWNER, OTHER, OLDER_KERNEL), (), counted=(3, 0))
    with pytest.raises(SystemExit):
        main(["show", "r1", "--results", str(tmp_path)])
    shown = " ".join(capsys.readouterr().out.split())
    assert "OOM kills in the guest: 3 with 6.12" in shown
    kill = "OOM kill (guest) sparse-map (312): 619.8 MiB of page tables, 2.875 MiB anonymous"
    assert f"6.12-01: {kill}" in shown
    assert "sshd (201): unknown of page tables" in shown
    assert "\x1b[2J" not in shown
    with pytest.raises(SystemExit):
        main(["show", "r1", "--results", str(tmp_path), "--json"])
    trial = json.loads(capsys.readouterr().out)["trials"][0]
    assert [one["page_table_bytes"] for one in trial["oom_kills"]] == [634680 << 10, 52 << 10, None]
    page = build_report(RunAnalysis.open(directory)).read_text()
    assert 'id="oom-kills"' in page
    assert "sparse-map (312)" in page
