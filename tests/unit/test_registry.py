"""Registries: a new file is all it takes, and no name is taken twice."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.actions import ACTIONS
from orchestrator.errors import BadInputError
from orchestrator.observation import Observation
from orchestrator.probes import PROBES
from orchestrator.registry import Registry
from orchestrator.workloads import DRIVERS


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An importable package `zoo` whose registry is `zoo.ANIMALS`."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from orchestrator.registry import Registry\nANIMALS = Registry('animal', 'zoo')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "zoo"]:
        del sys.modules[name]


def animals() -> Registry[object]:
    found: Registry[object] = importlib.import_module("zoo").ANIMALS
    return found


def test_every_file_of_the_package_is_found(package: Path) -> None:
    (package / "lion.py").write_text("import zoo\n@zoo.ANIMALS.register('lion')\nclass Lion: ...\n")
    (package / "ape.py").write_text("import zoo\nzoo.ANIMALS.register('ape')(1)\n")
    assert animals().names() == ["ape", "lion"]
    assert "lion" in animals()
    assert "cow" not in animals()
    assert animals()["ape"] == 1
    assert [name for name, _ in animals()] == ["ape", "lion"]
    with pytest.raises(BadInputError, match="no animal is called 'cow'") as refused:
        animals()["cow"]
    assert refused.value.hint == "there are: ape, lion"


def test_a_name_is_taken_once(package: Path) -> None:
    animals().register("lion")(1)
    with pytest.raises(ValueError, match="two animals are called 'lion'"):
        animals().register("lion")(2)


def test_a_file_that_fails_fails_again(package: Path) -> None:
    (package / "broken.py").write_text("import nothing_of_this_name\n")
    for _ in range(2):  # and does not leave half a registry that says there is no lion
        with pytest.raises(ModuleNotFoundError):
            animals().names()


def test_what_is_registered() -> None:
    assert set(ACTIONS.names()) >= {
        *("plug", "unplug", "inflate", "deflate", "start", "stop", "exec", "snapshot", "wait")
    }
    assert set(PROBES.names()) >= {
        *("guest_meminfo", "guest_process", "guest_uptime", "guest_vmstat"),
        *("balloon", "host_meminfo", "host_pagemap", "host_qemu", "virtio_mem"),
    }
    assert set(DRIVERS.names()) >= {"redis", "sparse-map"}
    undocumented = [name for registry in (ACTIONS, PROBES) for name, thing in registry if not thing.__doc__]
    assert undocumented == []


@pytest.mark.parametrize(("value", "gap"), [(None, ""), (1.0, "why")])
def test_an_observation_has_a_value_or_a_gap(value: float | None, gap: str) -> None:
    with pytest.raises(ValueError, match="a value or a gap"):
        Observation(0, "t", "probe", "name", value, "bytes", gap=gap)
