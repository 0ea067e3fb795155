"""What was meant: verbs, options, choices; names of runs, policies, patterns, guests, workloads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.errors import BadInputError
from orchestrator.guest.definition import load_definition
from orchestrator.model.patterns import pattern_named
from orchestrator.model.policies import OverTrace
from orchestrator.suggestion import nearest, suggest
from orchestrator.workloads import load_workload

ROOT = Path(__file__).parents[2]


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(list(argv))
    assert end.value.code == 2
    return capsys.readouterr().err


def test_near_or_all_there_is() -> None:
    assert suggest("memroy", ["memory", "vcpus"]) == "did you mean 'memory'?"
    assert suggest("zzz", ["memory", "vcpus"]) == "there are: memory, vcpus"
    assert (suggest("zzz", []), suggest("zzz", [], "there are none")) == ("remove it", "there are none")
    assert suggest("zzz", [f"a{i}" for i in range(45)]).endswith("a39 and 5 more")
    assert nearest("zzz", ["memory"]) is None


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        (("lst",), "Did you mean 'list'?"),
        (("image", "biuld"), "Did you mean 'build'?"),
        (("model", "overcomit"), "Did you mean 'overcommit'?"),
        (("list", "--stauts", "running"), "'--status'"),
        (("list", "--status", "runing"), "Did you mean 'running'?"),
        (("compare", "a", "b", "--varies", "kernle"), "Did you mean 'kernel'?"),
    ],
)
def test_verbs_options_and_choices(
    argv: tuple[str, ...], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert meant in " ".join(said(capsys, *argv).split())


def test_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("quick-1", "other"):
        (tmp_path / name).mkdir()
        for file, content in (("meta.json", {"schema_version": 1}), ("plan.json", {})):
            (tmp_path / name / file).write_text(json.dumps(content))
    err = said(capsys, "show", "qiuck-1", "--results", str(tmp_path))
    assert "did you mean 'quick-1'?" in err
    assert f"orchestrator list --results {tmp_path}" in err


def test_names_of_files_and_registries() -> None:
    looks: list[tuple[Callable[[], object], str]] = [
        (lambda: load_definition(ROOT / "guests" / "debian-12.yaml"), "debian-13"),
        (lambda: load_workload(ROOT / "workloads" / "reddis"), "redis"),
        (lambda: OverTrace.named("lur"), "lru"),
        (lambda: pattern_named("redis_chrun", {}), "redis_churn"),
        (lambda: pattern_named("redis_churn", {"spna": "1GiB"}), "span"),
    ]
    for look, name in looks:
        with pytest.raises(BadInputError) as caught:
            look()
        assert caught.value.hint == f"did you mean {name!r}?"


def test_where_there_is_no_run_last_is_not_what_was_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = said(capsys, "show", "last", "--results", str(tmp_path))
    assert "did you mean" not in error
    assert "orchestrator run SCENARIO" in error
