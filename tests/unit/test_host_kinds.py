"""Kinds of host: each text names one, and what differs between them is asked of its class."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from orchestrator.errors import BadInputError
from orchestrator.host_kinds import HOST_KINDS, host_kind, is_guest, is_shared
from orchestrator.host_kinds.base import scenario_pattern

PACKAGE = Path(__file__).parents[2] / "orchestrator"


@pytest.mark.parametrize(
    ("text", "name", "true_of_it"),
    [
        ("local", "local", {"takes_our_memory", "shared", "scenario"}),
        ("nested", "nested", {"is_guest", "scenario"}),
        ("lab", "lab", {"shared", "elsewhere", "scenario"}),
        ("qemu:///system", "libvirt", {"shared"}),
        ("qemu+ssh://root@h/system", "libvirt", {"shared", "elsewhere", "scenario"}),
        ("qemu+ssh://root@[fe80::1]:22/system", "libvirt", {"shared", "elsewhere", "scenario"}),
        ("test:///default", "libvirt", {"shared"}),
    ],
)
def test_each_text_is_a_host_of_one_kind(text: str, name: str, true_of_it: set[str]) -> None:
    (claimed,) = (kind for _, kind in HOST_KINDS if kind.parse(text))
    assert claimed is HOST_KINDS[name]
    host = host_kind(text)
    assert type(host) is claimed
    facts = {fact for fact in ("takes_our_memory", "is_guest", "shared", "elsewhere") if getattr(host, fact)}
    facts |= {"scenario"} if re.fullmatch(scenario_pattern(), text) else set()
    assert facts == true_of_it
    assert (is_guest(text), is_shared(text)) == (host.is_guest, host.shared)


@pytest.mark.parametrize("text", ["", "neste", "Nested", "nested ", "host", "//x", "root@h"])
def test_what_is_no_host_is_told_what_would_be_one(text: str) -> None:
    with pytest.raises(BadInputError, match="is no host") as error:
        host_kind(text)
    assert all(kind.form in error.value.hint for _, kind in HOST_KINDS)


@pytest.mark.parametrize("text", ["of another version", "", None, 7, ["nested"]])
def test_a_plan_of_a_host_that_nobody_knows_can_be_read(text: object) -> None:
    assert not is_guest(text)
    assert is_shared(text), "the careful answer: counters may be others' as well"


def test_only_a_nested_host_minds_software_emulation() -> None:
    minds = {name for name, kind in HOST_KINDS if kind(kind.form).problems("tcg")}
    assert minds == {"nested"}
    assert not any(kind(kind.form).problems("auto") for _, kind in HOST_KINDS)


def compared(source: str) -> set[object]:
    """Constants that something is compared with."""
    found = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Compare))
    sides = (side for node in found for side in (node.left, *node.comparators))
    inner = (part for side in sides for part in ast.walk(side) if isinstance(part, ast.Constant))
    return {part.value for part in inner}


def test_no_kind_of_host_is_told_by_its_name() -> None:
    assert compared("a == 'nested' or b in {'lab'}") == {"nested", "lab"}
    names = {kind.form for _, kind in HOST_KINDS}
    by_name = {
        path.relative_to(PACKAGE).as_posix(): compared(path.read_text()) & names
        for path in PACKAGE.rglob("*.py")
    }
    assert {path: found for path, found in by_name.items() if found} == {}
