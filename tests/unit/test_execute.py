"""A whole plan: what is bad in any arm is told before anything is begun, and arms boot as they say."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lxml import etree

from orchestrator.errors import BadInputError
from orchestrator.guest import boot
from orchestrator.host.shell import HostShell
from orchestrator.launch.paths import ProjectPaths
from orchestrator.plan import Plan, make_plan
from orchestrator.run import execute, programs
from orchestrator.run.machinery import RealMachinery
from orchestrator.scenario import load_scenario
from orchestrator.workloads import load_workload

ROOT = Path(__file__).parents[2]


def plan(steps: str, repeats: str = "repeats: 2\n") -> Plan:
    """A plan with the arms a and b, twice each."""
    text = (
        f"version: 1\nname: x\nguest: debian-13\nmachine: {{memory: 1GiB}}\n{repeats}arms: {{a: , b: }}\n"
        f"steps:\n{steps}"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.yaml"
        path.write_text(text)
        return make_plan(load_scenario(path, kernels_of=lambda _: ["6.12"]))


def test_each_workload_of_each_arm_is_looked_at_once_before_the_run_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[tuple[str, object]] = []
    compiled: list[str] = []
    load = load_workload

    def loaded(folder: Path, settings: Mapping[str, object] | None = None) -> object:
        looked.append((folder.name, settings))
        return load(folder, settings)

    def built(source: Path, cache: Path, *_: object) -> Path:
        compiled.append(source.name)
        return source

    monkeypatch.setattr(programs, "load_workload", loaded)
    monkeypatch.setattr(programs, "build_program", built)
    steps = (
        "  - start: {workload: sparse-map}\n"
        "  - start: {workload: redis}\n    in: a\n"
        "  - start: {workload: sparse-map, set: {spam: 1}}\n    in: b\n"
    )
    places = ProjectPaths(ROOT / "guests", ROOT / "workloads", ROOT / "playbooks", tmp_path / "cache")
    no_progress: Any = None
    with pytest.raises(BadInputError, match="'sparse-map' cannot be set so: spam"):
        execute.execute_plan(plan(steps), places, tmp_path / "run", no_progress)
    assert not (tmp_path / "run").exists()
    assert sorted(looked, key=repr) == [
        ("redis", {}),
        ("sparse-map", {"spam": 1}),
        ("sparse-map", {}),
    ]
    assert compiled == []

    class BegunError(Exception):
        """Guests would be booted now."""

    class Begins(RealMachinery):
        def runtime(self, run_dir: Path) -> AbstractContextManager[Path]:
            raise BegunError(run_dir)

    good = plan(steps.replace(", set: {spam: 1}", ""))
    with pytest.raises(BegunError):
        execute.execute_plan(good, places, tmp_path / "run", no_progress, machinery=Begins())
    assert sorted(compiled) == ["guest-probe.c", "memory-blocks.c", "sparse-map.c"]


@pytest.mark.parametrize(("added", "line"), [("", "console=ttyS0"), ("a=b 'c d'", "console=ttyS0 a=b 'c d'")])
def test_kernel_args_come_after_those_of_the_definition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, added: str, line: str
) -> None:
    class StartedError(Exception):
        """The domain would be started now."""

    asked: list[str] = []

    def domain(xml: str) -> None:
        asked.append(xml)
        raise StartedError

    monkeypatch.setattr(boot, "_overlay", lambda *_: None)
    host: Any = SimpleNamespace(domain=lambda xml, keep: domain(xml), shell=HostShell())
    image: Any = SimpleNamespace(disk=tmp_path / "disk", folder=tmp_path)
    files: Any = SimpleNamespace(kernel=tmp_path / "vmlinuz", initrd=None, release="6.12")
    definition: Any = SimpleNamespace(command_line="console=ttyS0", boot_timeout=1.0)
    keys: Any = None
    machine = plan("  - wait: {time: 1s}\n").arms[0].machine
    with (
        pytest.raises(StartedError),
        boot.booted(
            host,
            image,
            files,
            machine,
            keys,
            name="g",
            accel="tcg",
            definition=definition,
            scratch=tmp_path / "scratch",
            progress=lambda _: None,
            kernel_args=added,
        ),
    ):
        pass
    assert etree.fromstring(asked[0]).findtext("os/cmdline") == line
