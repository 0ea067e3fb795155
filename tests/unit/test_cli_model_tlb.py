"""`orchestrator model tlb`, as people call it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
from synthetic import sparse_guest

from orchestrator.claims import claim_named
from orchestrator.cli import main
from orchestrator.cli.model_tlb import tlb_command
from orchestrator.model.tlb import ASSUMPTIONS
from orchestrator.model.tlb_access import ACCESSES
from orchestrator.model.tlb_cpu import SHIPPED_CPUS, TlbCpu
from orchestrator.store.snapshot_file import write_snapshot
from orchestrator.yamlfile import load_yaml_model

PMD = Path(__file__).parents[2] / "results" / "reference" / "pmd"
FEW = ("--accesses", "3000", "--warm-up", "1000", "--seeds", "2")


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `orchestrator model tlb ARGV`."""
    with pytest.raises(SystemExit) as end:
        main(["model", "tlb", *argv])
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def document(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    code, text, err = call(capsys, *argv, *FEW, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(text)
    return found


def typical(row: dict[str, Any], levels: str, figure: str) -> float:
    value = row[levels][figure]
    assert value["low"] <= value["typical"] <= value["high"]
    return float(value["typical"])


@pytest.mark.slow
def test_without_caches_a_walk_takes_4_and_24_and_five_levels_5_and_35(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for levels, one, two in (("4", 4, 24), ("5", 5, 35)):
        argv = ("--memory", "4GiB", "--huge", "0", "--host-huge", "0", "--cpu", "none", "--levels", levels)
        (row,) = document(capsys, *argv)["modelled"]
        for level, references in (("one_level", one), ("two_levels", two)):
            assert typical(row, level, "tlb_misses_per_access") == 1
            assert typical(row, level, "references_per_walk") == references
            assert typical(row, level, "references_per_access") == references


@pytest.mark.slow
def test_what_was_asked_is_in_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("--memory", "1GiB", "--huge", "0.5", "--huge", "0.25", "--access", "hot", "--set", "share=0.2")
    found = document(capsys, *argv)
    assert found["format"] == "orchestrator.model.tlb/1"
    assert (found["origin"], found["memory_bytes"], found["host_huge"]) == ("modelled", 1 << 30, 1.0)
    assert found["access"] == {"pattern": "hot", "share": 0.2, "touches": 0.9}
    assert (found["accesses"], found["warm_up"], found["levels"], found["seeds"]) == (3000, 1000, 4, 2)
    assert found["assumptions"] == list(ASSUMPTIONS)
    assert found["cpu"]["name"] == "skylake"
    assert found["cpu"]["sources"]
    assert [row["share"] for row in found["modelled"]] == [0.5, 0.25]
    assert found["huge_ranges"] is None


@pytest.mark.slow
def test_a_run_says_what_could_be_huge_with_each_policy(capsys: pytest.CaptureFixture[str]) -> None:
    argv = (str(PMD), "--trial", "linux-6.12-01", "--snapshot", "loaded", "--access", "hot")
    found = document(capsys, *argv)
    assert (found["trial"], found["snapshot"], found["huge_ranges"]) == ("linux-6.12-01", "loaded", 1280)
    assert found["memory_bytes"] == 1280 << 21
    rows = {row["what"]: row for row in found["modelled"]}
    assert {"free", "free or movable", "empty", "empty_all_levels"} <= set(rows)
    assert "none" not in rows
    for row in rows.values():
        assert row["share"] == row["ranges"] / 1280
    assert rows["free"]["ranges"] <= rows["free or movable"]["ranges"] < rows["empty_all_levels"]["ranges"]
    better = [
        typical(rows[name], "two_levels", "references_per_access") for name in ("free", "empty_all_levels")
    ]
    assert better[0] > better[1]


@pytest.mark.slow
def test_what_a_claim_says_to_ask_is_of_the_memory_that_it_is_judged_by(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(PMD.parents[2])
    (command,) = [one for one in claim_named("tlb-stalls").commands if "--snapshot" in one]
    found = document(capsys, *command.removeprefix("orchestrator model tlb ").split())
    judged_by = json.loads((PMD.parent / "tlb.json").read_text())["run"]["trials"]["hot"][found["trial"]]
    shares = {row["what"]: row["share"] for row in found["modelled"]}
    assert all(shares[what] == row["share"] for what, row in judged_by.items())


@pytest.mark.slow
def test_a_snapshot_file_says_the_same_of_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.npz"
    write_snapshot(path, sparse_guest(2000))
    found = document(capsys, str(path), "--memory", "64MiB")
    assert (found["snapshot"], found["run"], found["trial"]) == ("s.npz", "", "")
    rows = {row["what"]: row["ranges"] for row in found["modelled"]}
    assert 0 <= rows["free"] < rows["free or movable"] < rows["empty_all_levels"] <= found["huge_ranges"]
    assert found["memory_bytes"] == 64 << 20


@pytest.mark.slow
def test_the_table_fits_a_narrow_terminal_and_says_that_it_is_modelled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, text, _ = call(capsys, str(PMD), "--snapshot", "loaded", *FEW)
    assert code == 0
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("free or movable"))
    assert max(map(len, lines[at - 3 : at + 5])) <= 80
    assert "modelled" in text
    for assumption in ASSUMPTIONS:
        assert assumption in text


@pytest.mark.slow
def test_a_cpu_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One set of 512 ways: a run through memory that fits it misses once for each page, then never."""
    path = tmp_path / "wide.yaml"
    path.write_text("name: wide\nl1:\n  base: {entries: 512, ways: 512}\nsources:\n  l1: a file of a test\n")
    argv = (
        "--cpu",
        str(path),
        "--memory",
        "2MiB",
        "--huge",
        "0",
        "--access",
        "sequential",
        "--set",
        "step=4KiB",
    )
    (row,) = document(capsys, *argv)["modelled"]
    assert typical(row, "one_level", "tlb_misses_per_access") == 0
    assert row["one_level"]["references_per_walk"] is None
    path.write_text("name: wide\nl1:\n  base: {entries: 500, ways: 512}\nsources: {}\n")
    code, _, err = call(capsys, *argv)
    assert (code, "wide.yaml:3" in err) == (2, True)


def test_the_file_in_the_docs_is_a_cpu(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "model.md").read_text()
    (text,) = re.findall(r"```yaml\n(name: .*?)```", page, re.DOTALL)
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert load_yaml_model(path, TlbCpu).name == "mine"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--huge", "1.5"), "--huge"),
        (("--memory", "64"), "not a size"),
        (("--memory", "1MiB"), "2MiB"),
        (("--memory", "0B"), "2MiB"),
        (("--cpu", "skylak"), "skylake"),
        (("--cpu", "no.yaml"), "no.yaml"),
        (("--access", "unifrm"), "uniform"),
        (("--access", "zipf", "--set", "exponent"), "NAME=VALUE"),
        (("--access", "zipf", "--set", "share=1"), "share"),
        (("--trial", "t-01"), "select from a run"),
        ((str(PMD), "--huge", "0.5"), "made up"),
        ((str(PMD), "--snapshot", "loade"), "loaded"),
        ((str(PMD), "--trial", "t-99"), "t-99"),
        (("no-such-run",), "no-such-run"),
        (("no-such-file.npz",), "no-such-file.npz"),
    ],
)
def test_wrong_words_are_refused(
    argv: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, *argv, *FEW)
    assert (code, out) == (2, "")
    assert words in err


def test_help_names_each_pattern_and_each_cpu() -> None:
    (access,) = [param for param in tlb_command.params if param.name == "access"]
    assert isinstance(access.type, click.Choice)
    assert list(access.type.choices) == list(ACCESSES)
    (cpu,) = [param for param in tlb_command.params if param.name == "cpu_name"]
    assert isinstance(cpu, click.Option)
    assert all(one.name in (cpu.help or "") for one in SHIPPED_CPUS)
