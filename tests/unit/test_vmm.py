"""Command lines of programs that run VMs, of people and of libvirt, sound and odd."""

from __future__ import annotations

import pytest

from orchestrator.host.vmm import VmCommand, read_command

GIB, MIB = 1 << 30, 1 << 20
# What libvirt 11.3 wrote for a guest with virtio-mem (shortened).
LIBVIRT = [
    "/usr/bin/qemu-system-x86_64", "-name", "guest=web,debug-threads=on", "-S",
    "-object", '{"qom-type":"secret","id":"k","file":"/var/lib/libvirt/qemu/domain-1-web/master-key.aes"}',
    "-machine", "pc-q35-10.0,usb=off,dump-guest-core=off,acpi=on", "-accel", "kvm", "-cpu", "max",
    "-m", "size=2097152k,slots=16,maxmem=6291456k",
    "-object", '{"qom-type":"memory-backend-ram","id":"ram-node0","size":2147483648}',
    "-numa", "node,nodeid=0,cpus=0,memdev=ram-node0", "-uuid", "1c2ea61f-7548-4508-972a-cfb4c2ff3afd",
    "-display", "none", "-no-user-config", "-nodefaults",
    "-object", '{"qom-type":"memory-backend-ram","id":"memvirtiomem0","reserve":false,"size":1073741824}',
    "-device", '{"driver":"virtio-mem-pci","node":0,"memdev":"memvirtiomem0","id":"virtiomem0"}',
]  # fmt: skip


def qemu(text: str) -> VmCommand:
    return read_command(["/usr/bin/qemu-system-x86_64", *text.split()])


def test_what_libvirt_writes() -> None:
    found = read_command(LIBVIRT)
    assert (found.name, found.uuid) == ("web", "1c2ea61f-7548-4508-972a-cfb4c2ff3afd")
    assert (found.memory, found.initial, found.devices) == (2 * GIB, (2 * GIB,), (GIB,))
    assert found.virtio_mem
    assert found.accelerators == ("kvm",)
    assert found.status_files == ("/run/libvirt/qemu/web.xml",)


@pytest.mark.parametrize(
    ("library", "state"),
    [
        ("/var/lib/libvirt/qemu", "/run/libvirt/qemu/web.xml"),
        ("/home/a/.config/libvirt/qemu/lib", "/run/user/7/libvirt/qemu/run/web.xml"),
        ("/var/tmp/root/lib/qemu", "/var/tmp/root/run/qemu/web.xml"),
    ],
)
def test_each_libvirt_keeps_its_state_somewhere_else(library: str, state: str) -> None:
    argv = [word.replace("/var/lib/libvirt/qemu", library) for word in LIBVIRT]
    assert read_command(argv, user=7).status_files == (state,)


def test_a_name_that_leads_elsewhere_has_no_file() -> None:
    argv = [word.replace("guest=web", "guest=../../etc/shadow") for word in LIBVIRT]
    assert read_command(argv).status_files == ()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("-m 256", 256 * MIB),
        ("-m 2G", 2 * GIB),
        ("--m size=1.5G,slots=2,maxmem=8G", 3 * GIB // 2),
        ("-m 262144k", 256 * MIB),
        ("-display none", 128 * MIB),
        ("-m nonsense", 128 * MIB),
    ],
)
def test_sizes_as_qemu_takes_them(text: str, size: int) -> None:
    found = qemu(text)
    assert found.memory == size
    assert found.blocks == (size,)


def test_dimms_and_backends_are_blocks_of_their_own() -> None:
    found = qemu(
        "-m 1G,slots=4,maxmem=8G -object memory-backend-memfd,id=a,size=512M "
        "-object memory-backend-ram,id=b,size=512M -numa node,memdev=a -numa node,memdev=b "
        "-object memory-backend-ram,id=d,size=2G -device pc-dimm,memdev=d"
    )
    assert found.memory == 3 * GIB
    assert found.blocks == (512 * MIB, 512 * MIB, 2 * GIB)


def test_boot_memory_of_a_backend() -> None:
    found = qemu(
        "-M q35,memory-backend=m -m 64 -object memory-backend-file,id=m,size=64M,mem-path=/dev/hugepages"
    )
    assert found.blocks == (64 * MIB,)


@pytest.mark.parametrize(
    ("text", "accelerators"),
    [
        ("-accel kvm", ("kvm",)),
        ("-accel kvm -accel tcg", ("kvm", "tcg")),
        ("-machine q35,accel=kvm:tcg", ("kvm", "tcg")),
        ("-enable-kvm -m 1G", ("kvm",)),
        ("-m 1G", ()),
    ],
)
def test_accelerators_in_their_order(text: str, accelerators: tuple[str, ...]) -> None:
    assert qemu(text).accelerators == accelerators


def test_commas_in_names_are_doubled_and_json_may_be_broken() -> None:
    assert read_command(["qemu-kvm", "-name", "a,,b"]).name == "a,b"
    assert read_command(["qemu-kvm", "-object", "{broken", "-m", "1G"]).memory == GIB
    assert read_command(["qemu-kvm", "-object", '{"qom-type": 5, "size": [1]}', "-m"]).memory == 128 * MIB


def test_a_machine_that_is_none_is_no_vm() -> None:
    assert qemu("-S -no-user-config -nodefaults -machine none,accel=kvm:tcg").empty
    assert not qemu("-machine q35").empty


def test_other_programs() -> None:
    cloud = read_command(["/usr/bin/cloud-hypervisor", "--kernel", "k", "--memory", "size=2G,shared=on"])
    assert (cloud.vmm, cloud.memory) == ("cloud-hypervisor", 2 * GIB)
    assert read_command(["cloud-hypervisor", "--kernel=k", "--kernel", "k"]).memory == 512 * MIB
    assert read_command(["cloud-hypervisor", "--api-socket", "/s"]).memory is None
    fire = read_command(["/srv/jail/firecracker", "--id=fn-1", "--api-sock", "/s"])
    assert (fire.vmm, fire.name, fire.memory) == ("firecracker", "fn-1", None)
    assert read_command(["/opt/crosvm", "run"]).vmm == "crosvm"
    assert read_command([]) == VmCommand("")
