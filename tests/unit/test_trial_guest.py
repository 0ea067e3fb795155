"""What becomes of a trial when its guest fails: its kernel, its disk, its connection."""

from __future__ import annotations

import hashlib
import shutil
from typing import Any

import pytest
from fakes import FakeChannel, FakeShell, Ticking
from staged import EXEC, WAIT, Stage, said

from orchestrator.errors import GuestLostError, GuestPanicError, InfrastructureError, OrchestratorError
from orchestrator.guest.causes import panic
from orchestrator.records.meta import RunMeta
from orchestrator.records.plan import PlanRecord
from orchestrator.store import SCHEMA_VERSION, Run, TrialFolder
from orchestrator.store.reader import ListedTrial
from orchestrator.summary import TrialSummary, summarise_trial


class Resetting(Ticking):
    """Of a guest that resets itself once its last step has ended: no whole sample comes any more."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = True

    def recv(self, size: int) -> bytes:
        return super().recv(size) if self.alive else FakeChannel.recv(self, size)


@pytest.mark.parametrize(
    "line",
    [
        "I/O error, dev vda, sector 1234 op 0x0:(READ) flags 0x80700 phys_seg 1 prio class 2",
        "critical space allocation error, dev vda, sector 8 op 0x1:(WRITE)",
        "Buffer I/O error on dev vda, logical block 7, lost async page write",
        "EXT4-fs error (device vda): ext4_lookup:1855: inode #2: comm sh: iget: checksum invalid",
        "EXT4-fs (vda): Remounting filesystem read-only",
        "Aborting journal on device vda-8.",
    ],
)
def test_a_guest_whose_disk_failed_it_has_not_completed(stage: Stage, line: str) -> None:
    stage.answers = {"dmesg": f"[    0.000000] Linux version 6.12\n[   12.3] {line}\n"}
    error = stage.run(WAIT)
    assert error is not None
    assert (error.brief, error.details) == (
        "the guest could not read or write its disk",
        f"[   12.3] {line}",
    )
    assert stage.event("trial.end")["outcome"] == "failed"
    assert stage.event("kernel.log")["lines"] == (f"[   12.3] {line}",)


@pytest.mark.parametrize(
    "line",
    [
        "EXT4-fs (vda): mounted filesystem 2f r/w with ordered data mode. Quota mode: none.",
        "EXT4-fs (vda): re-mounted 2f r/w.",
        "I/O error, dev loop0, sector 0 op 0x0:(READ)",
    ],
)
def test_what_is_no_error_of_its_disk_ends_no_trial(stage: Stage, line: str) -> None:
    stage.answers = {"dmesg": f"[    0.000000] Linux version 6.12\n[   12.3] {line}\n"}
    assert stage.run(WAIT) is None


def test_which_kernel_ran_is_known_without_any_snapshot(stage: Stage) -> None:
    def summarised() -> TrialSummary:
        assert stage.run(WAIT) is None
        meta = {"schema_version": SCHEMA_VERSION, "image": {"kernels": {"6.12": "6.12.1"}}}
        run = Run(stage.folder, RunMeta.model_validate(meta), PlanRecord())
        return summarise_trial(run, TrialFolder(stage.folder / "arm-01", ListedTrial("arm-01", "arm", 1, {})))

    first = summarised()
    assert first.kernel_release == "7.3.0-rc1+"
    assert first.kernel_build == "#12 SMP PREEMPT_DYNAMIC Sun Nov 29 10:00:00 UTC 2026"
    assert first.kernel_sha256 == hashlib.sha256(b"a kernel of mine").hexdigest()
    shutil.rmtree(stage.folder / "arm-01")
    stage.kernel.write_bytes(b"another build of it")
    second = summarised()
    assert second.kernel_release == first.kernel_release
    assert second.kernel_sha256 != first.kernel_sha256


def test_a_guest_that_resets_in_its_last_step_did_not_complete(stage: Stage) -> None:
    """It answers `dmesg` still, and QEMU runs for as long as libvirt takes to end it."""
    channel = Resetting()
    stage.channel = lambda: channel

    class Shell(FakeShell):
        def run(self, argv: list[str], **words: Any) -> Any:
            if argv == ["true"]:
                channel.alive = False
            if argv[0] == "dmesg":
                channel.put(None)  # the connection ends
            return super().run(argv, **words)

    stage.make_shell = Shell
    stage.answers = {"true": ""}
    assert isinstance(stage.run(WAIT, EXEC), GuestLostError)
    end = stage.event("trial.end")
    assert end["outcome"] == "lost"
    assert [said(event)["outcome"] for event in stage.events if event.name == "step.end"] == ["done", "done"]


def test_a_guest_that_prints_a_panic_and_lives_completes(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panic, "RESET_SECONDS", 0.01)
    stage.console = "[    5.1] Kernel panic - not syncing: a process says so\n"
    stage.answers = {"true": ""}
    assert stage.run(WAIT, EXEC) is None
    assert stage.event("trial.end")["outcome"] == "completed"
    assert ["dmesg", "--kernel"] in stage.shell.commands, "without what processes write to /dev/kmsg"


def test_what_a_guest_calls_its_kernel_is_printable(stage: Stage) -> None:
    stage.answers = {"uname -rv": "6.12\x1b[2J\u202e-evil\x07 #1 SMP\r\x9b31m\n"}
    assert stage.run(WAIT) is None
    kernel = stage.event("guest.kernel")
    assert kernel["kernel_release"] == "6.12\ufffd[2J\ufffd-evil\ufffd"
    assert not {one for one in kernel["kernel_build"] if ord(one) < 32 or 127 <= ord(one) < 160}


def test_a_kernel_that_cannot_be_read_is_no_crash(stage: Stage) -> None:
    stage.kernel = stage.folder
    error = stage.run(WAIT)
    assert isinstance(error, InfrastructureError)
    assert str(stage.folder) in error.brief
    assert stage.event("trial.end")["outcome"] == "failed"


@pytest.mark.parametrize(
    "met", [GuestLostError("the ssh connection broke"), InfrastructureError("libvirt lost the guest")]
)
def test_a_broken_shell_may_be_the_sign_of_a_panic(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, met: OrchestratorError
) -> None:
    def panic(self: FakeShell, argv: list[str], **_: object) -> None:
        (stage.folder / "arm-01" / "console.log").write_text("Kernel panic - not syncing: Out of memory\n")
        raise met

    monkeypatch.setattr(FakeShell, "run", panic)
    error = stage.run(EXEC)
    assert isinstance(error, GuestPanicError)
    assert error.__cause__ is met
    end = stage.event("trial.end")
    assert end["outcome"] == "panic"
    assert end["details"] == "Kernel panic - not syncing: Out of memory"
    log = stage.event("kernel.log")
    assert (log["source"], log["complaints"]) == ("console", None), "the console does not show all"


def test_a_guest_that_stops_is_lost(stage: Stage) -> None:
    stage.domain.running = False
    assert isinstance(stage.run(WAIT), GuestLostError)
    assert stage.event("trial.end")["outcome"] == "lost"
