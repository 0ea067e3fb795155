"""What other programs read of a run: JUnit's XML and the text of Prometheus, whatever names guests chose."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree
from prometheus_client.parser import text_string_to_metric_families
from synthetic_run import evil_run, write_run

from orchestrator import summary
from orchestrator.analysis.run import RunAnalysis
from orchestrator.export.junit import write_junit
from orchestrator.export.prometheus import write_prometheus


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_run(tmp_path_factory.mktemp("results"))
    summary.refresh(directory)
    return directory


def test_junit_is_xml_that_fails_where_a_trial_did(tmp_path: Path, run_dir: Path) -> None:
    suite = etree.parse(write_junit(RunAnalysis.open(run_dir))).getroot()
    assert suite.get("tests") == "2"
    assert suite.get("failures") == "0"
    assert [case.get("name") for case in suite] == ["6.12-01", "7.3-pt-reclaim-01"]
    evil = etree.parse(write_junit(RunAnalysis.open(evil_run(tmp_path)))).getroot()
    assert evil.get("failures") == "1"
    (failure,) = evil.iter("failure")
    assert "alert(1)" in (failure.text or "")
    assert "next: " in (failure.text or "")


def test_junit_names_trials_that_never_began(tmp_path: Path) -> None:
    run = RunAnalysis.open(write_run(tmp_path, trials=1, finish="interrupted"))
    suite = etree.parse(write_junit(run)).getroot()
    assert (suite.get("tests"), suite.get("skipped")) == ("2", "1")
    assert [case.get("name") for case in suite if case.find("skipped") is not None] == ["7.3-pt-reclaim-01"]


@pytest.mark.parametrize("evil", [False, True])
def test_metrics_are_what_prometheus_itself_reads(run_dir: Path, tmp_path: Path, evil: bool) -> None:
    run = RunAnalysis.open(evil_run(tmp_path) if evil else run_dir)
    text = write_prometheus(run).read_text(encoding="utf-8")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert all(family.type == "gauge" and family.samples for family in families.values())
    assert {sample.name for family in families.values() for sample in family.samples} == set(families)
    for family in families.values():
        assert all({"run", "scenario", "arm", "trial"} <= set(sample.labels) for sample in family.samples)
    if not evil:
        assert "orchestrator_second_level_bytes" not in families
        (pinned,) = (
            sample
            for sample in families["orchestrator_blocks_pinned"].samples
            if sample.labels["arm"] == "6.12"
        )
        assert (pinned.value, pinned.labels["trial"]) == (213.0, "6.12-01")
        outcomes = families["orchestrator_unplug_outcome_info"].samples
        assert {(sample.labels["value"], sample.value) for sample in outcomes} == {("partial", 1.0)}
