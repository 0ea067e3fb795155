"""doctor: the checks one by one, their table, and the verb as typed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.doctor import Check, Level, check, debian, examine, hypervisor, machine, tools
from orchestrator.doctor.check import BOOTSTRAP, CheckResult, Subject
from orchestrator.doctor.examine import CHECKS
from orchestrator.errors import InfrastructureError
from orchestrator.host.accel import Acceleration, KernelFile
from orchestrator.host_kinds.libvirt import Libvirt
from orchestrator.host_kinds.local import Local
from orchestrator.units import GIB

ROOT = Path(__file__).parents[2]


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    return Subject(tmp_path / "cache", tmp_path / "guests", tmp_path / "results", None)


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make PATH one folder that holds just these programs, each printing a text."""
    monkeypatch.setattr(tools, "_SBIN", ())

    def make(**programs: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for name, says in programs.items():
            program = folder / name.replace("__", "-")
            program.write_text(f"#!/bin/sh\necho '{says}'\n")
            program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return make


def with_acceleration(subject: Subject, chosen: Acceleration | None) -> Subject:
    vars(subject)["acceleration"] = chosen  # where cached_property keeps what it looked up
    return subject


@pytest.mark.parametrize(
    ("says", "level", "found"),
    [
        ("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds)", Level.OK, "10.0.2"),
        ("QEMU emulator version 8.2.0", Level.OK, "8.2.0"),
        ("QEMU emulator version 8.1.5", Level.BAD, "8.1.5: too old, 8.2 or later is needed"),
        ("QEMU emulator version 7.2.13", Level.BAD, "7.2.13: too old, 8.2 or later is needed"),
        ("hello", Level.BAD, "qemu-system-x86_64 does not say its version: hello"),
    ],
)
def test_qemu_must_be_new_enough(
    only: Callable[..., None], subject: Subject, says: str, level: Level, found: str
) -> None:
    only(qemu__system__x86_64=says)
    finding = tools.qemu(subject)
    assert (finding.level, finding.found) == (level, found)
    assert finding.fix == (BOOTSTRAP if level is Level.BAD else "")


def test_the_lowest_qemu_is_the_one_that_bootstrap_installs() -> None:
    minimum = re.search(r"^qemu_minimum=(.+)$", debian.SCRIPT.read_text(), re.MULTILINE)
    assert minimum is not None
    assert minimum[1] == ".".join(map(str, tools.QEMU_MINIMUM))


@pytest.mark.parametrize(
    "name", ["QEMU", "passt", "mmdebstrap", "mke2fs", "ssh-keygen", "compiler", "ansible"]
)
def test_a_missing_tool_is_a_red_line_with_what_to_type(
    name: str,
    only: Callable[..., None],
    subject: Subject,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only()
    monkeypatch.setattr(tools, "sys", SimpleNamespace(executable=str(tmp_path / "python")))
    finding = dict(CHECKS)[name](subject)
    assert finding.level is Level.BAD
    assert finding.found.endswith("is not installed")
    assert finding.fix == BOOTSTRAP


def test_a_tool_tells_its_version_or_where_it_is(
    only: Callable[..., None], subject: Subject, tmp_path: Path
) -> None:
    only(mmdebstrap="mmdebstrap 1.5.5", ssh__keygen="never asked")
    assert tools.tool("mmdebstrap", ("--version",))(subject).found == "mmdebstrap 1.5.5"
    assert tools.tool("ssh-keygen")(subject).found == str(tmp_path / "bin" / "ssh-keygen")


def test_a_compiler_that_cannot_link_statically_is_red(
    tmp_path: Path, only: Callable[..., None], subject: Subject
) -> None:
    only()
    gcc = tmp_path / "bin" / "gcc"
    gcc.write_text("#!/bin/sh\necho 'cannot find -lc' >&2\nexit 1\n")
    gcc.chmod(0o755)
    finding = tools.compiler(subject)
    assert (finding.level, finding.fix) == (Level.BAD, BOOTSTRAP)
    assert "cannot find -lc" in finding.found


def test_without_libvirt_s_module_there_are_red_lines_and_no_traceback(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hypervisor, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "libvirt", None)  # `import libvirt` raises ImportError
    at_tmp_runtime(monkeypatch, tmp_path)
    assert hypervisor.binding(subject).level is Level.BAD
    finding = hypervisor.driver(subject)
    assert (finding.level, finding.fix) == (Level.BAD, BOOTSTRAP)
    assert "libvirt" in finding.found


def at_tmp_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    made: list[Path] = []

    @contextmanager
    def runtime_folder(_run: Path) -> Iterator[Path]:
        folder = tmp_path / "runtime"
        folder.mkdir()
        made.append(folder)
        yield folder

    monkeypatch.setattr(check, "runtime_folder", runtime_folder)
    return made


@pytest.mark.parametrize("kept", [True, False])
def test_the_connection_leaves_no_capabilities_where_there_were_none(
    kept: bool, subject: Subject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = at_tmp_runtime(monkeypatch, tmp_path)
    opened: list[tuple[object, ...]] = []

    class Opens(Local):
        @contextmanager
        def connect(self, runtime: Path, cache: Path) -> Iterator[Any]:
            opened.append((runtime, cache))
            versions = {"libvirt": "11.3.0", "qemu": "10.0.2"}
            yield SimpleNamespace(uri="qemu:///embed?root=/x/y", versions=versions)

    subject = replace(subject, host_named=Opens)
    if kept:
        (subject.cache / "libvirt").mkdir(parents=True)
    finding = hypervisor.driver(subject)
    assert finding.level is Level.OK
    assert "libvirt 11.3.0 at qemu:///embed runs QEMU 10.0.2" in finding.found
    assert opened == [(made[0], subject.cache if kept else made[0])]
    assert subject.cache.exists() is kept


def test_a_connection_that_fails_tells_what_to_type_for_its_own_uri(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refuses(Libvirt):
        def connect(self, *_: object) -> Any:
            raise InfrastructureError("cannot connect", details="refused\nmore", hint="orchestrator doctor")

    at_tmp_runtime(monkeypatch, tmp_path)
    uri = "qemu+ssh://h/system?a=1"
    finding = hypervisor.driver(Subject(tmp_path, tmp_path, tmp_path, uri, host_named=Refuses))
    assert finding.level is Level.BAD
    assert finding.found == "cannot be opened: cannot connect: refused"
    assert finding.fix == "virsh -c 'qemu+ssh://h/system?a=1' version"


def test_a_kept_verdict_says_that_it_is_one(subject: Subject) -> None:
    for one in (KVM, TCG):
        kept = replace(one, probed_at="2026-11-29 12:50 UTC", kept=True)
        found = hypervisor.acceleration(with_acceleration(replace(subject), kept)).found
        assert (
            "cached result of 2026-11-29 12:50 UTC; to check again: orchestrator doctor --recheck-kvm"
            in found
        )
        assert "cached" not in hypervisor.acceleration(with_acceleration(replace(subject), one)).found


def test_a_kvm_without_a_second_level_is_named(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.host.accel.second_level", lambda _: "none")
    monkeypatch.setattr(hypervisor, "shadow_paging", lambda _: "this KVM is PVM")
    for chosen in (KVM, TCG):
        finding = hypervisor.second_level(with_acceleration(replace(subject), chosen))
        assert finding == CheckResult(
            Level.NOTE, "none: second_level_bytes will be a gap; this KVM is PVM", word="none"
        )


KVM = Acceleration("kvm", "KVM: a stock kernel printed under it", "EPT")
TCG = Acceleration("tcg", "software emulation: there is no /dev/kvm", "none")


@pytest.mark.parametrize(
    ("chosen", "there", "levels", "words"),
    [
        (KVM, "EPT", (Level.OK, Level.OK), ("kvm", "EPT")),
        (KVM, "none", (Level.OK, Level.NOTE), ("kvm", "none")),
        # KVM's module is loaded and yet of no use: guests get no second level.
        (TCG, "NPT", (Level.NOTE, Level.NOTE), ("tcg", "none")),
        (None, "NPT", (Level.UNKNOWN, Level.UNKNOWN), ("unknown", "unknown")),
    ],
)
def test_acceleration_and_second_level(
    *,
    subject: Subject,
    monkeypatch: pytest.MonkeyPatch,
    chosen: Acceleration | None,
    there: str,
    levels: tuple[Level, Level],
    words: tuple[str, str],
) -> None:
    monkeypatch.setattr("orchestrator.host.accel.second_level", lambda _: there)
    with_acceleration(subject, chosen)
    found = (hypervisor.acceleration(subject), hypervisor.second_level(subject))
    assert tuple(finding.level for finding in found) == levels
    assert tuple(finding.word for finding in found) == words
    if chosen is not None:
        assert chosen.reason in found[0].found


def test_without_an_image_nothing_is_probed(
    only: Callable[..., None], subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "choose", lambda *_, **__: pytest.fail("nothing to probe with"))
    only(qemu__system__x86_64="QEMU emulator version 10.0.2")
    finding = hypervisor.acceleration(subject)
    assert (finding.level, finding.found) == (Level.UNKNOWN, hypervisor.NO_IMAGE)
    assert finding.fix == "orchestrator image build"


def test_the_default_kernel_of_a_cached_image_is_probed(
    only: Callable[..., None], subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = subject.cache / "images" / "debian-13-0123456789abcdef"
    (folder / "boot").mkdir(parents=True)
    (folder / "image.json").write_text(json.dumps({"releases": {"b": "9.1", "a": "9.2"}, "packages": {}}))
    (folder / "boot" / "vmlinuz-9.1").touch()
    asked: list[tuple[str, Path, Path, bool]] = []

    def choose(wanted: str, kernel: KernelFile, cache: Path, *, again: bool) -> Acceleration:
        asked.append((wanted, kernel.path, cache, again))
        return KVM

    monkeypatch.setattr(check, "choose", choose)
    only(qemu__system__x86_64="QEMU emulator version 10.0.2")
    assert hypervisor.acceleration(subject).word == "kvm"
    assert hypervisor.second_level(subject).word in {"EPT", "NPT", "none"}
    assert asked == [("auto", folder / "boot" / "vmlinuz-9.1", subject.cache, False)]  # once, for both
    only_folder = Path(str(subject.cache)).parent / "bin"
    (only_folder / "qemu-system-x86_64").unlink()
    assert Subject(subject.cache, subject.guests_dir, subject.results, None).acceleration is None


def test_looking_at_images_makes_no_keys(subject: Subject) -> None:
    finding = hypervisor.images(Subject(subject.cache, ROOT / "guests", subject.results, None))
    assert finding.level is Level.NOTE
    assert "debian-13" in finding.found
    assert not subject.cache.exists()


@pytest.mark.parametrize(
    ("available", "level"),
    [
        (2 * GIB - 1, Level.BAD),
        (2 * GIB, Level.NOTE),
        (4 * GIB - 1, Level.NOTE),
        (4 * GIB, Level.OK),
    ],
)
def test_free_memory(subject: Subject, monkeypatch: pytest.MonkeyPatch, available: int, level: Level) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=available))
    finding = machine.memory(subject)
    assert finding.level is level
    assert bool(finding.fix) is (level is Level.BAD)


@pytest.mark.parametrize(("free", "level"), [(4 * GIB - 1, Level.BAD), (4 * GIB, Level.OK)])
def test_free_disk_is_that_of_the_nearest_folder_that_exists(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: Level
) -> None:
    asked: list[str] = []

    def disk_usage(path: str) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=free)

    monkeypatch.setattr("psutil.disk_usage", disk_usage)
    finding = machine.disk("--results FOLDER", lambda one: one.results / "a" / "b")(subject)
    assert finding.level is level
    assert asked == [str(tmp_path)]
    assert ("--results FOLDER" in finding.fix) is (level is Level.BAD)


@pytest.mark.slow
def test_the_detached_process_of_the_memory_check_is_ended(subject: Subject) -> None:
    import psutil

    with machine._detached_process() as pid:
        assert psutil.Process().pid not in [parent.pid for parent in psutil.Process(pid).parents()]
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(5)
    assert not psutil.pid_exists(pid)


def test_memory_that_may_not_be_read_is_red(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def refuse(path: Path, *arguments: Any, **named: Any) -> Any:
        if path.name == "mem":
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", refuse)
    finding = machine.guest_memory(subject)
    assert finding.level is Level.BAD
    assert "ptrace_scope" in finding.found
    assert finding.fix.startswith("sudo sysctl kernel.yama.ptrace_scope=0")


def test_a_check_that_breaks_is_a_red_line_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(_: Subject) -> CheckResult:
        raise ZeroDivisionError("no such luck")

    table = (("broken", breaks), ("sound", lambda _: CheckResult(Level.OK, "fine")))
    monkeypatch.setattr(sys.modules["orchestrator.doctor.examine"], "CHECKS", table)  # hidden by the function
    broken, sound = examine(tmp_path, tmp_path, tmp_path, None)
    assert broken.level is Level.BAD
    assert "doctor" not in broken.fix
    assert "ZeroDivisionError: no such luck" in broken.found
    assert sound == Check("sound", Level.OK, "fine")
