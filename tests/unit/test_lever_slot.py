"""`slot`: a DIMM is plugged and unplugged, whatever the guest says, and `clean` removes what is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest
from fakes import UUID, Clock, FakeDomain
from test_runtime import typed

from orchestrator import deadline as deadline_module
from orchestrator.errors import InfrastructureError
from orchestrator.host.domain import Dimm, DimmAnswer
from orchestrator.host.domain_memory import DomainMemory
from orchestrator.host.noted_dimms import DimmNote, left_dimms, unplug
from orchestrator.host.runtime import runtime_folder
from orchestrator.host.ssh import SshTarget
from orchestrator.levers import LEVERS, LeverTarget, Pulled
from orchestrator.records.step import StepOutcome
from orchestrator.units import MIB

ALIAS = "ua-orchestrator-0123abcd"
NOTE = DimmNote(ALIAS, "web1", UUID, "qemu:///system")

# virsh of a host whose guest ejects a DIMM unless there is a file `refuses`; `plugged` has its alias.
_VIRSH = """#!/bin/sh
echo "$*" >> {folder}/calls
case "$4" in
dumpxml)
    alias=$(cat {folder}/plugged 2>/dev/null) || alias=none
    echo "<domain type='kvm'><name>web1</name><uuid>$5</uuid><memory>1048576</memory><devices>"
    echo "<memory model='dimm'><target><size>131072</size></target><alias name='$alias'/></memory>"
    echo "</devices></domain>" ;;
detach-device-alias) [ -e {folder}/refuses ] || rm {folder}/plugged ;;
esac
"""


@dataclass
class Guest(FakeDomain):
    """A guest that answers a plug, and each request to eject as `ejects` has it, silence from then on."""

    ejects: Iterator[str] = field(default_factory=lambda: iter(("ejected",)))
    takes: bool = True
    kvm: bool = True
    answers: list[DimmAnswer] = field(default_factory=list)
    on_attach: Callable[[], object] = lambda: None

    def memory(self) -> DomainMemory:
        return replace(super().memory(), kvm=self.kvm)

    def attach_dimm(self, size_bytes: int, alias: str = "") -> None:
        super().attach_dimm(size_bytes, alias)
        if self.takes:
            self.answers += [DimmAnswer(alias, 0, 1, 0x80), DimmAnswer(alias, 0, 1, 0)]
        self.on_attach()

    def request_dimm_removal(self, alias: str) -> None:
        self.calls.append(("request_dimm_removal",))
        how = next(self.ejects, "silent")
        if how == "ejected":
            self.plugged = tuple(one for one in self.plugged if one.alias != alias)
        if how == "busy":
            self.answers += [DimmAnswer(alias, 0, 3, 0x84), DimmAnswer(alias, 0, 3, 0x82)]
        if how == "lost":
            raise InfrastructureError("libvirt refused or lost the guest", details="the daemon has gone")

    def dimm_answers(self) -> tuple[DimmAnswer, ...]:
        found, self.answers = tuple(self.answers), []
        return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the files of a stand-in for virsh, which comes first on PATH."""
    virsh = tmp_path / "bin" / "virsh"
    virsh.parent.mkdir()
    virsh.write_text(_VIRSH.format(folder=tmp_path))
    virsh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{virsh.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME", str(tmp_path / "runtime"))
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def runtime(folder: Path) -> Iterator[Path]:
    with runtime_folder(Path("reclaim")) as found:
        yield found
        assert left_dimms(found) == []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    made.install(monkeypatch, deadline_module)
    return made


def target(guest: Guest, runtime: Path) -> LeverTarget:
    return LeverTarget(guest, guest.qemu, (), runtime, guest.clock.sleep)


def pulled(guest: Guest, runtime: Path, **parameters: object) -> Pulled:
    return LEVERS["slot"].model_validate(parameters).pull(target(guest, runtime))


def test_a_dimm_comes_and_goes(clock: Clock, runtime: Path) -> None:
    guest = Guest(clock)
    noted = []
    guest.on_attach = lambda: noted.extend(left_dimms(runtime))
    came = pulled(guest, runtime)
    assert came == Pulled(StepOutcome.DONE, {"dimm_bytes": 128 * MIB})
    assert guest.calls == [("attach_dimm", 128 * MIB), ("request_dimm_removal",)]
    assert guest.plugged == ()
    (note,) = noted
    assert (note.vm, note.uuid, note.connect, note.host) == ("web1", UUID, "qemu:///system", "this machine")


def test_a_guest_that_is_busy_is_asked_again(clock: Clock, runtime: Path) -> None:
    guest = Guest(clock, ejects=iter(("busy", "busy", "ejected")))
    began = clock.seconds
    assert pulled(guest, runtime, size="256MiB").outcome is StepOutcome.DONE
    assert guest.calls == [("attach_dimm", 256 * MIB)] + [("request_dimm_removal",)] * 3
    assert 4 <= clock.seconds - began < 10


def test_one_that_does_not_add_it_still_ejects_it(clock: Clock, runtime: Path) -> None:
    """No answer to the plug: a guest without a driver for it, or without memory hotplug."""
    guest = Guest(clock, takes=False)
    began = clock.seconds
    assert pulled(guest, runtime).outcome is StepOutcome.DONE
    assert 30 <= clock.seconds - began < 35


@pytest.mark.parametrize(
    ("how", "outcome", "said"),
    [
        ("busy", StepOutcome.REFUSED, "device busy (0x82), web1 of this machine has the DIMM ua-"),
        ("silent", StepOutcome.TIMEOUT, "web1 of this machine has the DIMM ua-orchestrator-"),
    ],
)
def test_a_guest_that_keeps_it_is_told(
    how: str, outcome: StepOutcome, said: str, clock: Clock, runtime: Path
) -> None:
    guest = Guest(clock, ejects=iter([how] * 1000))
    came = pulled(guest, runtime, timeout="20s")
    assert came.outcome is outcome
    assert came.message.startswith(said)
    (dimm,) = guest.plugged
    assert came.message.endswith(
        f"there, again: virsh -c qemu:///system detach-device-alias {UUID} {dimm.alias} --live"
    )


@pytest.mark.parametrize(
    ("guest", "parameters", "why"),
    [
        (Guest(slots=0), {}, "web1 has no slot for a DIMM (<maxMemory slots='...'>)"),
        (
            Guest(room=64 * MIB),
            {},
            "the memory of web1 may grow by 64 MiB (<maxMemory>), and the DIMM has 128 MiB",
        ),
        (Guest(room=64 * MIB), {"size": "64MiB"}, ""),
        (Guest(jobs={"web1": "backup"}), {}, "web1 is busy (backup), and KVM logs what is written"),
        (Guest(jobs={"db": "backup"}), {}, ""),
        (Guest(kvm=False), {}, "web1 is no VM of KVM's"),
        (Guest(plugged=(Dimm("dimm0", 0, 4 << 30, MIB),)), {}, ""),
        (
            Guest(plugged=(Dimm(ALIAS, 0, 4 << 30, MIB),)),
            {},
            f"web1 has the DIMM {ALIAS} of an earlier attempt, or of one at this moment",
        ),
    ],
)
def test_what_it_refuses(guest: Guest, parameters: dict[str, object], why: str, runtime: Path) -> None:
    assert LEVERS["slot"].model_validate(parameters).refusal(target(guest, runtime)) == why
    if why:
        assert pulled(guest, runtime, **parameters) == Pulled(StepOutcome.REFUSED, message=why)
        assert guest.calls == []


def test_a_signal_has_it_removed_by_another_connection(clock: Clock, folder: Path, runtime: Path) -> None:
    guest = Guest(clock)

    def stop() -> None:
        (folder / "plugged").write_text(guest.plugged[0].alias)
        raise KeyboardInterrupt

    guest.on_attach = stop
    with pytest.raises(KeyboardInterrupt):
        pulled(guest, runtime)
    assert not (folder / "plugged").exists()
    detach = f"-q -c qemu:///system detach-device-alias {UUID} {guest.plugged[0].alias} --live"
    assert detach in (folder / "calls").read_text().splitlines()


def test_a_connection_that_breaks_says_what_is_left(
    clock: Clock, folder: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.host.noted_dimms._EJECT_SECONDS", 0)
    (folder / "refuses").touch()
    guest = Guest(clock, ejects=iter(("lost",)))
    guest.on_attach = lambda: (folder / "plugged").write_text(guest.plugged[0].alias)
    with pytest.raises(InfrastructureError) as lost:
        pulled(guest, runtime)
    assert lost.value.details.startswith("the daemon has gone\nweb1 of this machine has the DIMM ua-")
    assert lost.value.details.endswith(f"detach-device-alias {UUID} {guest.plugged[0].alias} --live")


_KILLED = """
import sys, time
from pathlib import Path
from test_lever_slot import Guest, pulled
from orchestrator.host.runtime import runtime_folder

folder = Path(sys.argv[1])
guest = Guest()

def plugged():
    (folder / "plugged").write_text(guest.plugged[0].alias)
    print("plugged", flush=True)
    time.sleep(60)

guest.on_attach = plugged
with runtime_folder(Path("reclaim")) as runtime:
    pulled(guest, runtime)
"""


def test_clean_removes_what_a_kill_left(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    argv = [sys.executable, "-c", _KILLED, str(folder)]
    environment = {**os.environ, "PYTHONPATH": paths}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout
        assert child.stdout.readline() == "plugged\n"
        child.send_signal(signal.SIGKILL)
    alias = (folder / "plugged").read_text()
    code, text, _ = typed(capsys, "clean", "--dry-run", "--json")
    assert (code, json.loads(text)["dimms"]) == (
        0,
        [{"host": "this machine", "domain": "web1", "alias": alias}],
    )
    assert (folder / "plugged").exists(), "a dry run changes nothing"
    code, text, _ = typed(capsys, "clean")
    assert (code, f"asked for the removal of the DIMM {alias} of web1" in text) == (0, True)
    assert not (folder / "plugged").exists()
    assert "nothing to clean" in typed(capsys, "clean")[1]


def test_one_that_is_gone_is_not_asked_for(folder: Path) -> None:
    assert not unplug(NOTE)
    (folder / "plugged").write_text("ua-of-somebody")
    assert not unplug(NOTE)
    assert "detach" not in (folder / "calls").read_text()
    (folder / "plugged").write_text(ALIAS)
    assert unplug(NOTE)


def test_it_is_removed_on_another_host(folder: Path, target: SshTarget) -> None:
    (folder / "plugged").write_text(ALIAS)
    there = replace(NOTE, script=str(target.script), address="there", port=22, user="root")
    assert there.host == "root@there"
    assert unplug(there)
    assert not (folder / "plugged").exists()


def test_without_virsh_it_is_told_what_to_type(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(InfrastructureError) as missing:
        unplug(NOTE)
    assert NOTE.by_hand in missing.value.hint


@pytest.mark.parametrize(
    "change",
    [
        {"alias": "dimm0"},
        {"alias": f"{ALIAS} --config"},
        {"uuid": "--all"},
        {"connect": "qemu+tcp://elsewhere/system"},
        {"strange": 1},
    ],
)
def test_a_note_of_anything_else_is_never_followed(change: dict[str, object], runtime: Path) -> None:
    (runtime / "dimm-x.json").write_text(json.dumps({**asdict(NOTE), **change}))
    assert left_dimms(runtime) == []
    (runtime / "dimm-x.json").write_text("{")
    assert left_dimms(runtime) == []
