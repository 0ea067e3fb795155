"""What an audit is printed as: terminal, JSON, OpenMetrics."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from audit_shell import FakeProcess, audited_host
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as older_families
from test_audit_machine import run, vm

from orchestrator.audit.document import document
from orchestrator.audit.openmetrics import exposition, write_openmetrics
from orchestrator.audit.reading import Amount, Audit, Lever
from orchestrator.cli import audit_view, output, tables

KIB, MIB = 1 << 10, 1 << 20
EVIL = 'a"b\\c\n{}='


def bloated(pid: int, comm: str, held_kib: int, **answer: object) -> FakeProcess:
    return FakeProcess(pid, comm, held_kib, answer={"tables": [10, 1, 1, 1], **answer})


def some() -> Audit:
    """A host with two processes that have tables too many, and two VMs, of which less is known of one."""
    processes = (
        bloated(10, EVIL[:15], 102_400),
        bloated(11, "sparse", 20_440, tables=[5000, 9, 1, 1], sparse=4096, deposited=100),
        FakeProcess(12, "little", 8),
        FakeProcess(13, "vmm", 4096, answer={"deposited": 1}),
    )
    levers = (
        Lever("flush", Amount(6 * 4096), "all VMs of the machine", "faults", "orchestrator reclaim flush"),
    )
    known = replace(vm(20, "web", "u-1"), reclaimable=levers, leaves={"4k": 7, "2m": 9})
    unknown = replace(vm(21, None), second_level_bytes=Amount.missing("its cgroup has two VMs"))
    emulated = replace(unknown, pid=22, accelerator="tcg")
    found = run(audited_host(*processes), find_vms=lambda *_: [known, unknown, emulated])
    own = next(one for one in found.processes if one.pid == 13)
    others = tuple(one for one in found.processes if one.pid != 13)
    return replace(found, processes=others, vms=(replace(found.vms[0], page_tables=own), *found.vms[1:]))


def samples(audit: Audit, *, top: int = 20) -> dict[str, list[tuple[dict[str, str], float]]]:
    families = text_string_to_metric_families(exposition(audit, top=top))  # type: ignore[no-untyped-call]  # as it is
    return {one.name: [(dict(sample.labels), sample.value) for sample in one.samples] for one in families}


def test_openmetrics_are_what_prometheus_reads() -> None:
    found = samples(some())
    assert found["process_page_table_bytes"][0] == ({"pid": "10", "comm": 'a"b\\c {}='}, 102_400 * KIB)
    assert found["process_page_table_unused_bytes"][0][1] == 102_400 * KIB - 12 * 4096
    assert found["process_page_table_deposited_bytes"][1][1] == 100 * 4096
    web = {"domain": "web", "uuid": "u-1"}
    assert found["kvm_vm_second_level_page_table_bytes"] == [(web, 8 * 4096)]  # of the others it is not known
    assert found["kvm_vm_second_level_page_table_needed_bytes"][0] == (web, 2 * 4096)
    assert found["kvm_second_level_page_table_bytes"] == [({}, 9 * 4096)]
    assert found["kvm_vm_leaf_entries"] == [({**web, "size": "2m"}, 9), ({**web, "size": "4k"}, 7)]
    assert found["kvm_vm_page_table_bytes"] == [(web, 4096 * KIB)]
    assert found["kvm_vm_reclaimable_bytes"] == [({**web, "lever": "flush"}, 6 * 4096)]
    assert len({labels["domain"] for labels, _ in found["kvm_vm_memory_bytes"]}) == 3
    assert found["page_table_audit_small_processes_bytes"] == [({}, 8 * KIB)]
    assert ({"state": "read"}, 2.0) in found["page_table_audit_processes"]


def test_the_number_of_series_is_bounded() -> None:
    many = run(audited_host(*(FakeProcess(pid, "x", 4096) for pid in range(10, 40))))
    assert len(samples(many, top=5)["process_page_table_bytes"]) == 5


def test_the_older_format_reads_the_same() -> None:
    text = exposition(some(), top=20)
    older = {sample.name: sample.value for one in older_families(text) for sample in one.samples}
    assert older["kvm_vm_second_level_page_table_bytes"] == 8 * 4096
    assert set(older) == set(samples(some()))
    assert text.endswith("# EOF\n")


def test_promtool_accepts_it(tmp_path: Path) -> None:
    """Debian's own, which `./bootstrap tox` unpacks; it complains of names without base units, too."""
    path = tmp_path / "x.prom"
    write_openmetrics(path, some(), top=20)
    with path.open() as text:
        done = subprocess.run(
            ["promtool", "check", "metrics"], stdin=text, capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == [path]


def test_json_has_every_field_and_gaps_have_reasons() -> None:
    found = json.loads(json.dumps(document(some())))
    assert found["vms"][1]["second_level_bytes"] == {"bytes": None, "reason": "its cgroup has two VMs"}
    assert found["vms"][0]["page_tables"]["needed"]["bytes"] == 4096 * KIB
    assert found["processes"][0]["unused"]["bytes"] == 102_400 * KIB - 12 * 4096
    assert found["advice"][0]["diagnosis"] == "empty"
    assert found["cost"]["cpu_seconds_per_gib"] > 0


def shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], audit: Audit, columns: int
) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    console = output._Console(highlight=False, color_system=None)
    for module in (audit_view, tables, output):
        monkeypatch.setattr(module, "out", console)
    monkeypatch.setattr(audit_view, "print_table", lambda one: tables.print_table(one, console))
    monkeypatch.setattr(audit_view, "print_next", lambda words: output.print_next(words, console))
    audit_view.show(audit, top=20)
    return capsys.readouterr().out


def test_the_sentence_comes_first_and_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(monkeypatch, capsys, some(), 200).splitlines()
    assert lines[1] == '99.95 MiB of 124 MiB of page tables map nothing: 99.95 MiB in a"b\\c {}= (10).'
    assert lines[2] == "32 KiB of second-level page tables in 1 VM, where 8 KiB are needed."
    assert lines[3:5] == [
        "1 VM under TCG, without second-level page tables.",
        "1 VM whose second-level page tables are not known.",
    ]
    assert lines[5] == "36 KiB of second-level page tables are counted for all VMs together."
    assert lines[6] == "next: restart process 10   (frees all of it)"
    text = "\n".join(lines)
    assert "its cgroup has two VMs." in text
    assert "flush" in text
    assert "Not looked into: 1 process with little page tables, 8 KiB in all (--min)." in text
    assert "1.000 s of CPU time, 0.333 s for each GiB mapped." in text


@pytest.mark.parametrize("columns", [80, 100])
def test_tables_fit_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    lines = shown(monkeypatch, capsys, some(), columns).splitlines()
    prose = ("next:", "Held", "This took", "No call")
    table = [line for line in lines if "  " in line.strip() and not line.startswith(prose)]
    assert len(table) > 6
    assert max(map(len, table)) <= columns


def test_with_nothing_to_say_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(monkeypatch, capsys, run(audited_host(FakeProcess(12, "x", 8))), 80)
    assert "0 B of 0 B of page tables map nothing." in text
    assert "next:" not in text
