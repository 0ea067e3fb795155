"""An audit of a real KVM host: the lab, with a guest of libvirt's and a QEMU that nobody manages."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driver import ROOT, Orchestrator, end, wait_for_line

SCENARIO = """\
version: 1
name: audited
host: lab
guest: debian-13
kernel: "6.12"
machine: {vcpus: 1, memory: 768MiB}
arms: {idle: {host_setup: {thp: never}}}
steps:
  - mark: {moment: booted}
  - wait: {time: 30min}
"""
TABLE_BYTES = 4096
PLAIN = ("qemu-system-x86_64", "-accel", "kvm", "-m", "64", "-display", "none", "-name", "guest=plain")
TRIES = 8


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orchestrator]:
    """The lab with both VMs in it."""
    folder = tmp_path_factory.mktemp("audit")
    driver = Orchestrator(folder / "results")
    up = driver.call("lab", "up", "--guests-dir", str(ROOT / "guests"), "--json")
    assert up.code == 0, up.err
    try:
        scenario = folder / "audited.yaml"
        scenario.write_text(SCENARIO)
        log = folder / "log"
        run = driver.start(scenario, log)
        try:
            wait_for_line(log, "step 2 of 2", 600)
            started = shell(driver, "systemd-run", "--unit=plain", *PLAIN)
            assert started is not None
            yield driver
        finally:
            end(run, signal.SIGTERM)
    finally:
        down = driver.call("lab", "down")
    assert down.code == 0, down.err
    driver.close()


def shell(driver: Orchestrator, *words: str) -> str:
    """What a command printed in the lab."""
    done = driver.call("lab", "shell", "--", *words)
    assert done.code == 0, done.err
    return done.out


def counted(driver: Orchestrator, pid: int) -> int:
    """What the kernel counts for the cgroup of a process, found by hand."""
    path = shell(driver, "sed", "-n", "s/^0:://p", f"/proc/{pid}/cgroup").strip()
    while path:
        found = driver.call(
            "lab", "shell", "--", "grep", "^sec_pagetables ", f"/sys/fs/cgroup{path}/memory.stat"
        )
        if found.code == 0:
            return int(found.out.split()[1])
        path = path.rpartition("/")[0]
    raise AssertionError("no cgroup counts it")


def at_rest(driver: Orchestrator) -> tuple[dict[str, Any], dict[str, int]]:
    """An audit while nothing changed, and what the kernel counted for each VM before and after it.

    The guests run on, so that a table may come in between.
    """
    for _ in range(TRIES):
        first = vms(driver)
        assert len(first) == 2, first
        before = {name: counted(driver, vm["pid"]) for name, vm in first.items()}
        found = vms(driver)
        after = {name: counted(driver, vm["pid"]) for name, vm in found.items()}
        if before == after:
            return found, after
        time.sleep(2)
    raise AssertionError("tables come and go without an end")


def vms(driver: Orchestrator) -> dict[str, Any]:
    """Those that an audit finds, by name."""
    done = driver.call("audit", "--connect", "lab", "--json")
    assert done.code == 0, done.err
    return {"plain" if vm["domain"] == "plain" else "libvirt": vm for vm in done.json["vms"]}


def test_each_vm_holds_what_its_cgroup_counts(lab: Orchestrator) -> None:
    found, kernel = at_rest(lab)
    for name, vm in found.items():
        assert (vm["accelerator"], vm["vmm"]) == ("kvm", "qemu")
        assert vm["second_level_bytes"]["bytes"] == kernel[name], name
        assert sum(vm["leaves"].values()) > 0
    big = found["libvirt"]
    assert big["second_level_bytes"]["bytes"] > 50 * TABLE_BYTES
    # Tables of devices are not predicted, and the root is not counted: some dozen at the most.
    difference = big["second_level_bytes"]["bytes"] - big["second_level_needed"]["bytes"]
    assert abs(difference) <= 32 * TABLE_BYTES
    together = sum(kernel.values())
    assert abs(big["second_level_of_machine"]["bytes"] - together) <= 4 * TABLE_BYTES, (
        "the two are all there are"
    )


def test_what_only_libvirt_knows_is_there_and_else_a_reason(lab: Orchestrator) -> None:
    found = vms(lab)
    assert found["libvirt"]["memory"]["bytes"] == 768 << 20
    assert found["libvirt"]["balloon"]["bytes"] == 768 << 20
    assert found["plain"]["memory"]["bytes"] == 64 << 20
    assert found["plain"]["balloon"]["bytes"] is None
    assert found["plain"]["balloon"]["reason"]


def test_levers_are_told_with_their_scope(lab: Orchestrator) -> None:
    levers = {lever["name"]: lever for lever in vms(lab)["libvirt"]["reclaimable"]}
    assert {"flush", "slot", "collapse", "process"} <= set(levers)
    assert levers["flush"]["scope"] == "all VMs of the machine"
    assert levers["collapse"]["amount"]["bytes"] is not None


def test_what_was_measured_is_asked_of_the_model(lab: Orchestrator, tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    assert lab.call("audit", "--connect", "lab", "--overcommit", str(path)).code == 0
    answered = lab.call("model", "overcommit", str(path), "--html", str(tmp_path / "page.html"))
    assert answered.code == 0, answered.err
