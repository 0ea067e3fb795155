"""The domain XML: as agreed in golden files, and every field of a machine leaves its mark.

A golden file that should change is written anew with GOLDEN_WRITE=1 in the environment, and reviewed.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from pydantic import BaseModel

from orchestrator.host.domain_xml import (
    DomainFiles,
    RunFiles,
    dimm_device,
    disk_path,
    domain_name,
    domain_xml,
    relocated_xml,
    virtio_mem_request,
)
from orchestrator.host.machine import Machine

GOLDEN = Path(__file__).with_name("golden")
FILES = DomainFiles(
    kernel=Path("/cache/boot/vmlinuz-6.12"),
    initrd=Path("/cache/boot/initrd.img-6.12"),
    command_line="console=ttyS0 root=/dev/vda",
    disk=Path("/run/disk.qcow2"),
    console_log=Path("/results/console.log"),
    ssh_port=40022,
)
FULL: dict[str, Any] = {
    "vcpus": 2,
    "memory": "1GiB",
    "virtio_mem": {"size": "2GiB", "block": "2MiB"},
    "balloon": {"free_page_reporting": True},
}
SMALL: dict[str, Any] = {"vcpus": 1, "memory": "512MiB", "balloon": {"free_page_reporting": False}}


def xml_of(machine: dict[str, Any], files: DomainFiles = FILES, accel: str = "tcg") -> str:
    return domain_xml("t1", Machine.model_validate(machine), files, accel=accel, guest_address="10.0.2.15")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("domain-tcg", xml_of(FULL)),
        ("domain-dimms", xml_of(SMALL | {"dimms": ["256MiB", "512MiB"]})),
        ("domain-tcg-icount", xml_of(SMALL, accel="tcg-icount")),
        ("domain-kvm-own-kernel", xml_of(SMALL, replace(FILES, initrd=None), "kvm")),
    ],
)
def test_the_xml_is_as_agreed(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.xml"
    if os.environ.get("GOLDEN_WRITE"):
        path.write_text(text)
    assert text == path.read_text()


CHANGES: dict[str, Any] = {
    "vcpus": 3,
    "memory": "2GiB",
    "virtio_mem.size": "4GiB",
    "virtio_mem.block": "4MiB",
    "virtio_mem.plugged": "1GiB",
    "virtio_mem.dynamic_memslots": True,
    "dimms": ["512MiB"],
    "balloon.free_page_reporting": False,
    "balloon.deflate_on_oom": True,
}


def fields_of(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Dotted names of all fields, those of models within a model in their place."""
    names = set()
    for name, info in model.model_fields.items():
        kinds = [info.annotation, *getattr(info.annotation, "__args__", ())]
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        names |= fields_of(inner[0], f"{prefix}{name}.") if inner else {f"{prefix}{name}"}
    return names


def test_every_field_of_a_machine_is_tried_here() -> None:
    assert fields_of(Machine) == set(CHANGES)


@pytest.mark.parametrize("field", CHANGES)
def test_changing_a_field_changes_the_xml(field: str) -> None:
    outer, _, inner = field.partition(".")
    changed = {**FULL, outer: {**FULL[outer], inner: CHANGES[field]} if inner else CHANGES[field]}
    assert xml_of(changed) != xml_of(FULL)


def test_sizes_add_up() -> None:
    domain = etree.fromstring(xml_of(FULL))

    def kib(path: str) -> int:
        (element,) = domain.findall(path.removeprefix("/domain/"))
        return int(element.text or "")

    assert kib("/domain/memory") == 3 << 20
    assert domain.xpath("string(/domain/cpu/numa/cell/@memory)") == str(1 << 20)
    assert kib("/domain/devices/memory/target/size") == 2 << 20
    assert kib("/domain/devices/memory/target/block") == 2 << 10
    assert kib("/domain/devices/memory/target/requested") == 0, "a guest boots with nothing plugged"
    assert kib("/domain/maxMemory") > kib("/domain/memory")


@pytest.mark.parametrize("virtio_mem", [None, {"size": "2GiB"}])
def test_dimms_are_not_there_at_boot_and_there_is_room_for_them(virtio_mem: dict[str, str] | None) -> None:
    plain = etree.fromstring(xml_of(FULL | {"virtio_mem": virtio_mem}))
    dimms = etree.fromstring(xml_of(FULL | {"virtio_mem": virtio_mem, "dimms": ["512MiB"] * 20}))
    assert dimms.findtext("memory") == plain.findtext("memory")
    assert dimms.find("devices/memory[@model='dimm']") is None
    room = int(dimms.findtext("maxMemory", "")) - int(dimms.findtext("memory", ""))
    assert room >= 20 * 512 << 10
    assert [one.get("slots") for one in dimms.findall("maxMemory")] == ["20"]


def test_a_dimm() -> None:
    device = etree.fromstring(dimm_device(256 << 20))
    assert (device.tag, device.get("model")) == ("memory", "dimm")
    (size,) = device.findall("target/size")
    assert (size.text, size.get("unit")) == ("262144", "KiB")
    assert device.findtext("target/node") == "0", "the guest has no other"
    assert device.find("alias") is None
    (alias,) = etree.fromstring(dimm_device(256 << 20, "ua-x")).findall("alias")
    assert alias.get("name") == "ua-x"


def test_a_guest_whose_instructions_are_counted_is_emulated_and_stays_so_when_it_is_restored() -> None:
    plain, counted = (etree.fromstring(xml_of(SMALL, accel=accel)) for accel in ("tcg", "tcg-icount"))
    (passed,) = (child for child in counted if child.tag not in {one.tag for one in plain})
    assert [word.get("value") for word in passed] == ["-icount", "shift=0,sleep=on"]
    other = RunFiles(Path("/run2/disk.qcow2"), Path("/results2/console.log"), 40023)
    restored = etree.fromstring(relocated_xml(xml_of(SMALL, accel="tcg-icount"), other))
    (still,) = restored.iterchildren(str(passed.tag))
    assert etree.tostring(still, with_tail=False) == etree.tostring(passed, with_tail=False)
    counted.remove(passed)
    rest, all_of_it = (
        etree.canonicalize(etree.tostring(one).decode(), strip_text=True) for one in (counted, plain)
    )
    assert rest == all_of_it


def test_text_from_a_scenario_cannot_break_out() -> None:
    evil = "quiet</cmdline></os><devices/>&amp;"
    domain = etree.fromstring(xml_of(FULL, replace(FILES, command_line=evil)))
    assert domain.findtext("os/cmdline") == evil


def test_a_request_is_what_libvirt_said_with_another_size() -> None:
    live = (GOLDEN / "live-domain.xml").read_text()
    (said,) = etree.fromstring(live).findall("devices/memory[@model='virtio-mem']")
    asked = etree.fromstring(virtio_mem_request(live, 512 << 20))
    (requested,) = asked.findall("target/requested")
    assert (requested.text, requested.get("unit")) == ("524288", "KiB")
    requested.text = said.findtext("target/requested")
    assert etree.tostring(asked, method="c14n").strip() == etree.tostring(said, method="c14n").strip()


def test_a_request_needs_a_virtio_mem_device() -> None:
    with pytest.raises(ValueError, match="no virtio-mem device"):
        virtio_mem_request(xml_of(SMALL), 0)


def test_a_saved_domain_gets_the_files_of_its_run_and_nothing_else_changes() -> None:
    saved = xml_of(FULL)
    other = RunFiles(Path("/run2/disk.qcow2"), Path("/results2/console.log"), 40023)
    moved = relocated_xml(saved, other)
    assert (domain_name(moved), disk_path(moved)) == ("t1", "/run2/disk.qcow2")
    for new, old in (
        ("/run2/disk.qcow2", "/run/disk.qcow2"),
        ("/results2/console.log", "/results/console.log"),
        ("40023", "40022"),
    ):
        assert moved.count(new) == saved.count(old) == 1
        moved = moved.replace(new, old)
    assert etree.canonicalize(moved) == etree.canonicalize(saved)
