"""The lab comes up, answers and goes; VMs in it, libvirt's and another, are audited and relieved."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driver import ROOT, Orchestrator, end

TABLE_BYTES = 4096
TRIES = 8
KILLS, KILL_SEED = 6, 7
NX_HUGE_PAGES = "/sys/module/kvm/parameters/nx_huge_pages"
FLUSH = ("reclaim", "flush", "--domain", "audited", "--connect", "lab")
# What the lab's own image has to boot: a kernel whose init sleeps, without a disk. Base pages on the host,
# so that there are tables to count.
DOMAIN = """\
<domain type='kvm'>
  <name>audited</name>
  <maxMemory slots='4' unit='MiB'>1024</maxMemory>
  <memory unit='MiB'>256</memory>
  <vcpu>1</vcpu>
  <os>
    <type machine='q35'>hvm</type>
    <kernel>KERNEL</kernel><initrd>INITRD</initrd><cmdline>console=ttyS0 rdinit=/bin/sleep -- 100000</cmdline>
  </os>
  <features><acpi/><apic/></features>
  <cpu mode='host-passthrough'><numa><cell id='0' cpus='0' memory='256' unit='MiB'/></numa></cpu>
  <devices><memballoon model='virtio'/></devices>
</domain>"""
START = """\
set -e
echo never > /sys/kernel/mm/transparent_hugepage/enabled
kernel=$(ls /boot/vmlinuz-6.* | head -n 1)
printf %s "$1" | sed "s|KERNEL|$kernel|; s|INITRD|/boot/initrd.img-${kernel#*vmlinuz-}|" > /run/audited.xml
virsh -c qemu:///system create /run/audited.xml
systemd-run --unit=plain qemu-system-x86_64 -accel kvm -m 64 -display none -name guest=plain
"""
# What the kernel counts for the cgroup of each QEMU: its id and bytes a line.
COUNTED = """\
for pid in $(pgrep qemu-system); do
    cgroup=$(sed -n s/^0:://p "/proc/$pid/cgroup")
    until grep -q ^sec_pagetables "/sys/fs/cgroup$cgroup/memory.stat"; do cgroup=${cgroup%/*}; done
    echo "$pid $(sed -n 's/^sec_pagetables //p' "/sys/fs/cgroup$cgroup/memory.stat")"
done
"""
# Until the guest has touched half of its memory, or more than a minute is over.
BOOTED = """\
for try in $(seq 100); do
    rss=$(awk '/VmRSS/ {print $2}' "/proc/$(pgrep -f guest=audited)/status")
    [ "$rss" -gt 180000 ] && break
    sleep 1
done
"""


@pytest.fixture(scope="module")
def empty_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orchestrator]:
    """The lab, without a VM in it."""
    driver = Orchestrator(tmp_path_factory.mktemp("lab") / "results")
    try:
        up = driver.call("lab", "up", "--guests-dir", str(ROOT / "guests"), "--json")
        assert up.code == 0, up.err
        yield driver
    finally:
        down = driver.call("lab", "down")
    assert down.code == 0, down.err
    assert driver.call("lab", "status").code == 2
    driver.close()


@pytest.fixture(scope="module")
def lab(empty_lab: Orchestrator) -> Orchestrator:
    """The lab with both VMs in it; they end with it."""
    shell(empty_lab, START, DOMAIN)
    shell(empty_lab, BOOTED)
    return empty_lab


def shell(driver: Orchestrator, script: str, *words: str) -> str:
    """What a script printed in the lab."""
    done = driver.call("lab", "shell", "--", "sh", "-c", script, "sh", *words)
    assert done.code == 0, done.err
    return done.out


def counted(driver: Orchestrator) -> dict[int, int]:
    """What the kernel counts for each QEMU's cgroup, found by hand."""
    lines = (line.split() for line in shell(driver, COUNTED).splitlines())
    return {int(pid): int(size) for pid, size in lines}


def vms(driver: Orchestrator) -> dict[str, Any]:
    """Those that an audit finds, by name."""
    done = driver.call("audit", "--connect", "lab", "--json")
    assert done.code == 0, done.err
    found = {vm["domain"]: vm for vm in done.json["vms"]}
    assert set(found) == {"audited", "plain"}
    return found


def test_it_answers_and_has_kvm(empty_lab: Orchestrator) -> None:
    """Before there are VMs: its one vCPU is shared then, and a kernel takes longer than doctor waits."""
    status = empty_lab.call("lab", "status", "--json")
    assert status.code == 0, status.err
    assert status.json["second_level"] in {"NPT", "EPT"}
    assert empty_lab.call("lab", "shell", "--", "test", "-w", "/dev/kvm").code == 0
    doctor = empty_lab.call("doctor", "--connect", "lab", "--json")
    assert doctor.code == 0, doctor.out
    assert doctor.json["accel"] == "kvm", "a stock kernel prints under it"
    assert doctor.json["second_level"] == status.json["second_level"]


@pytest.fixture(scope="module")
def at_rest(lab: Orchestrator) -> tuple[dict[str, Any], dict[int, int]]:
    """An audit while nothing changed, and what the kernel counted before and after it.

    The guests run on, so that a table may come in between.
    """
    before = counted(lab)
    for _ in range(TRIES):
        found = vms(lab)
        after = counted(lab)
        if before == after:
            return found, after
        before = after
    raise AssertionError("tables come and go without an end")


def test_each_vm_holds_what_its_cgroup_counts(at_rest: tuple[dict[str, Any], dict[int, int]]) -> None:
    found, kernel = at_rest
    for vm in found.values():
        assert (vm["accelerator"], vm["vmm"]) == ("kvm", "qemu")
        assert vm["second_level_bytes"]["bytes"] == kernel[vm["pid"]]
        assert sum(vm["leaves"].values()) > 0
        machine = vm["second_level_of_machine"]["bytes"]
        assert abs(machine - sum(kernel.values())) <= 4 * TABLE_BYTES, "the two are all there are"
    held, needed = (found["audited"][name]["bytes"] for name in ("second_level_bytes", "second_level_needed"))
    assert held > 64 * TABLE_BYTES
    # Tables of devices are not predicted, and the root is not counted: some dozen at most.
    assert abs(held - needed) <= 32 * TABLE_BYTES


def test_what_only_libvirt_knows_is_there_and_else_a_reason(at_rest: tuple[dict[str, Any], Any]) -> None:
    audited, plain = (at_rest[0][name] for name in ("audited", "plain"))
    assert audited["memory"]["bytes"] == audited["balloon"]["bytes"] == 256 << 20
    assert audited["uuid"]
    assert plain["memory"]["bytes"] == 64 << 20
    assert plain["balloon"]["bytes"] is None
    assert plain["balloon"]["reason"]


def test_levers_are_told_with_their_scope(at_rest: tuple[dict[str, Any], Any]) -> None:
    levers = {lever["name"]: lever for lever in at_rest[0]["audited"]["reclaimable"]}
    assert set(levers) == {"flush", "slot", "collapse", "process"}
    assert levers["flush"]["scope"] == "all VMs of the machine"
    assert levers["slot"]["amount"]["bytes"] == levers["flush"]["amount"]["bytes"]
    assert levers["collapse"]["amount"]["bytes"] > 0, "a kernel that has booted has full ranges"


def test_what_was_measured_is_asked_of_the_model(lab: Orchestrator, tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    assert lab.call("audit", "--connect", "lab", "--overcommit", str(path)).code == 0
    answered = lab.call("model", "overcommit", str(path), "--html", str(tmp_path / "page.html"))
    assert answered.code == 0, answered.err


def test_a_dry_run_frees_nothing(lab: Orchestrator, at_rest: tuple[dict[str, Any], dict[int, int]]) -> None:
    _, held = at_rest
    dry = lab.call(*FLUSH, "--dry-run", "--json")
    assert dry.code == 0, dry.err
    assert {vm["pid"] for vm in dry.json["vms"]} == set(held), "it says that it acts on both"
    assert dry.json["refused"] == ""
    now = counted(lab)
    assert all(now[pid] >= held[pid] for pid in held)


def pulled(driver: Orchestrator, lever: str) -> dict[str, Any]:
    """What `reclaim LEVER` measured and predicted; it was done."""
    done = driver.call(
        "reclaim", lever, "--domain", "audited", "--connect", "lab", "--yes", "--watch", "1s", "--json"
    )
    assert done.code == 0, done.err
    assert (done.json["outcome"], done.json["message"]) == ("done", "")
    document: dict[str, Any] = done.json
    return document


POLICY = """\
version: 1
lever: collapse
domains: all
reclaimable_at_least: 64KiB
pause: 1h
settle: 1s
journal: JOURNAL
"""


def test_a_policy_tells_acts_and_pauses(lab: Orchestrator, tmp_path: Path) -> None:
    """Of collapse: huge pages, and no more memory than is allowed."""
    policy, journal = tmp_path / "policy.yaml", tmp_path / "journal.jsonl"
    policy.write_text(POLICY.replace("JOURNAL", str(journal)))
    argv = ("reclaim", "--policy", str(policy), "--connect", "lab")
    for words in ((), ("--act",), ("--act",)):
        looked = lab.call(*argv, *words)
        assert looked.code == 0, looked.err
    dry, done = map(json.loads, journal.read_text().splitlines())
    assert (dry["event"], dry["vm"], done["event"], done["vm"]) == (
        "dry-run",
        "audited",
        "attempt",
        "audited",
    )
    assert (done["outcome"], done["lever"]) == ("done", "collapse"), done
    measured = done["measured"]
    grown = measured["at_once"]["resident_bytes"] - measured["before"]["resident_bytes"]
    assert 0 <= grown <= done["predicted"]["grows_at_most_bytes"] + 64 * TABLE_BYTES
    assert done["predicted"]["ranges"] > 0, "a kernel that has booted has full ranges"


def test_a_slot_frees_the_tables_of_one_vm(lab: Orchestrator) -> None:
    before = counted(lab)
    done = pulled(lab, "slot")
    (audited,) = (vm["pid"] for vm in done["vms"])
    held = {name: done["measured"][name]["second_level_bytes"] for name in ("before", "at_once")}
    assert abs(held["before"] - before[audited]) <= 16 * TABLE_BYTES, "the guest runs on"
    assert held["at_once"] <= 0.5 * held["before"]
    plain = next(pid for pid in before if pid != audited)
    assert counted(lab)[plain] >= before[plain], "its scope is the one VM"
    assert "dimm" not in shell(lab, "virsh -c qemu:///system dumpxml audited | grep -i '<memory model' || :")


def test_a_flush_frees_what_both_hold(lab: Orchestrator) -> None:
    """Beside what each cgroup counts, and what the lever predicted."""
    before = counted(lab)
    done = pulled(lab, "flush")
    audited = next(vm["pid"] for vm in done["vms"] if vm["name"] == "audited")
    held = {name: done["measured"][name]["second_level_bytes"] for name in ("before", "at_once")}
    assert abs(held["before"] - before[audited]) <= 16 * TABLE_BYTES, "the guest runs on"
    assert held["at_once"] <= done["predicted"]["second_level_at_most_bytes"]
    plain = next(pid for pid in before if pid != audited)
    assert counted(lab)[plain] < before[plain], "its scope is all VMs of the host"
    assert shell(lab, f"cat {NX_HUGE_PAGES}").strip() == "N"


def test_what_a_killed_flush_leaves_is_put_right(lab: Orchestrator, tmp_path: Path) -> None:
    """kill -9 at random moments of the command; its other end is in the lab, and may be in the middle."""
    former = shell(lab, f"cat {NX_HUGE_PAGES}")
    began = time.monotonic()
    assert lab.call(*FLUSH, "--dry-run").code == 0
    lasts = time.monotonic() - began
    chance = random.Random(KILL_SEED)  # noqa: S311  # no secret
    for number in range(KILLS):
        log = tmp_path / f"{number}.log"
        process = lab.begin(*FLUSH, "--yes", "--watch", "1s", log=log)
        time.sleep(chance.uniform(0.3, 1.3) * lasts)
        end(process, signal.SIGKILL)
        cleaned = lab.call("clean")
        assert cleaned.code == 0, cleaned.err
        assert shell(lab, f"cat {NX_HUGE_PAGES}") == former, log.read_text()
    assert set(vms(lab)) == {"audited", "plain"}, "and both run on"
