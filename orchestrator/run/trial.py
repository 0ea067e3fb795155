"""One trial: a guest is booted, set up, put through its steps and ended."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.actions import Action
from orchestrator.actions.context import StepContext
from orchestrator.deadline import Deadline
from orchestrator.errors import (
    GuestError,
    InfrastructureError,
    OrchestratorError,
    WorkloadKilledError,
    host_failure,
    machine_refusal,
)
from orchestrator.guest.boot import Guest
from orchestrator.guest.kernel_log import read_kernel_log
from orchestrator.guest.oom_log import in_words
from orchestrator.guest.setup import apply_settings
from orchestrator.guest.shell import GuestShell
from orchestrator.guest.snapshot import SnapshotTaker
from orchestrator.host.accel import second_level
from orchestrator.host.libvirt_domain import LibvirtDomain
from orchestrator.host.machine import Machine
from orchestrator.host.shell import HostShell
from orchestrator.interrupts import deferred
from orchestrator.launch.environment import TrialEnvironment, phase
from orchestrator.metric import is_time
from orchestrator.observation import Observation
from orchestrator.plan import TrialSpec
from orchestrator.probes import PROBES, HostView
from orchestrator.records.accel import ICOUNT, NO_TIMES
from orchestrator.records.events import (
    Event,
    GuestKernel,
    Mark,
    SnapshotTaken,
    StepBegin,
    StepEnd,
    TrialBegin,
    TrialEnd,
    WorkloadFinding,
)
from orchestrator.records.step import StepOutcome, StepResult
from orchestrator.run.guest_launch import launched_guest, save_boot
from orchestrator.run.kernel_logs import kernel_logs_at_end
from orchestrator.run.programs import planned_workloads
from orchestrator.run.sampling import Sampling
from orchestrator.store import TrialWriter
from orchestrator.store.snapshot_file import write_snapshot
from orchestrator.workloads import WorkloadDriver, load_workload

_SLEEP_SLICE_SECONDS = 1.0
_UNAME_SECONDS = 60.0  # an emulated guest that was restored this moment may be busy


class TrialTimeoutError(GuestError):
    """The trial's deadline is over."""

    outcome = "timeout"


@dataclass
class RunningTrial(StepContext):
    """The running trial: the real side of the seam."""

    plan: TrialSpec
    environment: TrialEnvironment
    writer: TrialWriter
    guest: Guest
    sampling: Sampling
    snapshots: SnapshotTaker
    host_snapshots: SnapshotTaker | None
    deadline: Deadline
    began_ns: int
    workloads: Mapping[str, WorkloadDriver]
    number: int = 0
    """Of the step that runs."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the step is about, if that is a workload."""

    @property
    def machine(self) -> Machine:
        return self.plan.machine

    @property
    def domain(self) -> LibvirtDomain:
        return self.guest.domain

    @property
    def host_domain(self) -> LibvirtDomain | None:
        return self.guest.host.domain if self.guest.host else None

    @property
    def runtime(self) -> Path:
        return self.environment.runtime

    @property
    def step(self) -> int:
        return self.number

    def now_ns(self) -> int:
        return time.monotonic_ns() - self.began_ns

    def check(self) -> None:
        self.must_live()
        _within(self.deadline)

    def must_live(self) -> None:
        """Raise what happened to the guest, if it is dead, or to its samples."""
        self.guest.must_live()
        self.sampling.check()

    def must_have_lived(self, last: Sequence[int]) -> None:
        """Raise what happened to the guest unless it lived to the end of the last step, and beyond: until the
        rounds `last` of the samples."""
        self.sampling.wait_for(last, self.must_live)
        self.must_live()

    def sleep(self, seconds: float) -> None:
        end = Deadline(seconds)
        while not end.expired:
            time.sleep(min(_SLEEP_SLICE_SECONDS, end.remaining))
            self.check()

    def record(self, event: Event) -> None:
        self.writer.record(event)

    def start_workload(
        self, name: str, settings: Mapping[str, object], deadline: Deadline
    ) -> dict[str, float]:
        driver = load_workload(self.environment.places.workloads / name, settings)
        self.facts = {"workload": name, "expects": list(driver.expects)}
        try:
            measured = driver.start(
                self.guest.shell, seed=self.plan.seed, deadline=deadline.sooner(self.deadline.remaining)
            )
        except WorkloadKilledError as error:
            raise WorkloadKilledError(self._how_killed(driver) or error.brief) from error
        return self._observe_workload(name, measured)

    def stop_workload(self, name: str, deadline: Deadline) -> dict[str, float]:
        self.facts = {"workload": name}
        ending = self.workloads[name].stop(
            self.guest.shell, deadline=deadline.sooner(self.deadline.remaining)
        )
        figures = self._observe_workload(name, ending.figures)
        for finding in ending.findings:
            self.record(WorkloadFinding(t_ns=self.now_ns(), step=self.step, workload=name, **finding))
        how = self._how_killed(self.workloads[name]) if ending.gone else ""
        if how:
            raise WorkloadKilledError(how)
        return figures

    def _how_killed(self, driver: WorkloadDriver) -> str:
        """What the guest's kernel says of the OOM kill that ended a workload; empty where it does not."""
        self.sampling.wait_for_sample(self.check)  # counters have it then, whatever comes next
        kills = read_kernel_log(self.guest).kills
        return next((in_words(one) for one in reversed(kills) if one.comm in driver.processes), "")

    def _observe_workload(self, name: str, measured: Mapping[str, float]) -> dict[str, float]:
        """Keep what was measured, and return it: all but times where the guest's clock tells none."""
        t_ns, source = self.now_ns(), f"workload/{name}"
        kept = {
            key: value
            for key, value in measured.items()
            if self.environment.accel != ICOUNT or not is_time(_unit(key))
        }
        self.writer.observe(
            Observation(t_ns, self.plan.id, source, key, None, _unit(key), gap=NO_TIMES)
            if key not in kept
            else Observation(t_ns, self.plan.id, source, key, value, _unit(key))
            for key, value in measured.items()
        )
        return kept

    def execute(self, argv: list[str], deadline: Deadline) -> str:
        seconds = deadline.sooner(self.deadline.remaining).remaining
        return self.guest.shell.run(argv, seconds=seconds, oom_score_adj=0).text

    def mark(self, label: str) -> None:
        self.sampling.wait_for_sample(self.check)
        self.record(Mark(t_ns=self.now_ns(), label=label))

    def snapshot(self, label: str, *, of_host: bool = False) -> None:
        t_ns = self.now_ns()
        taker = self.host_snapshots if of_host else self.snapshots
        if taker is None:
            raise InfrastructureError("the host is no guest of ours")
        snapshot = taker.take(label)
        path = self.writer.snapshots / f"{self.step:02d}-{label}.npz"
        write_snapshot(path, snapshot)
        self.record(
            SnapshotTaken(
                t_ns=t_ns,
                label=label,
                of="host" if of_host else "guest",
                file=path.name,
                paused=snapshot.paused,
                frames_changed=snapshot.frames_changed,
            )
        )


def _within(deadline: Deadline) -> None:
    if deadline.expired:
        raise TrialTimeoutError(f"the trial took longer than its deadline of {deadline.seconds:.0f} s")


def run_trial(
    plan: TrialSpec, environment: TrialEnvironment, writer: TrialWriter
) -> OrchestratorError | None:
    """Run a trial to its end. Returns what went wrong, having recorded it, or None.

    KeyboardInterrupt is recorded and raised again.
    """
    return _recorded(plan, environment, writer, _run)


def run_boot(plan: TrialSpec, environment: TrialEnvironment, writer: TrialWriter) -> OrchestratorError | None:
    """Boot the guest that a trial starts from, and save it. As `run_trial`."""
    return _recorded(plan, environment, writer, _boot)


def _recorded(
    plan: TrialSpec,
    environment: TrialEnvironment,
    writer: TrialWriter,
    run: Callable[[TrialSpec, TrialEnvironment, TrialWriter, int], None],
) -> OrchestratorError | None:
    began_ns = time.monotonic_ns()
    error: OrchestratorError | None = None
    outcome = "interrupted"
    try:
        writer.record(TrialBegin(t_ns=0, arm=plan.arm, accel=environment.accel, host=environment.host_name))
        run(plan, environment, writer, began_ns)
        writer.flush()  # a trial whose samples are not all kept has not completed
        outcome = "completed"
    except GuestError as failure:
        error, outcome = failure, failure.outcome
    except OrchestratorError as failure:
        error, outcome = failure, "failed"
    except OSError as failure:
        error, outcome = host_failure(failure), "failed"
    except Exception as failure:
        refusal = machine_refusal(failure)
        # Else a fault of ours: it was not interrupted.
        error, outcome = refusal or OrchestratorError(f"internal error: {failure!r}"), "failed"
        if refusal is None:
            raise
    finally:
        with deferred():  # half a clean-up would lose the end of the trial
            try:
                writer.end(
                    TrialEnd(
                        t_ns=time.monotonic_ns() - began_ns,
                        outcome=outcome,
                        error=error.brief if error else "",
                        details=error.details if error else "",
                        console_tail=error.console_tail if error else "",
                        hint=error.hint if error else "",
                    )
                )
            except OSError as failure:
                error = error or host_failure(failure)
    return error


def _boot(plan: TrialSpec, environment: TrialEnvironment, writer: TrialWriter, began_ns: int) -> None:
    save_boot(
        plan, environment, writer, environment.runtime / plan.id[:24], lambda: time.monotonic_ns() - began_ns
    )


def _run(plan: TrialSpec, environment: TrialEnvironment, writer: TrialWriter, began_ns: int) -> None:
    progress = environment.progress

    def now_ns() -> int:
        return time.monotonic_ns() - began_ns

    scratch = environment.runtime / plan.id[:24]
    workloads = planned_workloads(plan.steps, environment.places)
    booted = _kernel_sha256(
        plan, environment
    )  # before the boot: a file of the user's may be built anew meanwhile
    if not environment.starts.own_host:
        environment.host.wait_for_ends()  # else what the guest before had would count as other guests'
        _observe_bare_host(plan, environment.host.shell, writer)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        guest = stack.enter_context(launched_guest(plan, environment, writer, scratch, now_ns))
        with guest.telling():
            with kernel_logs_at_end(guest, writer, now_ns, workloads):
                progress.step("set up", 0, len(plan.steps))
                with phase(writer, "settings", now_ns):
                    apply_settings(guest.shell, plan.setup.model_dump(), clock=True)
                    release, build = _kernel(guest.shell)
                    writer.record(
                        GuestKernel(
                            t_ns=now_ns(), kernel_sha256=booted, kernel_release=release, kernel_build=build
                        )
                    )
                view = HostView(guest.domain, plan.machine, environment.accel)
                sampling = Sampling(
                    writer, now_ns, guest.shell, view, plan.sample_every_seconds, seen=guest.seen
                )
                deadline = Deadline(plan.deadline_seconds)
                watched = sorted({name for driver in workloads.values() for name in driver.processes})
                stack.enter_context(sampling.running(watched))
                snapshots = stack.enter_context(SnapshotTaker(guest, plan.machine))
                of_host = None
                if guest.host:
                    level = second_level(guest.domain.qemu.shell)
                    of_host = stack.enter_context(SnapshotTaker(guest.host, plan.host_machine, level))
                trial = RunningTrial(
                    plan,
                    environment,
                    writer,
                    guest,
                    sampling,
                    snapshots,
                    of_host,
                    deadline,
                    began_ns,
                    workloads,
                )
                with guest.shell.watched(trial.must_live):
                    for number, step in enumerate(plan.steps, start=1):
                        _run_step(trial, number, step.action, step.load())
                last = sampling.next_sample()
            trial.must_have_lived(last)


def _kernel(shell: GuestShell) -> tuple[str, str]:
    """What the guest's kernel says of itself: release and build."""
    release, _, build = shell.run(["uname", "-rv"], seconds=_UNAME_SECONDS).text.strip().partition(" ")
    return release, build


def _kernel_sha256(plan: TrialSpec, environment: TrialEnvironment) -> str:
    """Of the file that is booted: two builds can say the same of themselves.

    With KBUILD_BUILD_TIMESTAMP and KBUILD_BUILD_VERSION set, as reproducible builds have them, not even
    `uname -v` differs.
    """
    kernel = environment.image.boot_files(plan.kernel).kernel
    try:
        with kernel.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InfrastructureError(
            f"the kernel {kernel} cannot be read: {error.strerror}", hint="check `kernel:` in the scenario"
        ) from error


def _observe_bare_host(plan: TrialSpec, shell: HostShell, writer: TrialWriter) -> None:
    """What the host's counters say before the guest is there: others are compared with that."""
    for name, probe in PROBES:
        writer.observe(probe.observe(f"{name}/bare", 0, plan.id, probe().from_bare_host(shell)))


def _run_step(trial: RunningTrial, number: int, name: str, action: Action) -> None:
    trial.number, trial.facts = number, {}
    describe = action.describe()
    began = time.monotonic()
    trial.environment.progress.step(describe, number, len(trial.plan.steps))
    begin = StepBegin(t_ns=trial.now_ns(), step=number, action=name, describe=describe)
    trial.record(begin)
    trial.check()
    try:
        result = action.run(trial)
    except OrchestratorError:
        failed = StepResult(StepOutcome.FAILED)
        trial.record(StepEnd.of(begin, trial.now_ns(), action.effect, failed, trial.facts))
        raise
    trial.record(StepEnd.of(begin, trial.now_ns(), action.effect, result, trial.facts))
    trial.environment.progress.step_done(describe, result.outcome, time.monotonic() - began)


def _unit(key: str) -> str:
    if key.endswith("_per_second"):
        return "1/s"
    return next((unit for unit in ("instructions", "seconds", "bytes") if unit in key.split("_")), "count")
