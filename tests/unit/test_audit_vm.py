"""The VMs of hosts that are made up: cgroups, kernels, rights, and what KVM and libvirt say or do not say."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from vm_host import GIB, HUGE, PAGE, PRESENT, RANGE, FakeVm, FakeVmHost, qemu

from orchestrator.audit.reading import Amount, Lever, VmReading
from orchestrator.audit.vm import find_vms
from orchestrator.audit.vm_levers import flush
from orchestrator.audit.vm_tables import HostTables
from orchestrator.cli.reclaim import reclaim_command
from orchestrator.deadline import Deadline
from orchestrator.host.domain_memory import DomainMemory

SCOPE = "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope"
STATS = {f"/sys/fs/cgroup{SCOPE}/memory.stat": "anon 5\nsec_pagetables 819200\nslab 3\n"}
KVM = {
    "/sys/module/kvm/parameters/nx_huge_pages": "N\n",
    "/sys/devices/system/cpu/vulnerabilities/itlb_multihit": "Not affected\n",
}
LEAVES = {
    f"/sys/kernel/debug/kvm/501-9/pages_{size}": f"{n}\n" for size, n in (("4k", 600), ("2m", 7), ("1g", 0))
}
# 20 ranges of 2 MiB, of which 490, and 10 of which 3 pages are there; one huge page.
SPARSE = [
    *((n * RANGE, n * RANGE + 490 * PAGE, PRESENT) for n in range(20)),
    *((n * RANGE, n * RANGE + 3 * PAGE, PRESENT) for n in range(100, 110)),
    (200 * RANGE, 201 * RANGE, PRESENT | HUGE),
]
NEEDED = (30 + 1 + 1 + 1) * PAGE  # last-level ones, and one for all above of each level


def vm(
    pid: int = 500, cgroup: str = f"0::{SCOPE}/libvirt/vcpu0\n", argv: Sequence[str] = (), **more: object
) -> FakeVm:
    made = FakeVm(pid, argv or qemu("-accel", "kvm"), cgroup=cgroup, regions=SPARSE)
    return replace(made, **more)  # type: ignore[arg-type]  # a test's own fields


def read(*vms: FakeVm, files: Mapping[str, str] = {}, **more: object) -> tuple[VmReading, ...]:
    host = FakeVmHost(vms, {**STATS, **KVM, **LEAVES, **files}, **more)  # type: ignore[arg-type]  # as above
    return tuple(find_vms(host.shell(), None, Deadline(10)))


def lever(found: VmReading, name: str) -> Lever:
    return next(one for one in found.reclaimable if one.name == name)


def test_a_vm_in_a_cgroup_of_its_own_has_what_that_counts() -> None:
    (found,) = read(vm())
    assert (found.second_level_bytes.value, found.second_level_bytes.reason) == (819200, "")
    assert found.second_level_needed.value == NEEDED
    assert found.second_level_of_machine.value == 4096 << 10
    assert found.resident.value == (20 * 490 + 10 * 3 + 512) * PAGE
    assert found.huge.value == RANGE
    assert found.leaves == {"4k": 600, "2m": 7, "1g": 0}
    assert (found.domain, found.accelerator, found.vmm) == ("web", "kvm", "qemu")
    assert found.memory.value == GIB
    assert found.memmap.value == GIB // 64
    assert found.page_tables is not None
    assert found.page_tables.deposited.value == 3 * PAGE


def test_levers_say_what_they_free_on_what_scope_and_at_what_cost() -> None:
    (found,) = read(vm())
    flushed = lever(found, "flush")
    assert flushed.amount.value == 819200 - NEEDED
    assert flushed.scope == "all VMs of the machine"
    assert flushed.next == "", "libvirt does not know it, so `reclaim` would not find it"
    collapse = lever(found, "collapse")
    assert (collapse.amount.value, collapse.scope) == (20 * PAGE, "this VM")
    assert "1.719 MiB" in collapse.cost, "20 ranges lack 22 pages each"
    assert lever(found, "slot").amount.value is None, "there is no libvirt"
    assert lever(found, "process").amount.value == (20 - 13 - 3) * PAGE


def test_a_lever_on_a_vm_of_libvirt_says_what_to_type() -> None:
    domain = DomainMemory("web", "", 500, True, GIB, (), None, (), 0)
    host = HostTables(Amount(0), "N", "Not affected", {}, False, {})
    found = flush(Amount(4096), host, domain)
    assert found.next == "orchestrator reclaim flush --domain web --dry-run"
    words = shlex.split(found.next)[1:]
    assert reclaim_command.make_context("reclaim", words[1:]).params["dry_run"] is True


@pytest.mark.parametrize(
    ("value", "bug", "word"),
    [
        ("never\n", "Not affected\n", "never"),
        ("Y\n", "KVM: Mitigation: Split huge pages\n", "iTLB multihit"),
        ("N\n", "KVM: Vulnerable\n", "iTLB multihit"),
        ("", "Not affected\n", "cannot be read"),
    ],
)
def test_flush_is_refused_where_the_setting_protects_or_is_stuck(value: str, bug: str, word: str) -> None:
    files = dict(zip(KVM, (value, bug), strict=True))
    (found,) = read(vm(), files=files)
    amount = lever(found, "flush").amount
    assert amount.value is None
    assert word in amount.reason
    assert not lever(found, "flush").next


def test_two_vms_in_one_cgroup_share_no_figure() -> None:
    first, second = read(vm(500), vm(600, cgroup=f"0::{SCOPE}/inner\n"))
    for found in (first, second):
        assert found.second_level_bytes.value is None
        assert "2 VMs" in found.second_level_bytes.reason
        assert found.second_level_of_machine.value == 4096 << 10, "the machine's is told as what it is"
        assert lever(found, "flush").amount.value is None


def test_a_vm_above_another_has_not_its_own_figure_but_that_below_has() -> None:
    inner = f"{SCOPE}/inner"
    files = {f"/sys/fs/cgroup{inner}/memory.stat": "sec_pagetables 4096\n"}
    outside, inside = read(vm(500), vm(600, cgroup=f"0::{inner}\n"), files=files)
    assert outside.second_level_bytes.value is None
    assert inside.second_level_bytes.value == 4096


def test_a_name_that_only_begins_alike_is_another_cgroup() -> None:
    other = f"{SCOPE}2"
    files = {f"/sys/fs/cgroup{other}/memory.stat": "sec_pagetables 4096\n"}
    values = [
        one.second_level_bytes.value for one in read(vm(500), vm(600, cgroup=f"0::{other}\n"), files=files)
    ]
    assert values == [819200, 4096]


@pytest.mark.parametrize(
    ("cgroup", "word"),
    [
        ("4:memory:/machine/web\n1:name=systemd:/\n0::/\n", "cgroup v1"),
        ("0::/\n", "root cgroup"),
        ("0::/elsewhere\n", "root cgroup"),
        ("0::/../../other\n", "outside of those"),
    ],
)
def test_a_cgroup_that_counts_no_vm_is_a_reason(cgroup: str, word: str) -> None:
    (found,) = read(vm(cgroup=cgroup), files={"/sys/fs/cgroup/memory.stat": "sec_pagetables 9\n"})
    assert found.second_level_bytes.value is None
    assert word in found.second_level_bytes.reason


def test_a_cgroup_without_a_memory_controller_is_a_reason() -> None:
    (found,) = read(vm(cgroup="0::/elsewhere\n"))
    assert "memory controller is off" in found.second_level_bytes.reason


def test_an_old_kernel_counts_nothing_and_that_is_said() -> None:
    old = {f"/sys/fs/cgroup{SCOPE}/memory.stat": "anon 5\n", "/proc/meminfo": "PageTables: 5 kB\n"}
    (found,) = read(vm(), files=old)
    assert found.second_level_bytes.value is None
    assert found.second_level_of_machine.value is None
    assert "Linux 6.1" in found.second_level_bytes.reason


def test_iommu_tables_are_taken_off_or_told() -> None:
    files = {"/proc/vmstat": "nr_iommu_pages 24\n"}
    (found,) = read(vm(vfio=True), files=files)
    assert found.second_level_of_machine.value == (4096 << 10) - 24 * PAGE
    assert found.second_level_bytes.value == 819200
    assert "IOMMU" in found.second_level_bytes.reason
    (without,) = read(vm(), files=files)
    assert not without.second_level_bytes.reason


def test_under_tcg_there_is_no_second_level() -> None:
    (found,) = read(vm(kvm=(), argv=qemu(), cgroup="0::/\n"))
    assert found.accelerator == "tcg"
    assert found.second_level_bytes.reason == "no second level under TCG"
    assert found.second_level_needed.value is None
    assert [one.name for one in found.reclaimable] == ["process"]
    assert found.resident.value, "its memory is read as any other"


def test_another_users_vm_has_what_anybody_may_read() -> None:
    host = vm(may_read=False, fails=errno.EPERM)
    (found,) = read(host, unread=[(host.pid, host.cgroup)])
    assert (found.accelerator, found.memory.value) == ("kvm", GIB), "by its command line"
    assert found.second_level_bytes.value == 819200, "memory.stat is for all to read"
    assert "root" in found.second_level_needed.reason
    assert found.leaves == {}
    assert found.page_tables is None
    assert found.page_tables_reason


def test_who_may_hold_a_vm_unseen_in_the_same_cgroup_is_a_reason() -> None:
    (found,) = read(vm(), unread=[(9, f"0::{SCOPE}/other\n")])
    assert "only root sees" in found.second_level_bytes.reason
    (alone,) = read(vm(), unread=[(9, "0::/init.scope\n")])
    assert alone.second_level_bytes.value == 819200


def test_a_kernel_without_the_scan_leaves_what_is_held() -> None:
    (found,) = read(vm(fails=errno.ENOTTY))
    assert found.second_level_bytes.value == 819200
    assert "PAGEMAP_SCAN" in found.second_level_needed.reason
    assert lever(found, "flush").amount.value is None


def test_a_process_that_ended_is_no_vm() -> None:
    host = FakeVmHost([vm(fails=errno.ESRCH)], {**STATS, **KVM})
    shell = host.shell()
    texts = host._texts
    host._texts = lambda patterns: {} if patterns == ["/proc/500/status"] else texts(patterns)  # type: ignore[method-assign]  # it ended
    assert find_vms(shell, None, Deadline(10)) == ()


def test_firecracker_tells_no_size_and_its_needs_are_an_upper_bound() -> None:
    (found,) = read(vm(argv=["/usr/bin/firecracker", "--id", "fn-1"]))
    assert (found.vmm, found.domain) == ("firecracker", "fn-1")
    assert found.memory.value is None
    assert found.second_level_needed.value is not None
    assert found.second_level_needed.value >= NEEDED
    assert found.second_level_needed.reason.startswith("at most")
    assert lever(found, "flush").amount.reason.startswith("at least")
    assert lever(found, "collapse").amount.value is None


def test_a_size_that_no_mapping_has_makes_an_upper_bound() -> None:
    (found,) = read(vm(argv=qemu("-accel", "kvm", memory="2G")))
    assert found.second_level_needed.reason.startswith("at most")


def test_several_descriptors_of_vms_are_several_vms() -> None:
    files = {path.replace("501-9", "500-12"): text for path, text in LEAVES.items()}
    (found,) = read(vm(kvm=(9, 12)), files=files)
    assert "2 VMs" in found.second_level_bytes.reason
    assert found.leaves == {"4k": 1200, "2m": 14, "1g": 0}


def test_leaves_of_a_thread_that_is_another_process_are_not_its_own() -> None:
    (found,) = read(vm(pid=700))
    assert found.leaves == {}
    assert "debugfs" in found.leaves_reason
    assert found.resident.value == (20 * 490 + 30 + 512) * PAGE


def test_memory_that_is_not_aligned_needs_a_table_for_each_huge_page() -> None:
    """As QEMU maps a memfd: KVM cannot map a huge page of it by one entry, and collapsing makes none such."""
    (aligned,) = read(vm())
    (shifted,) = read(vm(shift=PAGE))
    assert shifted.second_level_needed.value == NEEDED + PAGE
    assert (shifted.resident.value, shifted.huge.value) == (aligned.resident.value, aligned.huge.value)
    assert lever(shifted, "collapse").amount.value == 0
