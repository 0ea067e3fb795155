"""Where a scenario, a guest, a workload is found: beside the user first, else where the program came from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from orchestrator import commit, run, shipped
from orchestrator.cli import main
from orchestrator.cli.scenario import find_guests_dir
from orchestrator.commit import checkout_commit, program_commit
from orchestrator.guest.programs import build_program
from orchestrator.launch.paths import ProjectPaths
from orchestrator.shipped import scenario_file, scenario_names

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What an installed program carries."""
    data = tmp_path / "site" / "orchestrator" / "data"
    for kind in ("guests", "playbooks", "scenarios", "workloads"):
        data.mkdir(parents=True, exist_ok=True)
        (data / kind).symlink_to(ROOT / kind)
    monkeypatch.setattr(shipped, "_PACKAGE", data.parent)
    return data


def test_a_name_is_a_file_here_then_in_scenarios_then_a_shipped_one(here: Path) -> None:
    name = Path("quickstart")
    assert scenario_file(name) == ROOT / "scenarios" / "quickstart.yaml"
    (here / "scenarios").mkdir()
    (here / "scenarios" / "quickstart.yaml").touch()
    assert scenario_file(name) == Path("scenarios/quickstart.yaml")
    (here / "quickstart.yaml").touch()
    assert scenario_file(name) == Path("quickstart.yaml")
    (here / "quickstart").mkdir()
    assert scenario_file(name) == Path("quickstart.yaml"), "a folder is no scenario"
    (here / "quickstart").rmdir()
    (here / "quickstart").touch()
    assert scenario_file(name) == name


@pytest.mark.parametrize("written", ["overcommit/sparse", "scenarios/overcommit/sparse.yaml"])
def test_what_docs_and_hints_name_is_found_anywhere(here: Path, written: str) -> None:
    assert scenario_file(Path(written)) == ROOT / "scenarios" / "overcommit" / "sparse.yaml"
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    "written", ["no", "../quickstart", "/quickstart", "scenarios/../quickstart", "x" * 5000, "a\0b", ""]
)
def test_what_is_not_there_stays_as_written(here: Path, written: str) -> None:
    (here.parent / "quickstart.yaml").touch()
    assert scenario_file(Path(written)) == Path(written)


def test_all_names_are_scenarios(here: Path) -> None:
    assert {"quickstart", "overcommit/sparse"} <= set(scenario_names())
    assert all(scenario_file(Path(name)).is_file() for name in scenario_names())
    assert scenario_names(Path()) == []
    (here / "scenarios").mkdir()
    (here / "scenarios" / "mine.yaml").touch()
    assert scenario_names(Path()) == ["mine"]


def test_a_mistyped_name_is_told_what_was_meant(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["validate", "quikstart"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "no file 'quikstart' here" in said
    assert "did you mean 'quickstart'?" in said
    with pytest.raises(SystemExit):
        main(["validate", "quikstart.yaml"])
    assert "quikstart.yaml:1:1: there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "verb"),
    [("quickstart", "run"), ("overcommit/sparse", "model overcommit"), ("sweeps/hosts", "model sweep")],
)
def test_a_copy_is_whole_and_says_what_plays_it(
    here: Path, capsys: pytest.CaptureFixture[str], name: str, verb: str
) -> None:
    with pytest.raises(SystemExit):
        main(["init", "mine", "--scenario", name])
    assert f"next: orchestrator {verb} mine/{name}.yaml" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["validate", "--any-host", f"mine/{name}.yaml"])
    assert end.value.code == 0, "what it names is beside it"


def test_in_a_clone_nothing_is_added_to_what_lies_together(here: Path) -> None:
    places = ProjectPaths.beside(here / "guests")
    assert (places.playbook, places.programs) == (
        here / "playbooks" / "guest.yaml",
        here / "guests" / "programs",
    )


def test_an_installed_program_adds_what_the_user_lacks(here: Path, wheel: Path) -> None:
    places = ProjectPaths.beside(here / "guests")
    assert (places.playbook, places.programs) == (
        wheel / "playbooks" / "guest.yaml",
        wheel / "guests" / "programs",
    )
    (here / "playbooks").mkdir()
    (here / "playbooks" / "guest.yaml").touch()
    assert places.playbook == here / "playbooks" / "guest.yaml"


def test_folders_of_others_above_a_scenario_are_passed_over(here: Path, wheel: Path) -> None:
    scenario = here / "deep" / "mine.yaml"
    scenario.parent.mkdir()
    (here / "playbooks").mkdir()
    (here / "playbooks" / "site.yaml").touch()
    (here / "workloads").mkdir()
    assert find_guests_dir(scenario) == wheel / "guests"
    (here / "workloads" / "mine").mkdir()
    (here / "workloads" / "mine" / "workload.yaml").touch()
    assert find_guests_dir(scenario) == here / "guests"


def test_a_playbook_of_the_user_s_is_said_to_be_used(
    here: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "execute_plan", lambda *_, **__: sys.exit(0))

    def said() -> str:
        with pytest.raises(SystemExit):
            main(["run", "boots"])
        return "".join(capsys.readouterr().err.split())

    assert "playbook" not in said()
    (here / "playbooks").mkdir()
    (here / "playbooks" / "guest.yaml").touch()
    assert f"guestsaresetupby{here}/playbooks/guest.yaml,andnot" in said()


@pytest.mark.slow
def test_a_program_of_the_user_finds_the_shipped_headers(here: Path, wheel: Path, tmp_path: Path) -> None:
    source = here / "workloads" / "mine" / "mine.c"
    source.parent.mkdir(parents=True)
    source.write_text((ROOT / "workloads" / "pipes" / "pipes.c").read_text())
    assert '#include "../common/holder.h"' in source.read_text()
    assert build_program(source, tmp_path / "cache").is_file()


def test_a_commit_is_that_of_the_very_folder(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = checkout_commit(ROOT)
    assert len(found.removesuffix("-dirty")) == 40
    assert checkout_commit(ROOT / "orchestrator") == "", "a folder in a checkout is none"
    assert checkout_commit(here) == ""
    assert program_commit() == found
    monkeypatch.setattr(commit, "_PACKAGE", tmp_path)
    assert program_commit() == ""
    (tmp_path / "COMMIT").write_text("0123-dirty\n")
    assert program_commit() == "0123-dirty"
