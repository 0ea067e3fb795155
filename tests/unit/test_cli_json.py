"""Each `--json` document names its format; docs/json.md lists them all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from synthetic_run import write_run

from orchestrator import doctor, summary
from orchestrator.cli import main
from orchestrator.cli.main import cli
from orchestrator.cli.output import FORMATS, format_name, print_json
from orchestrator.doctor import Check, Level
from orchestrator.store.costs_file import CostsFile

ROOT = Path(__file__).parents[2]


def verbs(group: click.Group, before: tuple[str, ...] = ()) -> Iterator[tuple[str, list[click.Command]]]:
    """Every verb with `--json`, and the commands that lead to it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from ((verb, [group, *way]) for verb, way in verbs(command, (*before, name)))
        elif any("--json" in param.opts for param in command.params):
            yield " ".join((*before, name)), [group, command]


DOCUMENTS = [(verb, way) for verb, way in verbs(cli) if verb != "schema"]


def test_every_verb_with_json_has_a_format_and_no_other_has() -> None:
    of_words = {"blame live", "claims run"}  # an argument of one, an option of the other
    assert {verb for verb, _ in verbs(cli)} == {*FORMATS, "schema"} - of_words


@pytest.mark.parametrize(
    ("verb", "way"), DOCUMENTS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_document_is_named_after_its_verb(
    verb: str, way: list[click.Command], capsys: pytest.CaptureFixture[str]
) -> None:
    context: click.Context | None = None
    for command in way:
        context = click.Context(command, parent=context)
    assert context is not None
    with context:
        print_json({"a": 1, "format": 1})
    document = json.loads(capsys.readouterr().out)
    assert document == {"format": format_name(verb), "a": 1}
    assert next(iter(document)) == "format"
    assert re.fullmatch(r"orchestrator\.[a-z.]+/[1-9]", document["format"])


def test_the_docs_list_them_all() -> None:
    told = re.findall(r"`(orchestrator\.[a-z.]+/[0-9]+)`", (ROOT / "docs" / "json.md").read_text())
    assert set(told) == {format_name(verb) for verb in FORMATS}


def typed(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, object]:
    with pytest.raises(SystemExit):
        main([*map(str, argv), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert isinstance(document, dict)
    return document


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    summary.refresh(write_run(root, "one"))
    return root


@pytest.mark.slow
def test_documents_of_a_run(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of = ("--results", results)
    for argv, keys in [
        (("list", *of), {"runs", "unreadable"}),
        (("show", "one", *of), {"run", "conclusions", "trials", "expect", "meta"}),
        (("report", "one", *of), {"run", "status", "report", "junit", "metrics"}),
        (("compare", "one", *of), {"comparisons"}),
        (("baseline", "one", "-o", tmp_path / "b.json", *of), {"file", "run", "trials", "boots"}),
        (("blame", "one", *of), {"snapshots"}),
    ]:
        document = typed(capsys, *argv)
        assert document["format"] == format_name(str(argv[0]))
        assert keys <= set(document), argv


def test_documents_of_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "t.npz"
    for argv, verb in [
        (("model", "trace"), "model trace"),
        (
            ("model", "trace", "redis_churn", "-o", trace, "--set", "span=64MiB", "--set", "resident=8MiB"),
            "model trace",
        ),
        (("model", "replay", trace, "--policy", "lru", "--budget", "64KiB"), "model replay"),
        (("model", "policies"), "model policies"),
        (("model", "calibrate"), "model calibrate"),
    ]:
        document = typed(capsys, *argv)
        assert document["format"] == format_name(verb)
    # What is printed is the file that --costs reads.
    assert CostsFile.model_validate(document).format == format_name("model calibrate")


def test_documents_of_the_machine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME", str(tmp_path))
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: [Check("a", Level.UNKNOWN, "not checked: b")])
    for argv, verb in [
        (("doctor",), "doctor"),
        (("clean", "--dry-run"), "clean"),
        (("image", "list"), "image list"),
        (("plan", ROOT / "scenarios" / "quickstart.yaml"), "plan"),
        (("validate", "--any-host", ROOT / "scenarios" / "quickstart.yaml"), "validate"),
    ]:
        assert typed(capsys, *argv)["format"] == format_name(verb)


def test_the_schema_names_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    document = typed(capsys, "schema")
    assert "format" not in document
    assert str(document["$schema"]).startswith("https://json-schema.org/")
