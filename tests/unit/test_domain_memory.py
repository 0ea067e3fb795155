"""What libvirt says of a domain's memory: as it answers, as it writes it down, and what is no such thing."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from vm_host import GIB, MIB, FakeVm, FakeVmHost, qemu

from orchestrator.audit import vm as audit_vm
from orchestrator.audit.vm import find_vms
from orchestrator.deadline import Deadline
from orchestrator.host import libvirt_domains
from orchestrator.host.domain_memory import VirtioMemMemory, read_domain
from orchestrator.host.libvirt_domains import DomainReader

UUID = "1c2ea61f-7548-4508-972a-cfb4c2ff3afd"
DOMAIN = f"""\
<domain type='kvm' id='1'>
  <name>web</name><uuid>{UUID}</uuid>
  <maxMemory slots='16' unit='GiB'>8</maxMemory>
  <memory unit='KiB'>4194304</memory>
  <currentMemory unit='KiB'>1835008</currentMemory>
  <devices>
    <memory model='virtio-mem'><target><size unit='KiB'>2097152</size><block unit='KiB'>2048</block>
      <requested unit='KiB'>1048576</requested><current unit='KiB'>524288</current></target></memory>
    <memory model='dimm'><target><size unit='MiB'>512</size></target></memory>
    <memballoon model='virtio'/>
  </devices>
</domain>"""
STATUS = f"<domstatus state='running' reason='booted' pid='500'>{DOMAIN}</domstatus>"
KEY = ["-object", "secret,id=masterKey0,file=/var/lib/libvirt/qemu/domain-1-web/master-key.aes"]


def test_what_a_domain_has() -> None:
    found = read_domain(DOMAIN)
    assert found is not None
    assert (found.name, found.uuid, found.pid, found.kvm) == ("web", UUID, None, True)
    assert (found.boot, found.dimms) == (1536 * MIB, (512 * MIB,))
    assert found.virtio_mem == (VirtioMemMemory(2 * GIB, GIB, 512 * MIB),)
    assert found.balloon == 1280 * MIB, "without what virtio-mem has plugged"
    assert (found.free_slots, found.room) == (14, 4 * GIB)
    assert found.dimm_aliases == ()
    aliased = read_domain(DOMAIN.replace("</size></target>", "</size></target><alias name='ua-x'/>"))
    assert aliased is not None
    assert aliased.dimm_aliases == ("ua-x",), "of the DIMM"
    without = read_domain(DOMAIN.replace("<maxMemory slots='16' unit='GiB'>8</maxMemory>", ""))
    assert without is not None
    assert (without.free_slots, without.room) == (0, 0)


def test_its_own_file_says_whose_process_it_is() -> None:
    found = read_domain(STATUS)
    assert found is not None
    assert found.pid == 500


def test_without_a_balloon_nothing_is_said_of_one() -> None:
    for model in ("<memballoon model='none'/>", ""):
        found = read_domain(DOMAIN.replace("<memballoon model='virtio'/>", model))
        assert found is not None
        assert found.balloon is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no XML",
        "<network><name>web</name></network>",
        "<domain><name>web</name></domain>",
        "<domain><name/><memory>5</memory></domain>",
        "<domain><name>web</name><memory unit='parsec'>5</memory></domain>",
        "<!DOCTYPE d [<!ENTITY e SYSTEM 'file:///etc/hostname'>]><domain><name>&e;</name><memory>1</memory></domain>",
    ],
)
def test_what_is_no_domain(text: str) -> None:
    assert read_domain(text) is None


class _Libvirt:
    """libvirt-python, as far as it is used."""

    VIR_CONNECT_LIST_DOMAINS_ACTIVE = 1
    libvirtError = RuntimeError  # noqa: N815  # libvirt's name

    def __init__(self, answer: str = DOMAIN) -> None:
        self.answer = answer
        self.go_on = threading.Event()
        self.go_on.set()
        self.opened: list[str] = []

    def openReadOnly(self, uri: str) -> _Libvirt:  # noqa: N802  # libvirt's names
        self.opened.append(uri)
        self.go_on.wait(10)
        if not self.answer:
            raise RuntimeError("no socket")
        return self

    def listAllDomains(self, flags: int) -> list[_Libvirt]:  # noqa: N802
        assert flags == self.VIR_CONNECT_LIST_DOMAINS_ACTIVE
        return [self]

    def XMLDesc(self, flags: int) -> str:  # noqa: N802
        assert flags == 0
        return self.answer

    def close(self) -> None:
        pass


@pytest.fixture
def libvirt(monkeypatch: pytest.MonkeyPatch) -> _Libvirt:
    made = _Libvirt()
    monkeypatch.setattr(libvirt_domains, "libvirt_module", lambda _log: made)
    audit_vm._reader.cache_clear()
    return made


def host(*words: str, written: dict[str, str] | None = None) -> FakeVmHost:
    argv = qemu("-accel", "kvm", "-uuid", UUID, *words, memory="1536M")
    return FakeVmHost([FakeVm(500, argv, size=1536 * MIB)], written=written or {})


def read(made: FakeVmHost) -> Any:
    (found,) = find_vms(made.shell(), None, Deadline(10))
    return found


def test_libvirt_is_asked_for_what_only_it_knows(libvirt: _Libvirt) -> None:
    found = read(host(*KEY))
    assert libvirt.opened == ["qemu:///system"]
    assert found.memory.value == 2 * GIB, "with the DIMM that was plugged since"
    assert found.balloon.value == 1280 * MIB
    assert (found.virtio_mem.value, found.virtio_mem_requested.value) == (512 * MIB, GIB)
    assert found.memmap.value == (2 * GIB + 512 * MIB) // 64
    slot = next(one for one in found.reclaimable if one.name == "slot")
    assert slot.next == "orchestrator reclaim slot --domain web --dry-run"


def test_a_libvirt_that_runs_nothing_here_is_not_woken(libvirt: _Libvirt) -> None:
    assert read(host()).balloon.value is None
    assert libvirt.opened == []


def test_one_that_does_not_answer_is_asked_once_and_its_file_is_read(
    libvirt: _Libvirt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_vm, "_LIBVIRT_SECONDS", 0.2)
    libvirt.go_on.clear()
    try:
        first = read(host(*KEY))
        assert "did not answer" in first.balloon.reason
        second = read(host(*KEY, written={"/run/libvirt/qemu/web.xml": STATUS}))
        assert second.balloon.value == 1280 * MIB
        assert libvirt.opened == ["qemu:///system"]
    finally:
        libvirt.go_on.set()


def test_no_libvirt_is_a_reason(libvirt: _Libvirt) -> None:
    libvirt.answer = ""
    assert "no socket" in read(host(*KEY)).balloon.reason


def test_a_file_of_another_process_is_not_believed(libvirt: _Libvirt) -> None:
    libvirt.answer = ""
    other = STATUS.replace("pid='500'", "pid='501'")
    assert read(host(*KEY, written={"/run/libvirt/qemu/web.xml": other})).balloon.value is None


def test_a_domain_of_the_same_name_and_another_uuid_is_another(libvirt: _Libvirt) -> None:
    libvirt.answer = DOMAIN.replace(UUID, UUID.replace("1", "2"))
    assert read(host(*KEY)).balloon.value is None


def test_a_reader_goes_on_after_an_answer(libvirt: _Libvirt) -> None:
    reader = DomainReader("qemu:///system")
    for _ in range(2):
        domains, why = reader.read(Deadline(5))
        assert ([one.name for one in domains], why) == (["web"], "")
