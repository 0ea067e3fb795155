"""`flush`: when it refuses, what it writes, and what steps and predictions say of levers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeDomain, FakeTrial

from orchestrator.actions import ACTIONS
from orchestrator.errors import GuestError
from orchestrator.host import reader, settings
from orchestrator.host.collapse import Identity
from orchestrator.host.qemu_process import Segment
from orchestrator.host.runtime import runtime_folder
from orchestrator.host.settings import NX_HUGE_PAGES, PATHS, left_settings
from orchestrator.host.shell import HostShell
from orchestrator.levers import LEVERS, LeverTarget, Prediction, Scope
from orchestrator.levers.flush import ITLB_MULTIHIT
from orchestrator.levers.memory import GuestMemory, SmallRange
from orchestrator.procfs import MEMINFO, VMSTAT, second_level_bytes, stalled_percent
from orchestrator.records.step import StepOutcome
from orchestrator.units import KIB, PAGE_BYTES, PMD_BYTES

AFFECTED = "KVM: Mitigation: Split huge pages"


class Kvm:
    """A host whose KVM frees all tables when nx_huge_pages changes, as `set_nx_huge_pages()` does."""

    def __init__(self, now: str = "N", multihit: str = "Not affected", tables: int = 1712) -> None:
        self.now, self.multihit, self.tables = now, multihit, tables
        self.written: list[str] = []
        self.refuses: int | None = None
        self.after: list[int] = [352]

    def texts(self, *patterns: str) -> dict[str, str]:
        files = {
            PATHS[NX_HUGE_PAGES]: f"{self.now}\n",
            ITLB_MULTIHIT: f"{self.multihit}\n",
            MEMINFO: f"SecPageTables:   {self.tables} kB\nMemAvailable: 1000000 kB\n",
            VMSTAT: "nr_iommu_pages 1\n",
            "/sys/kernel/debug/kvm/0-11/pf_taken": "70\n",
            "/proc/0/status": "VmRSS:  622460 kB\nVmPTE:  1300 kB\n",
        }
        starts = tuple(pattern.partition("*")[0] for pattern in patterns)
        return {path: text for path, text in files.items() if path.startswith(starts)}

    def call(self, name: str, *words: Any, **_: object) -> object:
        if name == "texts":
            return self.texts(*words[0])
        if name == "identity":
            return [1, 0, True, True]
        assert name == "set_and_restore", name
        path, text, former = words
        assert path == PATHS[NX_HUGE_PAGES]
        if self.refuses:
            raise OSError(self.refuses, "no")
        assert former == self.now
        self.written += [text, former]
        self.tables = 332
        return None

    @property
    def shell(self) -> HostShell:
        return HostShell(self.call)


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME", str(tmp_path / "runtime"))
    with runtime_folder(Path("r1")) as folder:
        yield folder


def target(host: Kvm, runtime: Path, jobs: Mapping[str, str] | None = None) -> LeverTarget:
    domain = FakeDomain(shell=host.shell, jobs=dict(jobs or {}))
    return LeverTarget(domain, domain.qemu, (), runtime, lambda _: None)


@pytest.mark.parametrize(
    ("host", "written"),
    [
        (Kvm("N"), ["force", "N"]),
        (Kvm("Y"), ["off", "Y"]),
        # Off on a CPU that has it: to be on for a moment weakens nothing.
        (Kvm("N", "KVM: Vulnerable"), ["force", "N"]),
    ],
)
def test_the_setting_is_turned_and_put_back(host: Kvm, written: list[str], runtime: Path) -> None:
    pulled = LEVERS["flush"]().pull(target(host, runtime))
    assert (pulled.outcome, pulled.message) == (StepOutcome.DONE, "")
    assert host.written == written
    assert left_settings(runtime) == []


@pytest.mark.parametrize(
    ("host", "jobs", "why"),
    [
        (Kvm("Y", AFFECTED), {}, f"mitigates iTLB multihit ({AFFECTED})"),
        (Kvm("Y", ""), {}, "mitigates iTLB multihit ()"),
        (Kvm("never"), {}, "`never`, which lasts until KVM's module is loaded again"),
        (Kvm("maybe"), {}, "says 'maybe'"),
        (Kvm(), {"web1": "migration out"}, "while web1 is busy (migration out)"),
        (Kvm(), {"a": "backup", "b": "save"}, "while a is busy (backup); b is busy (save)"),
    ],
)
def test_what_it_refuses(host: Kvm, jobs: dict[str, str], why: str, runtime: Path) -> None:
    one = target(host, runtime, jobs)
    for lever in ("flush", "collapse-and-flush"):
        pulled = LEVERS[lever]().pull(one)
        assert (pulled.outcome, pulled.values) == (StepOutcome.REFUSED, {})
        assert why in pulled.message
        assert LEVERS[lever]().refusal(one) == pulled.message
    assert host.written == []


def test_a_host_without_it(runtime: Path) -> None:
    shell = HostShell(lambda *_, **__: {})
    domain = FakeDomain(shell=shell)
    pulled = LEVERS["flush"]().pull(LeverTarget(domain, domain.qemu, (), runtime))
    assert (pulled.outcome, PATHS[NX_HUGE_PAGES] in pulled.message) == (StepOutcome.REFUSED, True)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1, "only root may change nx_huge_pages"),
        (11, "somebody else is in a flush"),
        (116, "somebody else has changed nx_huge_pages this moment"),
    ],
)
def test_what_keeps_it_from_being_written(number: int, said: str, runtime: Path) -> None:
    host = Kvm()
    host.refuses = number
    pulled = LEVERS["flush"]().pull(target(host, runtime))
    assert (pulled.outcome, pulled.message) == (StepOutcome.REFUSED, said)
    assert left_settings(runtime) == []
    host.refuses = 5
    with pytest.raises(OSError, match="no"):
        LEVERS["flush"]().pull(target(host, runtime))


def test_a_note_is_there_before_it_is_written(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parameter = runtime / "stand-in"
    parameter.write_text("N\n")
    monkeypatch.setitem(settings.PATHS, NX_HUGE_PAGES, str(parameter))
    seen = []

    def write(path: str, text: str) -> None:
        seen.append((text, [note.former for note in left_settings(runtime)]))
        Path(path).write_text(text)

    monkeypatch.setattr(reader, "write", write)
    domain = FakeDomain()
    assert LEVERS["flush"]().pull(LeverTarget(domain, domain.qemu, (), runtime)).outcome is StepOutcome.DONE
    assert seen == [("force", ["N"]), ("N", ["N"])]
    assert left_settings(runtime) == []


@pytest.fixture
def trial(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Kvm, FakeTrial]:
    monkeypatch.setattr("orchestrator.host.qemu_process.ram_segments", lambda *_: (Segment(0, 0, 0),))
    host = Kvm()
    return host, FakeTrial(FakeDomain(shell=host.shell), runtime=runtime)


def test_a_step_measures_before_at_once_and_after(trial: tuple[Kvm, FakeTrial]) -> None:
    host, running = trial
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        host.tables = 352

    running.sleep = sleep  # type: ignore[method-assign]
    step = ACTIONS["flush"].model_validate({"settle": "10s"})
    result = step.run(running)
    assert slept == [10]
    assert result.outcome is StepOutcome.DONE
    assert result.values == {
        "second_level_before_bytes": 1708 * KIB,
        "second_level_at_once_bytes": 328 * KIB,
        "second_level_after_bytes": 348 * KIB,
        **{f"resident_{moment}_bytes": 622460 * KIB for moment in ("before", "at_once", "after")},
        **{f"host_page_table_{moment}_bytes": 1300 * KIB for moment in ("before", "at_once", "after")},
        **{f"faults_{moment}": 70 for moment in ("before", "at_once", "after")},
    }
    assert step.of_whole_host
    assert not ACTIONS["collapse"]().of_whole_host


def test_a_guest_that_dies_is_noticed(trial: tuple[Kvm, FakeTrial]) -> None:
    _, running = trial
    running.dies_at = running.domain.clock.seconds + 5
    with pytest.raises(GuestError):
        ACTIONS["flush"].model_validate({"settle": "10s"}).run(running)


def test_a_step_that_is_refused_says_why(trial: tuple[Kvm, FakeTrial]) -> None:
    host, running = trial
    host.now = "never"
    result = ACTIONS["flush"].model_validate({"settle": "0s"}).run(running)
    assert result.outcome is StepOutcome.REFUSED
    assert "never" in result.message
    assert result.values["second_level_at_once_bytes"] == result.values["second_level_before_bytes"]


def test_what_the_host_does_not_count_is_left_out() -> None:
    assert second_level_bytes({}, "") is None
    assert second_level_bytes({"SecPageTables": 8 * KIB}, "") == 8 * KIB
    assert second_level_bytes({"SecPageTables": 8 * KIB}, "a 1\nnr_iommu_pages 1\n") == 8 * KIB - PAGE_BYTES


@pytest.mark.parametrize(
    ("text", "percent"),
    [
        ("some avg10=12.50 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.00", 12.5),
        ("", None),
        ("full avg10=1.00 ", None),
    ],
)
def test_pressure(text: str, percent: float | None) -> None:
    assert stalled_percent(text) == percent


def small(number: int, present: int) -> SmallRange:
    return SmallRange((1 << 40) + number * PMD_BYTES, number * PMD_BYTES, present)


def test_predictions(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three ranges in one GiB, two nearly full: three last-level tables, and one of each level above."""
    pages = np.concatenate(
        [np.arange(first, first + count) for first, count in ((512, 500), (1024, 512), (1536, 9))]
    )
    ranges = (small(1, 500), small(2, 512), small(3, 9))
    memory = GuestMemory(pages, np.zeros(len(pages), bool), ranges)
    monkeypatch.setattr(GuestMemory, "read", lambda *_: memory)
    one = target(Kvm(), runtime)
    assert memory.candidates(480, 0) == (ranges[1],)
    assert memory.candidates(480, 12 * PAGE_BYTES) == (ranges[1], ranges[0])
    upper = memory.needed() - 3 * PAGE_BYTES
    assert LEVERS["flush"]().predict(one, 99) == Prediction(0, upper + 3 * PAGE_BYTES)
    grows = 12 * PAGE_BYTES
    assert LEVERS["collapse"]().predict(one, 1 << 20) == Prediction(
        (1 << 20) - 2 * PAGE_BYTES, 1 << 20, grows, 2
    )
    assert LEVERS["collapse"]().predict(one, None) == Prediction(None, None, grows, 2)
    both = LEVERS["collapse-and-flush"]().predict(one, None)
    assert both == Prediction(0, upper + PAGE_BYTES, grows, 2)


def test_each_says_what_it_costs_and_how_it_is_undone() -> None:
    assert LEVERS.names() == ["collapse", "collapse-and-flush", "flush", "slot"]
    for _, lever in LEVERS:
        assert lever.cost
        assert lever.undone
        assert lever.__doc__
    scopes = {name: lever.scope for name, lever in LEVERS}
    of_a_vm = {name for name, scope in scopes.items() if scope is Scope.VM}
    assert of_a_vm == {"collapse", "slot"}


def test_an_identity_is_asked_once(runtime: Path) -> None:
    one = target(Kvm(), runtime)
    assert one.identity == Identity(1, 0, True, True)
    assert one.identity is one.identity
