"""Keys that were renamed are printed under their older names as well."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from synthetic_run import write_run

from orchestrator import summary
from orchestrator.cli import main
from orchestrator.cli.output import FORMATS
from orchestrator.export.older_keys import OLDER_KEYS, OlderKey, with_older_keys

OF_A_GATE = {"gate.tolerance", "gate.changes[].result"}  # the run has none


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    expect = [{"metric": "unplug_shortfall_bytes", "arm": "6.12", "at_most": 1.0}]
    summary.refresh(write_run(root, "one", expect=expect))
    return root


def places(value: Any, path: list[str]) -> Iterator[dict[str, Any]]:
    """Independent of the package: every object at a path."""
    if not path:
        yield value
    elif path[0] == "*":
        for inner in value.values():
            yield from places(inner, path[1:])
    elif path[0].endswith("[]"):
        for inner in value[path[0][:-2]]:
            yield from places(inner, path[1:])
    elif value[path[0]] is not None:
        yield from places(value[path[0]], path[1:])


@pytest.mark.parametrize(
    ("verb", "more"),
    [
        ("show", ()),
        ("blame", ()),
        ("compare", ()),
        ("model replay", ("--budget", "64KiB", "--policy", "lru")),
    ],
)
def test_each_is_printed_with_its_value(
    verb: str, more: tuple[str, ...], results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*verb.split(), "one", "--results", str(results), "--json", *more])
    document = json.loads(capsys.readouterr().out)
    for path, older in OLDER_KEYS[verb].items():
        *above, key = path.split(".")
        found = [place for place in places(document, above) if key in place] if path not in OF_A_GATE else []
        assert found or path in OF_A_GATE, path
        for place in found:
            expected = older.values[place[key]] if older.values else place[key]
            assert place[older.name] == expected, path


def test_a_gate_has_them_too() -> None:
    gate = {"tolerance": 0.1, "changes": [{"result": "none"}]}
    assert with_older_keys("show", {"gate": gate})["gate"] == {
        "tolerance": 0.1,
        "tolerated": 0.1,
        "changes": [{"result": "none", "word": "none"}],
    }
    assert with_older_keys("show", {"gate": None}) == {"gate": None}


def test_model_compare_has_those_of_replay() -> None:
    """Its document is not printed here: that compiles every policy."""
    assert OLDER_KEYS["model compare"] == OLDER_KEYS["model replay"]


def test_no_older_name_hides_a_key_of_today() -> None:
    for verb, keys in OLDER_KEYS.items():
        assert verb in FORMATS
        beside = {path.rpartition(".")[0]: set[str]() for path in keys}
        for path in keys:
            beside[path.rpartition(".")[0]].add(path.rpartition(".")[2].removesuffix("[]"))
        for path, older in keys.items():
            assert isinstance(older, OlderKey)
            assert older.name not in beside[path.rpartition(".")[0]], (verb, path)
