"""Claims of the talk: judged by what is committed, so that other results give another verdict."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import figures
import pytest

from orchestrator.claims import Committed, JudgedClaim, Verdict, claim_named, every_claim, judge
from orchestrator.claims import committed as committed_module
from orchestrator.claims.base import CLAIMS
from orchestrator.claims.committed import reference_folder
from orchestrator.claims.document import claims_as_json, part_rows
from orchestrator.claims.evidence import Untestable
from orchestrator.claims.figure import Spread, spread_words
from orchestrator.claims.judge import PartResult
from orchestrator.cli import main
from orchestrator.errors import BadInputError
from orchestrator.observation import Origin

REFERENCE = figures.ROOT / "results" / "reference"
TALK = figures.ROOT / "orchestrator" / "claims" / "talk"
PAGE = (figures.ROOT / "docs" / "claims.md").read_text()
CLAIM_NAMES = [one.name for one in every_claim()]
COMMITTED = Committed(REFERENCE)

Row = dict[str, str]


@pytest.fixture
def copied(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of some of the committed results, to be altered."""

    def copy(*names: str) -> Path:
        root = tmp_path / "reference"
        for name in names:
            target = root / name
            if (REFERENCE / name).is_dir():
                shutil.copytree(REFERENCE / name, target)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(REFERENCE / name, target)
        return root

    return copy


def rewrite(path: Path, change: Callable[[Row], Row | None]) -> None:
    """Change each row of a table; a row that becomes None goes."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = [changed for row in reader if (changed := change(row))]
        columns = reader.fieldnames or []
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def judged(name: str, root: Path) -> JudgedClaim:
    return judge(claim_named(name), Committed(root))


def results(found: JudgedClaim) -> list[str]:
    return [part.result.value for part in found.parts]


# Each claim


@pytest.mark.parametrize("name", CLAIM_NAMES)
def test_each_part_has_a_figure_and_a_criterion_or_a_reason(name: str) -> None:
    found = judge(claim_named(name), COMMITTED)
    assert found.parts
    for one in found.parts:
        if one.figure is None:
            assert one.reason
            assert one.result in {PartResult.NOT_TESTED, PartResult.CANNOT}
        else:
            assert one.part.criterion
            assert one.figure.boots is None or one.figure.boots >= 1


@pytest.mark.parametrize("name", CLAIM_NAMES)
def test_what_is_not_tested_yet_has_no_committed_result(name: str) -> None:
    """A reference that finds nothing in a result that is there is a slip, and no reason."""
    for one in judge(claim_named(name), COMMITTED).parts:
        if one.result is PartResult.NOT_TESTED:
            missing = re.fullmatch(r"no committed result in results/reference/([a-z-]+)", one.reason)
            assert missing
            assert not (REFERENCE / missing[1]).exists()


@pytest.mark.parametrize("name", CLAIM_NAMES)
def test_each_says_how_it_is_tested_and_what_would_change_it(name: str) -> None:
    claim = claim_named(name)
    assert claim.sentence.endswith(".")
    assert claim.changes.endswith(".")
    for command in claim.commands:
        for scenario in re.findall(r"scenarios/\S+", command):
            assert (figures.ROOT / scenario).is_file()
    cannot = all(isinstance(part.evidence, Untestable) for part in claim.parts)
    assert bool(claim.commands) != cannot


def test_each_file_of_the_talk_is_one_claim_in_its_place() -> None:
    files = {path.stem.replace("_", "-") for path in TALK.glob("*.py")} - {"--init--"}
    assert files == set(CLAIM_NAMES)
    assert [one.place for one in every_claim()] == list(range(1, len(files) + 1))


@pytest.mark.parametrize("name", CLAIM_NAMES)
def test_no_figure_is_better_known_than_its_boots_allow(name: str) -> None:
    for one in judge(claim_named(name), COMMITTED).parts:
        if one.figure and one.figure.boots is not None and one.figure.boots < 5:
            assert one.figure.spread in {Spread.BOOTS, Spread.NONE}
            assert "too few for an interval" in spread_words(one.figure) or "each of" in spread_words(
                one.figure
            )


# Other results, other verdicts


def test_without_its_result_a_claim_is_not_tested(copied: Callable[..., Path]) -> None:
    found = judged("sparse-mappings", copied("pmd"))
    assert found.verdicts == {Origin.MEASURED: Verdict.NOT_TESTED}
    assert {part.reason for part in found.parts} == {"no committed result in results/reference/allocators"}
    assert found.conditions == ()


def test_a_kernel_that_leaves_no_empty_table_turns_part_of_a_claim(copied: Callable[..., Path]) -> None:
    root = copied("quickstart", "guests.json")
    assert judged("unreferenced-tables", root).verdicts[Origin.MEASURED] is Verdict.IN_PART

    def fewer(row: Row) -> Row:
        return row | ({"guest_page_tables_empty": "20"} if row["arm"] == "linux-7.x" else {})

    rewrite(root / "quickstart" / "summary.csv", fewer)
    found = judged("unreferenced-tables", root)
    assert found.verdicts == {Origin.MEASURED: Verdict.HOLDS, Origin.MODELLED: Verdict.IN_PART}


def test_blocks_that_something_else_pins_turn_it(copied: Callable[..., Path]) -> None:
    root = copied("blame")
    assert judged("unplug-network-buffers", root).verdicts == {Origin.MEASURED: Verdict.HOLDS}
    rewrite(
        root / "blame" / "blame.csv",
        lambda row: row | ({"alone": "0"} if row["frame_class"] == "kernel" else {}),
    )
    assert judged("unplug-network-buffers", root).verdicts == {Origin.MEASURED: Verdict.DOES_NOT}


def test_a_kernel_whose_reclaim_unplugs_turns_it(copied: Callable[..., Path]) -> None:
    root = copied("pmd")
    assert judged("reclaim-unplugs", root).verdicts[Origin.MEASURED] is Verdict.DOES_NOT

    def all_of_it(row: Row) -> Row:
        small = str(2_097_152 * (1 + int(row["repeat"]) % 3))
        return row | ({"unplug_shortfall_bytes": small} if row["arm"] == "linux-7.x" else {})

    rewrite(root / "pmd" / "summary.csv", all_of_it)
    assert judged("reclaim-unplugs", root).verdicts[Origin.MEASURED] is Verdict.HOLDS


def test_a_spread_over_the_bound_decides_nothing(copied: Callable[..., Path]) -> None:
    root = copied("pmd")

    def apart(row: Row) -> Row:
        little = row["arm"] == "linux-7.x" and int(row["repeat"]) % 2
        return row | {"unplug_shortfall_bytes": str(2_097_152 * (1 if little else 400))}

    rewrite(root / "pmd" / "summary.csv", apart)
    found = judged("reclaim-unplugs", root)
    assert found.parts[0].result is PartResult.UNDECIDED
    assert found.verdicts[Origin.MEASURED] is Verdict.UNDECIDED


def test_few_boots_have_a_range_and_their_difference_nothing(copied: Callable[..., Path]) -> None:
    root = copied("pmd", "online-policy")
    rewrite(root / "pmd" / "summary.csv", lambda row: row if int(row["repeat"]) <= 3 else None)
    found = judged("unplug-page-tables", root).parts[0].figure
    assert found
    assert (found.spread, found.boots) == (Spread.BOOTS, 3)
    difference = judged("reclaim-unplugs", root).parts[0]
    assert difference.result is PartResult.UNDECIDED
    assert difference.figure
    assert (difference.figure.low, difference.figure.spread) == (None, Spread.NONE)


def test_trials_that_do_not_count_are_no_evidence(copied: Callable[..., Path]) -> None:
    root = copied("allocators")
    rewrite(root / "allocators" / "summary.csv", lambda row: row | {"left_out": "did not complete: lost"})
    found = judged("sparse-mappings", root)
    assert found.verdicts == {Origin.MEASURED: Verdict.NOT_TESTED}
    assert "no trial of arm jemalloc-decay-0 counts" in found.parts[0].reason


def test_what_the_model_says_turns_what_is_modelled(copied: Callable[..., Path]) -> None:
    root = copied("overcommit")
    assert judged("fewer-oom-kills", root).verdicts[Origin.MODELLED] is Verdict.IN_PART
    path = root / "overcommit" / "dense.json"
    document: dict[str, Any] = json.loads(path.read_text())
    for row in document["answers"]:
        if row["policy"] == "pressure_random":
            row["killed"] = {"low": 0, "typical": 0, "high": 0}
    path.write_text(json.dumps(document))
    found = judged("fewer-oom-kills", root)
    assert found.verdicts == {Origin.MEASURED: Verdict.NOT_TESTED, Origin.MODELLED: Verdict.HOLDS}


def test_the_levers_are_judged_once_their_result_is_there(copied: Callable[..., Path]) -> None:
    """results/reference/reclaim as it would be: the arms of the scenario, with moments of another run."""
    root = copied("second-level-levers")
    levers, run = root / "second-level-levers", root / "reclaim"
    shutil.copytree(levers, run)
    for path in (run / "plan.json", run / "summary.csv"):
        text = (
            path.read_text()
            .replace('"balloon-and-slot"', '"flush"')
            .replace('"unplug-slots"', '"collapse-and-flush"')
        )
        path.write_text(
            text.replace(",balloon-and-slot,", ",flush,").replace(",unplug-slots,", ",collapse-and-flush,")
        )
    moments = {"filled": "before", "emptied": "after"}
    rewrite(run / "moments.csv", lambda row: row | {"moment": moments.get(row["moment"], row["moment"])})
    found = judged("second-level-reclaim", root)
    assert results(found) == ["met", "met", "met"]
    assert found.verdicts == {Origin.MEASURED: Verdict.HOLDS}
    for name in ("summary.csv", "plan.json"):
        (run / name).write_text((run / name).read_text().replace("collapse-and-flush", "other"))
    with pytest.raises(BadInputError, match="no arm 'collapse-and-flush'"):
        judged("second-level-reclaim", root)


def test_huge_pages_that_save_nothing_turn_the_claim_of_tlbs(copied: Callable[..., Path]) -> None:
    root = copied("tlb.json", "pmd")
    found = judged("tlb-stalls", root)
    assert found.verdicts == {Origin.MEASURED: Verdict.CANNOT, Origin.MODELLED: Verdict.IN_PART}
    assert results(found)[-2:] == ["not met", "met"]
    figure = found.parts[-1].figure
    assert figure
    assert (figure.spread, figure.boots) == (Spread.INTERVAL, 5)
    assert found.parts[1].figure
    assert found.parts[1].figure.spread is Spread.CPUS
    document: dict[str, Any] = json.loads((root / "tlb.json").read_text())
    for patterns in document["cpus"].values():
        for rows in patterns.values():
            for row in rows:
                row["two_levels"] = rows[0]["two_levels"]
    for trials in document["run"]["trials"].values():
        for rows in trials.values():
            rows["empty_all_levels"] = rows["free or movable"]
    (root / "tlb.json").write_text(json.dumps(document))
    assert judged("tlb-stalls", root).verdicts[Origin.MODELLED] is Verdict.DOES_NOT
    (root / "tlb.json").unlink()
    assert judged("tlb-stalls", root).verdicts[Origin.MODELLED] is Verdict.NOT_TESTED


# The page and the verb


def test_the_page_is_the_first_link_of_the_readme() -> None:
    readme = (figures.ROOT / "README.md").read_text()
    assert re.findall(r"\]\(([^)]+)\)", readme)[0] == "docs/claims.md"


@pytest.mark.parametrize("name", CLAIM_NAMES)
def test_the_page_has_each_claim(name: str) -> None:
    """Its figures, and that they are what is judged now: test_figures.py."""
    assert f"### {name}\n" in PAGE
    assert f"](#{name})" in PAGE


def test_the_table_fits_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        main(["claims"])
    lines = capsys.readouterr().out.splitlines()
    assert end.value.code == 0
    assert max(map(len, lines[: len(CLAIM_NAMES) + 1])) <= 80
    assert [line.split()[0] for line in lines[1 : len(CLAIM_NAMES) + 1]] == CLAIM_NAMES


def test_one_claim_is_printed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["claims", "unreferenced-tables"])
    printed = capsys.readouterr().out
    found = judge(claim_named("unreferenced-tables"), COMMITTED)
    for row in part_rows(found):
        assert row.what in printed
        assert row.found in printed
        assert row.criterion in printed
    assert found.claim.changes in printed


def test_json_has_each_part_with_its_figure(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["claims", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["claims"] == json.loads(
        json.dumps(claims_as_json([judge(one, COMMITTED) for one in every_claim()]))
    )
    parts = [part for one in document["claims"] for part in one["parts"]]
    assert all((part["estimate"] is None) == bool(part["reason"]) for part in parts)


def test_an_unknown_claim_and_a_folder_that_is_not_there(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for argv, words in (
        (["claims", "table-math"], "did you mean 'table-maths'?"),
        (["claims", "--reference", str(tmp_path / "none")], "no committed results"),
    ):
        with pytest.raises(SystemExit) as end:
            main(argv)
        assert end.value.code == 2
        assert words in capsys.readouterr().err


def test_a_copy_without_results_takes_those_of_the_clone_it_is_called_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(committed_module, "shipped", lambda place: tmp_path / "site-packages" / place)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInputError, match="no committed results") as error:
        reference_folder()
    assert "--reference" in error.value.hint
    monkeypatch.chdir(figures.ROOT)
    assert reference_folder() == REFERENCE


def test_a_claim_is_filed_once() -> None:
    with pytest.raises(ValueError, match="two claims"):
        CLAIMS.register("table-maths")(claim_named("table-maths"))
