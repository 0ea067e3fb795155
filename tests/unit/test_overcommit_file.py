"""Files of `model overcommit`, what is wrong with one, and the page that is made of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from test_overcommit import SHIPPED

from orchestrator.cli import main
from orchestrator.errors import FileProblemsError
from orchestrator.report.overcommit import is_page
from orchestrator.scenario.kind import OVERCOMMIT_KEYS
from orchestrator.scenario.model import ScenarioText
from orchestrator.scenario.overcommit import OvercommitText, load_overcommit


def test_too_many_guests_for_so_many_ticks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    text = (SHIPPED / "sparse.yaml").read_text().replace("at_most: 30", "at_most: 10000")
    path.write_text(text.replace("lasts: 1h", "lasts: 4h"))
    with pytest.raises(FileProblemsError, match=r"more than 5,000,000; make `tick` longer"):
        load_overcommit(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("at_most: 30", "at_most: 0"), r":10:14: guests.redis.at_most"),
        (("used: 0.6}\n      - {after: 20", "used: 0.6}\n      - {after: 5"), "each phase must come after"),
        (("none, empty", "none, emtpy"), "no policy is called 'emtpy'"),
        (("memory: 256GiB", "memory: 256"), "not a size"),
        (("lasts: 1h", "lasts: 1h\nseeds: .nan"), "seeds"),
        (("entries_per_table: 6", "entries_per_table: .nan"), "entries_per_table"),
    ],
)
def test_a_wrong_file_is_told_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], said: str
) -> None:
    text = (SHIPPED / "sparse.yaml").read_text()
    assert change[0] in text
    path = tmp_path / "wrong.yaml"
    path.write_text(text.replace(*change))
    with pytest.raises(SystemExit) as end:
        main(["model", "overcommit", str(path)])
    printed = capsys.readouterr().err
    assert end.value.code == 2
    assert re.search(said, printed), printed
    assert re.search(rf"{re.escape(str(path))}:\d+:\d+: ", printed)


def test_faults_of_fields_and_of_the_whole_are_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (SHIPPED / "sparse.yaml").read_text()
    path = tmp_path / "wrong.yaml"
    path.write_text(text.replace("none, empty", "nnone, emtpy") + "tick: 1ms\nsneeds: 2\n")
    with pytest.raises(SystemExit):
        main(["validate", str(path)])
    printed = capsys.readouterr().err
    for part in (
        "'nnone'; did you mean 'none'?",
        "'emtpy'; did you mean 'empty'?",
        "`tick` longer",
        "'seeds'",
    ):
        assert part in printed
    assert printed.endswith("4 problems\n")


def small(tmp_path: Path) -> Path:
    text = (SHIPPED / "sparse.yaml").read_text().replace("[drop, migrate, compress, swap]", "[swap]")
    text = re.sub(r"policies: .*", "policies: [none]", text)
    path = tmp_path / "few.yaml"
    path.write_text(text.replace("lasts: 1h", "lasts: 1h\nseeds: 1"))
    return path


def test_a_page_replaces_a_page_and_no_other_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few.html").write_text("<p>mine</p>")
    with pytest.raises(SystemExit) as end:
        main(["model", "overcommit", str(path)])
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, ""), "before the work"
    assert "few.html exists and is not a page of `model overcommit`" in err
    assert "--force" in err
    assert (tmp_path / "few.html").read_text() == "<p>mine</p>"
    for words in (["--force"], []):
        with pytest.raises(SystemExit) as end:
            main(["model", "overcommit", str(path), *words])
        assert end.value.code == 0
        assert "page: few.html" in capsys.readouterr().out
    assert is_page(tmp_path / "few.html")


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_a_page_that_cannot_be_written_loses_no_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    page = tmp_path / "file" / "few.html"
    page.parent.write_text("")  # a folder that nothing can be written into, whoever one is
    with pytest.raises(SystemExit) as end:
        main(["model", "overcommit", str(small(tmp_path)), "--html", str(page), *words])
    out, err = capsys.readouterr()
    assert end.value.code == 3
    assert json.loads(out)["answers"] if words else out.startswith("With policy none, ")
    assert f"the page {page} cannot be written: Not a directory" in err
    assert "--html FILE" in err


def test_a_scenario_is_no_file_of_this_kind_and_is_told_whose_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    scenario = SHIPPED.parent / "quickstart.yaml"
    for argv, said in [
        (["model", "overcommit", str(scenario)], f"orchestrator run {scenario}"),
        (["plan", str(SHIPPED / "sparse.yaml")], f"orchestrator model overcommit {SHIPPED / 'sparse.yaml'}"),
    ]:
        with pytest.raises(SystemExit) as end:
            main(argv)
        assert end.value.code == 2
        assert said in capsys.readouterr().err


def test_its_own_keys_tell_it_from_a_scenario() -> None:
    assert set(OvercommitText.model_fields) - set(ScenarioText.model_fields) == OVERCOMMIT_KEYS
    assert set(OvercommitText.model_fields) - OVERCOMMIT_KEYS == {"version", "name", "description", "host"}


def test_validate_knows_them(capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(map(str, SHIPPED.glob("*.yaml")))
    with pytest.raises(SystemExit) as end:
        main(["validate", *files, "--any-host"])
    out = capsys.readouterr().out
    assert end.value.code == 0
    assert [line.split(":")[0] for line in out.splitlines()] == files
    assert "30 guests, 10 choices, 8 seeds" in out


def test_the_page_has_the_answer_and_needs_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, page = tmp_path / "few.yaml", tmp_path / "few.html"
    text = (SHIPPED / "sparse.yaml").read_text().replace("[drop, migrate, compress, swap]", "[swap]")
    path.write_text(text.replace("lasts: 1h", "lasts: 1h\nseeds: 2").replace("sparse", "<b>sparse"))
    with pytest.raises(SystemExit) as end:
        main(["model", "overcommit", str(path), "--json", "--html", str(page)])
    found = json.loads(capsys.readouterr().out)
    assert end.value.code == 0
    assert found["origin"] == "modelled"
    names = [(one["policy"], one["action"]) for one in found["answers"]]
    assert names == [("none", "swap"), ("empty", "swap"), ("pressure_random", "swap"), ("lru", "swap")]
    html = page.read_text()
    assert "&lt;b&gt;sparse" in html
    assert "<b>sparse" not in html
    assert 'id="chart-guests"' in html
    assert 'id="chart-latency"' in html
    assert not re.search(r'(src|href)="(https?:)?//', html)
