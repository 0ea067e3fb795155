"""Run folders of each version that is read give the figures that were recorded of the oldest one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from golden_run import FIGURES, figures, kept

from orchestrator.records.versions import MIGRATIONS, SCHEMA_VERSION
from orchestrator.store import open_run
from orchestrator.summary import load, summarise_run

RECORDED = json.loads(FIGURES.read_text())


def differences(recorded: Any, now: Any, path: str = "") -> Iterator[str]:
    """Where what was recorded is not the same now; more keys than were recorded are no difference."""
    if isinstance(recorded, dict) and isinstance(now, dict):
        for key, value in recorded.items():
            yield from differences(value, now.get(key, "no such key"), f"{path}/{key}")
    elif isinstance(recorded, list) and isinstance(now, list) and len(recorded) == len(now):
        for index, (one, other) in enumerate(zip(recorded, now, strict=True)):
            yield from differences(one, other, f"{path}/{index}")
    elif recorded != now and not (
        isinstance(recorded, float)
        and isinstance(now, float)
        and now == pytest.approx(recorded, rel=1e-9, abs=1e-300)  # libraries round in their own ways
    ):
        yield f"{path}: {recorded!r} was recorded, now it is {now!r}"


def test_a_difference_is_seen() -> None:
    recorded = {"a": [1, {"b": 0.5}], "c": None}
    assert list(differences(recorded, {"a": [1, {"b": 0.5, "more": 1}], "c": None, "more": 1})) == []
    assert list(differences(recorded, {"a": [1, {"b": 0.5 + 1e-6}]})) == [
        "/a/1/b: 0.5 was recorded, now it is 0.500001",
        "/c: None was recorded, now it is 'no such key'",
    ]
    assert list(differences(recorded, {"a": [1], "c": None}))


def test_there_is_a_folder_of_each_version_that_is_read() -> None:
    versions = [json.loads((folder / "meta.json").read_text())["schema_version"] for folder in kept()]
    assert sorted(versions) == sorted({*MIGRATIONS, SCHEMA_VERSION})
    assert [folder.name for folder in kept()] == [f"run-version-{version}" for version in versions]


def test_the_figures_are_some_of_each_kind() -> None:
    assert len(RECORDED["trials"]) == 12
    assert {judged["met"] for judged in RECORDED["expect"]} == {True, False}
    (pair,) = RECORDED["comparison"]
    assert "different" in {metric.get("verdict") for metric in pair["metrics"].values()}
    moments = [moment for trial in RECORDED["trials"].values() for moment in trial["moments"]]
    assert {moment["needed_bytes"] for moment in moments} != {None}
    assert RECORDED["attribution"]
    assert RECORDED["foretold"]


@pytest.mark.parametrize("folder", kept(), ids=lambda folder: str(folder.name))
def test_each_gives_the_same_figures(folder: Path) -> None:
    assert list(differences(RECORDED, figures(folder))) == []


@pytest.mark.parametrize("folder", kept(), ids=lambda folder: str(folder.name))
def test_its_tables_are_what_is_read_from_its_trials(folder: Path, tmp_path: Path) -> None:
    """Tables are read as that version wrote them, events, readings and snapshots as well."""
    run = open_run(shutil.copytree(folder, tmp_path / folder.name))
    saved = {summary.trial: summary for summary in load(run)}
    again = summarise_run(run)
    assert [one.trial for one in again] == ["6.12-01", "7.3-pt-reclaim-01"]
    for one in again:
        before = saved[one.trial]
        assert list(differences(before.metrics, one.metrics)) == []
        assert {*before.policies} <= {*one.policies}, "a policy that came later has more to say"
        known = {name: why for name, why in one.gaps.items() if name in {**before.metrics, **before.gaps}}
        assert known == before.gaps
        assert {one.gaps[name] for name in one.gaps.keys() - known} <= {"no workload counted instructions"}
        for table in ("snapshots", "blame", "moments", "findings", "left_out", "kernel_build"):
            assert getattr(one, table) == getattr(before, table), table
