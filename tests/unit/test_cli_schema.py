"""`schema` as a user calls it: it takes and refuses what the loader does."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML
from test_cli_scenario import GOOD, call, two_actions_and_much_memory, write_files


@pytest.fixture(autouse=True)
def _small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    two_actions_and_much_memory(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As in test_cli_scenario."""
    monkeypatch.chdir(tmp_path)
    return write_files(tmp_path)


@pytest.fixture
def schema() -> dict[str, Any]:
    """As `orchestrator schema` prints it, with the actions of these tests."""
    return _schema()


@cache
def _schema() -> dict[str, Any]:
    with redirect_stdout(StringIO()) as printed:
        assert call("schema") == 0
    made: dict[str, Any] = json.loads(printed.getvalue())
    jsonschema.Draft202012Validator.check_schema(made)
    return made


def accepts(made: dict[str, Any], text: str) -> bool:
    data = YAML(typ="safe", pure=True).load(text)
    return bool(jsonschema.Draft202012Validator(made).is_valid(data))


def test_the_schema_agrees_with_validate(schema: dict[str, Any]) -> None:
    assert accepts(schema, GOOD)
    for old, new in [
        ("name: quick", "name: Quick"),
        ("memory: 1GiB", "memory: 1536MB"),
        ("memory: 1GiB", "memory: 1GiB\n  memroy: 1GiB"),
        ("memory: 1GiB", "vcpus: 1"),
        ('kernel: "6.12"', "kernel: 6.12"),
        ("setup: {thp: never}", "setup: {thp: nevr}"),
        ("old: {", "Old name: {"),
        ("setup: {thp: never}", "setup: {redis_config: {Dir: x}}"),
        ("repeats: 2", "repeats: 0"),
        ("- look:", "- grow:"),
        ("- look:", "- look: {lable: x}"),
        ("- look:", "- gorw: {to: 1GiB}"),
        ("- look:", "- look:\n    grow: {to: 1GiB}"),
        ("- look:", "- {}"),
    ]:
        assert GOOD.count(old) == 1
        assert not accepts(schema, GOOD.replace(old, new)), new
    for old, new in [
        ("setup: {thp: never}", "machine: {virtio_mem: {block: 4MiB}, balloon: {}}"),
        ("- look:", "- look: {}"),
    ]:
        assert accepts(schema, GOOD.replace(old, new)), new


ARMS_OF_A_STEP = [
    ("- look:\n    in: old", True),
    ("- look: {label: x}\n    in: [old]", True),
    ("- in: old\n    look:", True),
    ("- look:\n    in: []", False),
    ("- look:\n    in:", False),
    ("- look:\n    in: 3", False),
    ("- look:\n    in: [old, 3]", False),
    ("- look:\n    in: [old, old]", False),
    ("- in: [old]", False),
    ("- look:\n    grow: {to: 1GiB}\n    in: [old]", False),
    ("- look:\n    on: [old]", False),
]
SETTINGS = [
    ("setup: {online_policy: auto-movable, auto_movable_ratio: 0}", True),
    ("setup: {online_policy: auto-movable, auto_movable_ratio: null}", True),
    ("setup: {online_policy: auto-movable, auto_movable_ratio: -1}", False),
    ("setup: {online_policy: auto-movable, auto_movable_ratio: 10001}", False),
    ("setup: {online_policy: auto_movable}", False),
    ("setup: {swap: zram, swap_size: 64MiB}", True),
    ("setup: {swap: disk, swap_size: null}", True),
    ("setup: {swap: file}", False),
    ("setup: {sysctl: {vm.max_map_count: 1, net/core/x: y}}", True),
    ("setup: {sysctl: {Vm.x: 1}}", False),
    ("setup: {sysctl: {vm.x: 1.5}}", False),
    ("setup: {sysctl: {vm.x: ''}}", False),
    ("kernel_args: page_owner=on quiet", True),
    ("kernel_args: null", True),
    ("kernel_args: é", False),
    (f"kernel_args: {'x' * 512}", True),
    (f"kernel_args: {'x' * 513}", False),
]


@pytest.mark.parametrize(
    ("old", "new", "good"),
    [("- look:", *case) for case in ARMS_OF_A_STEP] + [("setup: {thp: never}", *case) for case in SETTINGS],
)
def test_schema_and_loader_take_and_refuse_the_same(
    folder: Path, schema: dict[str, Any], old: str, new: str, good: bool
) -> None:
    assert GOOD.count(old) == 1
    text = GOOD.replace(old, new)
    (folder / "good.yaml").write_text(text)
    assert accepts(schema, text) is good
    assert call("validate", "good.yaml") == (0 if good else 2)


def test_the_schema_describes_keys_actions_and_parameters(schema: dict[str, Any]) -> None:
    step = schema["$defs"]["Step"]["properties"]["grow"]
    assert step["description"] == "Plug memory until so much is plugged."
    arms = schema["$defs"]["Step"]["properties"]["in"]["description"]
    assert arms == "The arms that have this step, a name or a list of names; without it, all have it."
    grow = schema["$defs"]["action.grow"]
    assert grow["properties"]["to"]["description"] == "Bytes that are plugged afterwards."
    assert grow["properties"]["timeout"]["default"] == "60s"
    assert grow["properties"]["within"]["deprecated"] is True, "its older name"
    assert grow["additionalProperties"] is False
    assert schema["$defs"]["VirtioMem"]["properties"]["block"]["default"] == "2MiB"
    assert schema["properties"]["repeats"]["description"] == "Trials of each arm."
    assert schema["additionalProperties"] is False
