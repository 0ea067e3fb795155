"""What leaves an audit: dashboard and timer that the docs ship, and the file for `model overcommit`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import figures
import pytest
from test_audit_vm import read, vm
from vm_host import GIB, MIB

from orchestrator.audit.openmetrics import exposition
from orchestrator.audit.overcommit import write_overcommit
from orchestrator.audit.reading import Amount, Audit, Cost, ProcessReading, VmReading
from orchestrator.errors import BadInputError
from orchestrator.scenario.overcommit import load_overcommit
from orchestrator.units import PAGE_BYTES

DOCS = figures.ROOT / "docs" / "audit"
MEMINFO = f"MemTotal: {16 << 20} kB\nMemAvailable: {8 << 20} kB\nSwapFree: {2 << 20} kB\n"
METRIC = re.compile(r"\b(?:kvm|process_page_table|page_table_audit)_[a-z0-9_]+")


def audit(*vms: VmReading) -> Audit:
    processes = tuple(one.page_tables for one in vms if one.page_tables)
    return Audit(
        machine="host",
        when=1.0,
        kernel="6.12.0",
        pt_reclaim=False,
        vms=vms,
        processes=processes,
        small_processes=0,
        small_page_table_bytes=0,
        advice=(),
        gaps=(),
        not_ours=0,
        not_ours_page_table_bytes=0,
        cost=Cost(0.1, GIB, 0.001),
    )


def everything() -> Audit:
    """A VM of which all is known."""
    (found,) = read(vm())
    known = {
        name: Amount(MIB)
        for name, value in vars(found).items()
        if isinstance(value, Amount) and value.value is None
    }
    assert known, "without libvirt some are missing"
    return audit(VmReading(**{**vars(found), **known}))


def test_the_dashboard_asks_for_nothing_that_is_not_exported() -> None:
    text = (DOCS / "grafana.json").read_text()
    exported = {line.split()[2] for line in exposition(everything(), top=5).splitlines() if "# TYPE" in line}
    asked = set(METRIC.findall(text))
    assert asked <= exported
    of_vms = {name for name in exported if name.startswith("kvm_")}
    assert of_vms - asked == {"kvm_vm_virtio_mem_requested_bytes"}, "what is exported and shown nowhere"


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    board: dict[str, Any] = json.loads((DOCS / "grafana.json").read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    variables = {one["name"] for one in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]+)\}?", json.dumps(panels)))
    assert used == variables
    places = [panel["gridPos"] for panel in panels]
    cells = [
        (x, y)
        for one in places
        for x in range(one["x"], one["x"] + one["w"])
        for y in range(one["y"], one["y"] + one["h"])
    ]
    assert len(set(cells)) == len(cells), "panels lie on each other"


def test_the_dashboard_shows_what_is_predicted_as_such() -> None:
    board = json.loads((DOCS / "grafana.json").read_text())
    for panel in board["panels"]:
        said = panel["title"] + panel["description"]
        for target in panel["targets"]:
            if re.search(r"_(needed|deposited|unused|reclaimable|memmap)_bytes", target["expr"]):
                assert "redicted" in said + target["legendFormat"], target["expr"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    there = tmp_path / "orchestrator"
    there.write_text("#!/bin/sh\n")
    there.chmod(0o755)
    for unit in (*DOCS.glob("orchestrator-audit.*"), *DOCS.parent.glob("reclaim/*.service")):
        text = unit.read_text().replace("/opt/orchestrator/.venv/bin/orchestrator", str(there))
        (tmp_path / unit.name).write_text(text)
    units = [str(path) for path in sorted(tmp_path.glob("*.service")) + sorted(tmp_path.glob("*.timer"))]
    assert len(units) == 3
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "orchestrator-" in line]
    assert not ours, done.stderr
    assert done.returncode == 0, done.stderr


def test_what_was_measured_is_a_question_for_the_model(tmp_path: Path) -> None:
    path = tmp_path / "host.yaml"
    twins = read(
        vm(500),
        vm(600, cgroup="0::/other\n"),
        vm(700, cgroup="0::/fn\n", argv=["/usr/bin/firecracker", "--id", "fn"]),
    )
    write_overcommit(path, audit(*twins), MEMINFO)
    asked = load_overcommit(path)
    assert (asked.host.memory, asked.host.swap) == (16 * GIB, 2 * GIB)
    resident = twins[0].resident.value or 0
    assert asked.host.reserved == (8 * GIB - 2 * resident) // MIB * MIB
    assert set(asked.guests) == {"web", "web-600"}
    guest = asked.guests["web"]
    assert guest.size == GIB
    assert guest.phases[0].used == pytest.approx(resident / GIB, abs=1e-4)
    assert guest.huge == pytest.approx((2 << 20) / resident, abs=1e-4)
    text = path.read_text()
    assert "Left out: fn (700): its command line does not say" in text
    assert "held 800 KiB, needed 132 KiB (predicted)" in text
    assert 33 * PAGE_BYTES == 132 << 10


def test_a_file_of_someone_elses_stays_and_ours_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "host.yaml"
    path.write_text("version: 1\n")
    with pytest.raises(BadInputError, match="not written by"):
        write_overcommit(path, everything(), MEMINFO)
    assert path.read_text() == "version: 1\n"
    path.unlink()
    write_overcommit(path, everything(), MEMINFO)
    write_overcommit(path, everything(), MEMINFO)


def test_a_machine_without_vms_asks_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="nothing to write"):
        write_overcommit(tmp_path / "host.yaml", audit(), MEMINFO)
    assert not (tmp_path / "host.yaml").exists()


def test_page_tables_of_a_vmm_are_processes() -> None:
    assert all(isinstance(one, ProcessReading) for one in everything().processes)
