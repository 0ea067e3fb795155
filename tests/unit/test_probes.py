"""Probes: what the kernels really print becomes readings, and what they do not print becomes a gap."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fakes import DEVICE, FakeDomain, host_with
from hypothesis import given
from hypothesis import strategies as st
from read_probes import guest, host, values

from orchestrator.errors import InfrastructureError
from orchestrator.guest.sampler import Tick
from orchestrator.host import qemu_process
from orchestrator.host.domain import Dimm
from orchestrator.host.machine import Machine
from orchestrator.host.qemu_process import PageState, Segment
from orchestrator.observation import NO_SECOND_LEVEL, Origin
from orchestrator.probes import PROBES, HostView
from orchestrator.probes.base import is_count
from orchestrator.procfs import counters, kib_lines

GOLDEN = Path(__file__).with_name("golden")
STATUS = (
    "Name:\tredis-server\nPid:\t412\nVmSize:\t  66560 kB\nVmLck:\t 0 kB\nVmPin:\t 0 kB\nVmRSS:\t 8192 kB\n"
)
STATUS += "VmPTE:\t     104 kB\nThreads:\t6\n"


@pytest.mark.parametrize(("kernel", "tables"), [("6.12", 1252), ("7.x", 1180)])
def test_meminfo(kernel: str, tables: int) -> None:
    text = (GOLDEN / f"meminfo-{kernel}.txt").read_text()
    readings = guest("guest_meminfo", Tick(1, {"/proc/meminfo": text}))
    found = values(readings)
    assert found["PageTables"] == tables * 1024
    assert found["SecPageTables"] == 0
    assert found["Active(anon)"] == 1388 * 1024
    assert found["MemTotal"] == 984456 * 1024
    assert "HugePages_Total" not in found, "a count is not bytes"
    observed = PROBES["guest_meminfo"].observe("guest_meminfo", 0, "t", readings)
    assert {one.unit for one in observed} == {"bytes"}
    assert len(found) == sum(line.endswith(" kB") for line in text.splitlines())


@pytest.mark.parametrize("files", [{}, {"/proc/meminfo": None}, {"/proc/meminfo": "MemTotal: x kB\n"}])
def test_no_meminfo_is_a_gap(files: dict[str, str | None]) -> None:
    (reading,) = guest("guest_meminfo", Tick(1, files))
    assert (reading.name, reading.value) == ("PageTables", None)
    assert "/proc/meminfo" in reading.gap


@pytest.mark.parametrize(("kernel", "memmap"), [("6.12", "nr_memmap_pages"), ("7.x", "nr_memmap_pages")])
def test_vmstat(kernel: str, memmap: str) -> None:
    text = (GOLDEN / f"vmstat-{kernel}.txt").read_text()
    found = values(guest("guest_vmstat", Tick(1, {"/proc/vmstat": text})))
    assert found["nr_page_table_pages"] in {313, 295}
    assert found[memmap] == 4096
    assert found["balloon_inflate"] == 65536
    assert found["thp_fault_alloc"] == 12
    assert "nr_dirty" not in found


def test_no_vmstat_is_a_gap() -> None:
    (reading,) = guest("guest_vmstat", Tick(1, {"/proc/vmstat": None}))
    assert reading.value is None
    assert reading.gap


def test_processes_are_told_apart() -> None:
    tick = Tick(1, {}, (("redis-server", 412, STATUS), ("sparse-map", 500, STATUS)))
    readings = guest("guest_process", tick)
    tables = {reading.source: reading.value for reading in readings if reading.name == "VmPTE"}
    assert tables == {"redis-server:412": 104 * 1024, "sparse-map:500": 104 * 1024}
    assert guest("guest_process", Tick(1)) == []


def test_a_zombie_is_a_gap() -> None:
    readings = guest("guest_process", Tick(1, {}, (("sparse-map", 5, "Name:\tsparse-map\nState:\tZ\n"),)))
    assert {reading.name for reading in readings} >= {"VmPTE", "VmRSS"}
    assert all(reading.value is None and reading.gap for reading in readings)


def test_uptime_is_in_seconds() -> None:
    assert values(guest("guest_uptime", Tick(2_500_000_000))) == {"uptime": 2.5}


lines = st.text(
    alphabet=st.sampled_from("VmPTE:PageTbles 0129kB\t\n\x1b[2J-.eé\N{ARABIC-INDIC DIGIT ONE}"), max_size=200
)
hostile = lines | st.text() | st.from_regex(r"(PageTables|VmPTE): {1,3}[0-9]{18,25} kB\n", fullmatch=True)


@given(hostile, st.integers(0, 10**20))
def test_what_a_guest_says_never_breaks_a_probe(text: str, uptime_ns: int) -> None:
    tick = Tick(uptime_ns, {"/proc/meminfo": text, "/proc/vmstat": text}, (("redis-server", 1, text),))
    for name, probe in PROBES:
        for reading in probe().from_guest(tick):
            assert reading.name.isprintable()
            assert len(reading.name) <= 64
            (observed,) = probe.observe(name, 0, "t", [reading])
            assert observed.unit in {"bytes", "count", "seconds"}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("VmPTE:\t     104 kB", {"VmPTE": 104 << 10}),
        ("VmPTE: 104", {}),
        ("VmPTE: -4 kB", {}),
        ("VmPTE: 4 MB", {}),
        ("VmPTE: 4 kB kB", {}),
        ("Vm PTE: 4 kB", {}),
        ("\x1b[2JVmPTE: 4 kB", {}),
        (f"{'V' * 65}: 4 kB", {}),
    ],
)
def test_lines_in_kb(line: str, found: dict[str, int]) -> None:
    assert kib_lines(f"first: x\n{line}\nlast:") == found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("nr_iommu_pages 7", {"nr_iommu_pages": 7}),
        ("nr_iommu_pages 18446744073709551615", {"nr_iommu_pages": 2**64 - 1}),
        ("nr_iommu_pages -1", {}),
        ("nr_iommu_pages 1.5", {}),
        ("nr_iommu_pages  7", {}),
        ("nr iommu 7", {}),
        ("\x1b[2Jnr_x 7", {}),
        (f"{'n' * 65} 7", {}),
    ],
)
def test_counters(line: str, found: dict[str, int]) -> None:
    assert counters(f"first x\n{line}\nlast") == found


def test_counts() -> None:
    assert is_count("18446744073709551615")
    for bad in ("", "-1", "1.5", "1e3", " 1", "1\n", "\N{ARABIC-INDIC DIGIT ONE}", "1" * 21):
        assert not is_count(bad), bad


def test_the_balloon_says_nothing_yet() -> None:
    readings = host("balloon", FakeDomain(balloon=768 << 20, statistics={"unused": 100, "swap_in": 7}))
    found = values(readings)
    assert found["actual"] == 768 << 20
    assert found["unused"] == 100 << 10
    assert found["usable"] is None
    assert all(reading.gap for reading in readings if reading.value is None)
    assert "swap_in" not in found


def test_virtio_mem_shows_a_request_that_was_not_met() -> None:
    found = values(host("virtio_mem", FakeDomain(device=DEVICE.__class__(4 << 30, 426, 0, 2048, 2))))
    assert found == {"size": 426, "requested_size": 0}
    assert host("virtio_mem", FakeDomain(device=None)) == []


def test_dimms_that_are_plugged() -> None:
    machine = Machine.model_validate({"memory": "1GiB", "dimms": ["256MiB", "512MiB"]})
    domain = FakeDomain(plugged=(Dimm("dimm1", 1, 5 << 30, 512 << 20),))
    assert values(list(PROBES["dimms"]().from_host(HostView(domain, machine, "tcg")))) == {
        "plugged_bytes": 512 << 20,
        "plugged": 1,
    }
    assert host("dimms", FakeDomain()) == [], "a machine without any"


def test_segments_follow_the_dimms_and_are_asked_for_no_more_than_that() -> None:
    asked = []

    def address(guest_physical: int) -> int:
        asked.append(guest_physical)
        return guest_physical

    machine = Machine.model_validate({"memory": "1GiB", "dimms": ["256MiB"]})
    domain = FakeDomain(device=None, addresses=address)
    view = HostView(domain, machine, "tcg")
    assert [one.size for one in view.segments] == [(1 << 30) - (1 << 20)]
    assert len(view.segments) == 1
    assert len(asked) == 2, "asked once"
    domain.attach_dimm(256 << 20)
    assert [one.size for one in view.segments][1:] == [256 << 20]
    domain.plugged = ()
    assert len(view.segments) == 1


def test_qemu_as_its_host_sees_it() -> None:
    found = values(host("host_qemu", FakeDomain(pid=os.getpid())))
    assert set(found) == {"VmRSS", "VmPTE", "VmSwap", "VmSize"}
    assert 0 < (found["VmPTE"] or 0) < (found["VmRSS"] or 0) < (found["VmSize"] or 0)
    with pytest.raises(OSError, match=r"status"):
        host("host_qemu", FakeDomain(pid=(1 << 22) + 1))


def meminfo(text: str, vmstat: str = "") -> dict[str, float | None]:
    files = host_with({"/proc/meminfo": text, "/proc/vmstat": vmstat})
    return values(host("host_meminfo", FakeDomain(shell=files)))


def test_a_host_kernel_that_does_not_count_second_level_tables() -> None:
    found = meminfo("MemFree: 5 kB\nMemAvailable: 6 kB\nPageTables: 7 kB\n")
    assert found == {
        "SecPageTables": None,
        "second_level_bytes": None,
        "PageTables": 7 << 10,
        "MemAvailable": 6 << 10,
        "MemFree": 5 << 10,
    }
    found = meminfo("SecPageTables: 2088 kB\n", "nr_free_pages 5\n")
    assert found["SecPageTables"] == found["second_level_bytes"] == 2088 << 10


@pytest.mark.parametrize("counted", ["0 kB", "2088 kB"])
def test_without_kvm_what_the_host_counts_is_of_other_guests(counted: str) -> None:
    files = host_with({"/proc/meminfo": f"SecPageTables: {counted}\n", "/proc/vmstat": ""})
    readings = host("host_meminfo", FakeDomain(shell=files), accel="tcg")
    (found,) = (reading for reading in readings if reading.name == "second_level_bytes")
    assert (found.value, found.gap) == (None, NO_SECOND_LEVEL)
    (found,) = (
        reading for reading in host("host_meminfo", FakeDomain(shell=files)) if reading.name == found.name
    )
    assert found.value == int(counted.split(maxsplit=1)[0]) << 10


def test_iommu_tables_are_no_second_level_tables() -> None:
    found = meminfo("SecPageTables: 2088 kB\n", "nr_x 1\nnr_iommu_pages 12\n")
    assert found["SecPageTables"] == 2088 << 10
    assert found["second_level_bytes"] == (2088 - 48) << 10


def test_what_kvm_counts_of_this_guest_and_no_other() -> None:
    files = {
        "/sys/kernel/debug/kvm/7-12/pages_4k": "53312\n",
        "/sys/kernel/debug/kvm/7-12/pages_2m": "-1\n",
        "/sys/kernel/debug/kvm/77-12/pages_2m": "9\n",
        "/sys/kernel/debug/kvm/pages_1g": "9\n",
    }
    readings = host("host_kvm", FakeDomain(pid=7, shell=host_with(files)))
    found = values(readings)
    assert found["pages_4k"] == 53312
    assert found["pages_2m"] is None, "no count is below zero"
    assert found["pages_1g"] is None, "the sum over all guests"
    assert all(reading.gap for reading in readings if reading.value is None)


def test_what_the_second_level_needs_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    def page_state(qemu: object, segment: Segment) -> PageState:
        present = np.zeros(segment.size // 4096, dtype=bool)
        present[[0, 1]] = True  # in one 2 MiB stretch: one last-level table
        present[-1] = True  # in another
        zero = np.zeros_like(present)
        zero[5000] = True
        return PageState(present | zero, ~(present | zero), zero)

    monkeypatch.setattr(qemu_process, "page_state", page_state)
    readings = host("host_pagemap", FakeDomain(device=None))
    found = {reading.name: reading for reading in readings}
    assert found["present_bytes"].value == 3 * 4096
    assert found["swapped_bytes"].value == (1 << 30) - (1 << 20) - 4 * 4096
    assert found["zero_page_bytes"].value == 4096
    # 1 MiB..1 GiB: two tables at the last level, and one at each of the three above. For the chipset: PCI
    # configuration space, IOAPIC, local APIC and firmware one each, and a table above for each of two GiB.
    assert found["second_level_needed_bytes"].value == (5 + 4 + 2) * 4096
    observed = {one.name: one for one in PROBES["host_pagemap"].observe("host_pagemap", 0, "t", readings)}
    assert observed["second_level_needed_bytes"].origin is Origin.PREDICTED
    assert observed["present_bytes"].origin is Origin.MEASURED


def test_where_zero_pages_cannot_be_told_nothing_is_said_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    def page_state(qemu: object, segment: Segment) -> PageState:
        present = np.ones(segment.size // 4096, dtype=bool)
        return PageState(present, ~present, None)

    monkeypatch.setattr(qemu_process, "page_state", page_state)
    found = {reading.name: reading for reading in host("host_pagemap", FakeDomain(device=None))}
    for name in ("present_bytes", "zero_page_bytes", "second_level_needed_bytes"):
        assert found[name].value is None
        assert "KSM" in found[name].gap
    assert found["swapped_bytes"].value == 0


def test_a_lying_qemu_is_an_error_that_becomes_the_gap() -> None:
    with pytest.raises(InfrastructureError):
        host("host_pagemap", FakeDomain(addresses=lambda address: 0))


def test_free_ranges_and_page_blocks() -> None:
    tick = Tick(0, {"/proc/pagetypeinfo": (GOLDEN / "pagetypeinfo-7.x.txt").read_text()})
    found = {one.name: one.value for one in PROBES["guest_pagetypeinfo"]().from_guest(tick)}
    assert found == {
        "free_huge_ranges": 1 + 2 * 3 + 2 * 189 + 2,
        "blocks_Unmovable": 34,
        "blocks_Movable": 474,
        "blocks_Reclaimable": 4,
        "blocks_HighAtomic": 0,
        "blocks_CMA": 0,
        "blocks_Isolate": 0,
    }


@pytest.mark.parametrize("text", [None, "", "Page block order: 9\n", "Node 0, zone X, type Y " + "9" * 99])
def test_a_guest_without_page_types(text: str | None) -> None:
    (reading,) = PROBES["guest_pagetypeinfo"]().from_guest(Tick(0, {"/proc/pagetypeinfo": text}))
    assert reading.value is None
    assert reading.gap


FORGED = 18446744073709551615  # the largest u64
GUEST_MEMORY = 3 << 30


def observed(name: str, files: dict[str, str]) -> dict[str, tuple[float | None, str]]:
    readings = PROBES[name]().from_guest(Tick(1, dict(files)))
    rows = PROBES[name].observe(name, 0, "t", readings, GUEST_MEMORY)
    return {row.name: (row.value, row.gap) for row in rows}


def test_a_guest_that_says_more_than_it_has_is_a_gap() -> None:
    text = f"MemTotal: 3145728 kB\nPageTables: {FORGED} kB\nVmallocTotal: 34359738367 kB\nSlab: 3145729 kB\n"
    found = observed("guest_meminfo", {"/proc/meminfo": text + "SwapTotal: 99999999 kB\n"})
    assert found["MemTotal"] == (GUEST_MEMORY, "")
    value, gap = found["PageTables"]
    assert value is None
    assert gap.endswith("TiB, and it has 3 GiB at most")
    assert found["Slab"][0] is None
    assert found["VmallocTotal"][0] == 34359738367 << 10, "addresses are no memory"
    assert found["SwapTotal"][0] == 99999999 << 10

    found = observed("guest_vmstat", {"/proc/vmstat": f"nr_free_pages 786432\nnr_memmap_pages {FORGED}\n"})
    assert found["nr_free_pages"] == (786432, "")
    assert found["nr_memmap_pages"][0] is None


@pytest.mark.parametrize("kernel", ["6.12", "7.x"])
def test_what_a_kernel_says_of_an_honest_guest_is_believed(kernel: str) -> None:
    text = (GOLDEN / f"meminfo-{kernel}.txt").read_text()
    total = kib_lines(text)["MemTotal"]
    readings = list(PROBES["guest_meminfo"]().from_guest(Tick(1, {"/proc/meminfo": text})))
    rows = PROBES["guest_meminfo"].observe("guest_meminfo", 0, "t", readings, total)
    assert not [row for row in rows if row.value is None]
