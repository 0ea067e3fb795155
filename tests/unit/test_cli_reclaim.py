"""`reclaim` on a real process that is taken for a VM of a made-up libvirt and KVM."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeDomain
from test_lever_collapse import Process, process, pytestmark
from test_runtime import typed

from orchestrator import host_kinds
from orchestrator.audit.vm_ram import Mapping
from orchestrator.host import reader
from orchestrator.host.domain_memory import DomainMemory
from orchestrator.host.runtime import runtime_base
from orchestrator.host.settings import NX_HUGE_PAGES, PATHS
from orchestrator.host.shell import HostShell
from orchestrator.processes import started_ticks
from orchestrator.procfs import MEMORY_PRESSURE
from orchestrator.reclaim import vm as module
from orchestrator.units import KIB, PAGE_BYTES, PMD_BYTES

__all__ = ["pytestmark"]

UUID = "8b5b5e4c-0000-4000-8000-000000000001"
OTHER = 4_000_000  # no process: the other VM of the host


class Domain(FakeDomain):
    """With what libvirt's XML says of its memory."""

    def memory(self) -> DomainMemory:
        return DomainMemory("web1", UUID, None, True, 4 * PMD_BYTES, (), None, (), 0)


@dataclass
class Host:
    """A KVM host: reads and collapses for real, and has tables that a flush frees."""

    vm: Process
    own_kib: int = 1712
    nx: str = "N"
    jobs: dict[str, str] = field(default_factory=dict)
    psi: str = ""
    flushes: int = 0

    def call(self, name: str, *words: Any, **_: object) -> Any:
        if name == "vms":
            return {
                "vms": [self._vm(self.vm.popen.pid, "web1", UUID), self._vm(OTHER, "db", "x")],
                "unread": [],
                "cut": False,
            }
        if name == "set_and_restore":
            self.flushes += 1
            self.own_kib = 332
            return None
        if name != "texts":
            return reader.CALLS[name](*words)
        found = reader.texts(words[0])
        group = f"/sys/fs/cgroup/m/{self.vm.popen.pid}/memory.stat"
        made = {
            PATHS[NX_HUGE_PAGES]: f"{self.nx}\n",
            "/sys/devices/system/cpu/vulnerabilities/itlb_multihit": "Not affected\n",
            "/proc/meminfo": f"SecPageTables:  {self.own_kib + 400} kB\nMemAvailable: 9000000 kB\n",
            "/proc/vmstat": "",
            group: f"sec_pagetables {self.own_kib * KIB}\n",
            MEMORY_PRESSURE: self.psi,
        }
        return found | {path: text for path, text in made.items() if path in words[0]}

    @staticmethod
    def _vm(pid: int, name: str, uuid: str) -> dict[str, object]:
        return {
            "pid": pid,
            "ticks": started_ticks(pid) or 1,
            "comm": "qemu-system-x86",
            "user": 0,
            "may_read": True,
            "kvm": [11],
            "vcpus": 1,
            "vfio": False,
            "threads": [pid],
            "cgroup": f"0::/m/{pid}\n",
            "argv": [
                "qemu-system-x86_64",
                "-name",
                f"guest={name}",
                "-uuid",
                uuid,
                "-m",
                "8M",
                "-accel",
                "kvm",
            ],
        }

    @property
    def shell(self) -> HostShell:
        return HostShell(self.call)

    def running_names(self) -> list[str]:
        return ["web1"]

    @contextmanager
    def running_domain(self, name: str) -> Iterator[Domain]:
        assert name == "web1"
        yield Domain(shell=self.shell, jobs=self.jobs)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Host]:
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME", str(tmp_path))
    monkeypatch.delenv("COLUMNS", raising=False)  # else tables wrap, as on a terminal
    with process(490, 512, 100, 512) as vm:
        made = Host(vm)
        whole = Mapping(vm.address, vm.address + 4 * PMD_BYTES, False, "")
        monkeypatch.setattr(module, "ram_mappings", lambda *_: (whole,))

        @contextmanager
        def connect(_kind: object, _runtime: Path, _cache: Path) -> Iterator[Host]:
            yield made

        monkeypatch.setattr(host_kinds.HostKind, "connect", connect)
        yield made
    base = runtime_base()
    assert not base.exists() or not list(base.iterdir()), "a runtime folder was left"


def test_a_dry_run_says_which_vms_and_changes_nothing(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    before = host.vm.contents()
    code, text, err = typed(capsys, "reclaim", "flush", "--domain", "web1", "--dry-run")
    assert code == 0, err
    assert f"web1 (process {host.vm.popen.pid}), db (process {OTHER})" in text
    assert f"not known of process {host.vm.popen.pid}, {OTHER}" in text
    assert "1.672 MiB" in text
    assert host.flushes == 0
    code, text, _ = typed(capsys, "reclaim", "collapse-and-flush", "--domain", "web1", "--dry-run", "--json")
    document = json.loads(text)
    assert document["format"] == "orchestrator.reclaim/1"
    assert document["predicted"]["ranges"] == 3
    assert document["predicted"]["grows_at_most_bytes"] == 22 * PAGE_BYTES
    assert document["measured"] == {"before": document["measured"]["before"]}
    assert document["measured"]["before"]["second_level_bytes"] == 1712 * KIB
    assert document["measured"]["before"]["second_level_of_host_bytes"] == 2112 * KIB
    assert (host.flushes, host.vm.huge_bytes()) == (0, 0)
    assert host.vm.contents() == before


def test_it_measures_before_at_once_and_after(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    before = host.vm.contents()
    argv = ("reclaim", "collapse-and-flush", "--domain", "web1", "--watch", "0.1", "--yes")
    code, text, err = typed(capsys, *argv, "--json")
    assert code == 0, err
    document = json.loads(text)
    measured = document["measured"]
    assert [measured[one]["second_level_bytes"] for one in ("before", "at_once", "after")] == [
        1712 * KIB,
        332 * KIB,
        332 * KIB,
    ]
    assert (document["outcome"], document["values"]["ranges_collapsed"]) == ("done", 3)
    assert document["predicted"]["second_level_at_most_bytes"] < 332 * KIB
    assert host.vm.huge_bytes() == 3 * PMD_BYTES
    assert host.vm.contents() == before
    code, text, _ = typed(capsys, *argv)
    rows = [line for line in text.splitlines() if line.startswith("second-level tables of the VM")]
    assert rows[0].split()[5:] == ["332", "KiB"] * 3 + ["0", "B", "20", "KiB"], "measured, then predicted"
    # KVM never maps the first 2 MiB by a huge page, one range is not nearly full, three levels are above.
    assert "collapse-and-flush: done, ranges asked 0" in text


def test_growth_is_for_the_user_to_bound(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("reclaim", "collapse", "--domain", "web1", "--watch", "0", "--yes", "--json")
    code, text, _ = typed(capsys, *argv, "--max-growth", "0B")
    assert (code, json.loads(text)["values"]["ranges_collapsed"]) == (0, 2)
    code, text, _ = typed(capsys, *argv, "--min-present", "490")
    assert (code, json.loads(text)["values"]["ranges_collapsed"]) == (0, 1)


def test_what_is_refused_is_an_error_and_changes_nothing(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.jobs = {"web1": "migration out"}
    code, _, err = typed(capsys, "reclaim", "flush", "--domain", "web1", "--yes")
    assert code == 3
    assert "flush is refused on this machine" in err
    assert "web1 is busy (migration out)" in err
    assert host.flushes == 0
    code, text, _ = typed(capsys, "reclaim", "flush", "--domain", "web1", "--dry-run")
    assert code == 0
    assert "refused:" in text


def test_a_vm_without_a_slot_is_refused(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = typed(capsys, "reclaim", "slot", "--domain", "web1", "--yes")
    assert (code, "web1 has no slot for a DIMM" in err) == (3, True)
    code, text, _ = typed(capsys, "reclaim", "slot", "--domain", "web1", "--dry-run", "--json")
    document = json.loads(text)
    assert (code, document["refused"][:12], document["scope"]) == (0, "web1 has no ", "one VM")
    assert document["predicted"]["second_level_at_least_bytes"] == 0


def test_it_asks_on_a_terminal_and_needs_yes_elsewhere(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ("reclaim", "flush", "--domain", "web1", "--watch", "0")
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    code, _, err = typed(capsys, *argv)
    assert code == 2
    assert "give --yes" in err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, flushes in (("n", 0), ("y", 1)):
        monkeypatch.setattr("click.termui.visible_prompt_func", lambda _, words=answer: words)
        code, _, err = typed(capsys, *argv)
        assert "acts on all VMs of the host" in err
        assert host.flushes == flushes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("flsh",), "flush"),
        (("flush", "--max-growth", "1MiB"), "flush takes no --max-growth"),
        (("flush", "--size", "1MiB"), "flush takes no --size"),
        (("slot", "--size", "1B"), "--size: "),
        (("collapse", "--max-growth", "much"), "--max-growth: 'much' is not a size"),
        (("flush", "--connect", "local"), "'local' has no VMs but our own"),
        (("flush", "--connect", "nested"), "'nested' has no VMs but our own"),
        (("flush", "--watch", "soon"), "'soon' is not a duration"),
    ],
)
def test_bad_usage(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = typed(capsys, "reclaim", *words, "--domain", "web1", "--yes")
    assert code == 2
    assert said in " ".join(err.split())


def test_a_vm_that_is_not_there(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ram_mappings", lambda *_: None)
    code, _, err = typed(capsys, "reclaim", "flush", "--domain", "web1", "--dry-run")
    assert (code, "are the RAM of web1" in err) == (3, True)
    monkeypatch.setattr(Host, "_vm", staticmethod(lambda pid, name, _: {**host_vm(pid, name)}))
    code, _, err = typed(capsys, "reclaim", "flush", "--domain", "web1", "--dry-run")
    assert (code, "the process of web1 is not to be seen" in err) == (3, True)


def host_vm(pid: int, name: str) -> dict[str, object]:
    return {**_VM(pid, name, "another"), "pid": pid}


_VM = Host._vm
