"""A machine audited: who is read, who is counted only, who is a gap, and what is said of the rest."""

from __future__ import annotations

import errno

import pytest
from audit_shell import FakeProcess, audited_host

from orchestrator.audit.machine import audit
from orchestrator.audit.process import ANOTHER_USERS, ENDED
from orchestrator.audit.reading import Amount, Audit, Gap, Levels, VmReading
from orchestrator.deadline import Deadline
from orchestrator.errors import BadInputError, InfrastructureError
from orchestrator.host.shell import HostShell

KIB, PAGE = 1024, 4096
BIG, SMALL = FakeProcess(10, "big", 8192), FakeProcess(11, "small", 60)


def run(shell: HostShell, **options: object) -> Audit:
    return audit(shell, deadline=Deadline(60), **options)  # type: ignore[arg-type]  # options of audit()


def vm(pid: int, domain: str | None, uuid: str | None = None) -> VmReading:
    unknown = Amount.missing("not asked for")
    return VmReading(
        pid=pid,
        comm="qemu-system-x86",
        vmm="qemu",
        accelerator="kvm",
        domain=domain,
        uuid=uuid,
        memory=Amount(1 << 30),
        resident=Amount(1 << 29),
        balloon=unknown,
        virtio_mem=unknown,
        virtio_mem_requested=unknown,
        second_level_bytes=Amount(8 * PAGE),
        second_level_needed=Amount(2 * PAGE),
        second_level_of_machine=Amount(9 * PAGE),
    )


def test_large_processes_are_read_and_small_ones_counted() -> None:
    found = run(audited_host(SMALL, BIG, FakeProcess(12, "gone", 9999, state="Z")))
    (one,) = found.processes
    assert (one.pid, one.comm, one.page_table_bytes, one.started_ticks) == (10, "big", 8192 * KIB, 100)
    assert (one.needed, one.deposited, one.unused) == (Amount(8192 * KIB), Amount(0), Amount(0))
    assert one.levels == Levels(2046, 1, 1, 1)
    assert (found.small_processes, found.small_page_table_bytes) == (1, 60 * KIB)
    assert (found.gaps, found.not_ours) == ((), 0)
    assert (found.kernel, found.pt_reclaim) == ("6.99-test", True)
    assert found.machine == "host\ufffd[31m"
    assert found.cost.cpu_seconds == 1.0
    assert found.cost.seconds_per_gib == 1.0
    assert found.cost.longest_call_seconds == 0.001
    assert len(run(audited_host(SMALL, BIG), min_bytes=0).processes) == 2


def test_without_5_levels_there_are_no_p4d_tables() -> None:
    (one,) = run(audited_host(BIG, cpuinfo="flags\t: lm\n")).processes
    assert one.levels.p4d == 0
    with pytest.raises(InfrastructureError, match="x86-64"):
        run(audited_host(BIG, cpuinfo="Features\t: asimd\n"))


@pytest.mark.parametrize(
    ("config", "expected"),
    [("CONFIG_MMU=y\n", False), ("CONFIG_MMU=y\nCONFIG_PT_RECLAIM=y\n", True), ("", None), (None, None)],
)
def test_whether_the_kernel_reclaims_tables(config: str | None, expected: bool | None) -> None:
    assert run(audited_host(BIG, config=config)).pt_reclaim is expected


def test_what_is_refused_is_roots_for_a_user_and_a_gap_for_root() -> None:
    refused = FakeProcess(20, "theirs", 4096, error=PermissionError(errno.EACCES, "Permission denied"))
    as_user = run(audited_host(BIG, refused, capabilities="0000000000000000"))
    assert (as_user.not_ours, as_user.not_ours_page_table_bytes, as_user.gaps) == (1, 4096 * KIB, ())
    as_root = run(audited_host(BIG, refused))
    assert (as_root.not_ours, as_root.gaps) == (0, (Gap(20, "theirs", ANOTHER_USERS),))
    assert [one.pid for one in as_root.processes] == [10]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ESRCH, "No such process"), ENDED),
        (FileNotFoundError(errno.ENOENT, "No such file"), ENDED),
        (OSError(errno.ETIMEDOUT, "it takes \x1btoo long"), "it takes \ufffdtoo long"),
    ],
)
def test_a_process_that_is_not_read_is_a_gap(error: OSError, reason: str) -> None:
    found = run(audited_host(BIG, FakeProcess(20, "x", 4096, error=error)))
    assert found.gaps == (Gap(20, "x", reason),)


def test_another_process_with_the_same_id_is_a_gap() -> None:
    found = run(audited_host(FakeProcess(20, "x", 4096, answer={"started": 101})))
    assert (found.processes, found.gaps) == ((), (Gap(20, "x", ENDED),))


def test_a_process_that_changes_meanwhile_says_so() -> None:
    before = FakeProcess(20, "x", 4000).files()["/proc/20/status"]
    (grown,) = run(audited_host(FakeProcess(20, "x", 4096, answer={"before": before}))).processes
    assert grown.unused.reason == "it changed meanwhile: 3.906 MiB before, 4 MiB after"
    (more,) = run(audited_host(FakeProcess(20, "x", 4096, answer={"tables": [2000, 1, 1, 1]}))).processes
    assert more.unused == Amount(0, "it changed meanwhile: 3.82 MiB more are needed than held")


def test_mappings_of_devices_make_what_maps_nothing_a_lower_bound() -> None:
    answer = {"tables": [100, 1, 1, 1], "deposited": 10, "unseen": 12}
    (one,) = run(audited_host(FakeProcess(20, "x", 4096, answer=answer))).processes
    assert one.unused.value == (1024 - 102 - 10 - 12) * PAGE
    assert one.unused.reason.startswith("at least: up to 48 KiB more")


def test_what_the_reader_says_is_checked() -> None:
    with pytest.raises(ValueError, match="deposited"):
        run(audited_host(FakeProcess(20, "x", 4096, answer={"deposited": -1})))


def test_only_chosen_processes() -> None:
    shell = audited_host(BIG, SMALL)
    assert [one.comm for one in run(shell, pids=[11]).processes] == ["small"]
    assert [one.comm for one in run(shell, names=["big"]).processes] == ["big"]
    with pytest.raises(BadInputError, match="no process 12 "):
        run(shell, pids=[11, 12])
    with pytest.raises(BadInputError, match="called 'bigger'"):
        run(shell, names=["big", "bigger"])
    refused = FakeProcess(20, "theirs", 4096, error=PermissionError(errno.EACCES, "Permission denied"))
    denied = run(audited_host(refused, capabilities="0"), pids=[20])
    assert denied.gaps == (Gap(20, "theirs", ANOTHER_USERS),)


def test_vms_come_first_and_are_no_processes_beside() -> None:
    def find(*_: object) -> list[VmReading]:
        return [vm(10, "web", "u1"), vm(99, None)]

    found = run(audited_host(BIG, SMALL), find_vms=find, min_bytes=0)
    assert [one.pid for one in found.vms] == [10, 99]
    assert [one.pid for one in found.processes] == [11]
    for name in ("web", "u1"):
        chosen = run(audited_host(BIG, SMALL), find_vms=find, domains=[name])
        assert ([one.pid for one in chosen.vms], chosen.processes) == ([10], ())
    with pytest.raises(BadInputError, match="no running VM is called 'wep'") as failed:
        run(audited_host(BIG), find_vms=find, domains=["wep"])
    assert "web" in failed.value.hint


def test_an_amount_that_is_not_known_has_a_reason() -> None:
    with pytest.raises(ValueError, match="reason"):
        Amount(None)
