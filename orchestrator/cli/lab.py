"""`lab`: a KVM host with nested paging on this machine, whatever its processor."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from orchestrator.cli.group import Group
from orchestrator.cli.options import guests_dir_option, json_option
from orchestrator.cli.output import err, out, print_json, print_next
from orchestrator.cli.scenario import find_guests_dir
from orchestrator.cli.shell import chosen_kernel, memory_size
from orchestrator.cli.signals import stop_at_signals
from orchestrator.deadline import Deadline
from orchestrator.errors import BadInputError, InfrastructureError
from orchestrator.interrupts import deferred

if TYPE_CHECKING:
    from orchestrator.host.lab import RunningLab

UP_SECONDS = 1800.0
_LOG_LINES = 15


@click.group("lab", cls=Group)
def lab_command() -> None:
    """A KVM host with nested paging on this machine, whatever its processor.

    It is a guest of this machine with QEMU, KVM and libvirt of its own, and stays up until `lab down`.
    Without hardware virtualization it is emulated: counts are comparable, times are not.

    \b
    orchestrator lab up
    orchestrator run --connect lab second-level
    orchestrator lab shell -- virsh list
    orchestrator lab down
    """


@lab_command.command("up")
@click.option("--kernel", metavar="NAME|PATH", help="One of kvm-host's kernels, or a bzImage of your own.")
@click.option("--memory", metavar="SIZE", callback=memory_size, help="Its memory; else 2GiB.")
@guests_dir_option
@json_option
def up_command(*, kernel: str | None, memory: int | None, guests_dir: Path | None, as_json: bool) -> None:
    """Start the lab: minutes the first time, then seconds from its saved memory."""
    from orchestrator.guest.cache import cache_dir
    from orchestrator.guest.definition import load_definition
    from orchestrator.host.kvm_host import KVM_HOST
    from orchestrator.host.lab import find_lab

    lab = find_lab()
    if lab is None:
        folder = find_guests_dir(Path("guests"), guests_dir)
        words = ["--guests-dir", str(folder.resolve())]
        if kernel:
            definition = load_definition(folder / f"{KVM_HOST}.yaml")
            words += ["--kernel", chosen_kernel(kernel, definition)]
        words += ["--memory", f"{memory}B"] if memory else []
        cache_dir().mkdir(parents=True, exist_ok=True)
        with stop_at_signals("ending what was started of the lab"):
            lab = _started(words, cache_dir() / "lab.log")
    elif kernel or memory:
        raise BadInputError("the lab is already up", hint="orchestrator lab down")
    _tell(lab, as_json=as_json)


@lab_command.command("status")
@json_option
def status_command(*, as_json: bool) -> None:
    """Say whether the lab is up, and where. Exit code 2 if it is not."""
    from orchestrator.host.lab import running_lab

    _tell(running_lab(), as_json=as_json)


@lab_command.command("shell", context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def shell_command(ctx: click.Context, command: tuple[str, ...]) -> None:
    """Open a shell in the lab, or run a command there; its exit code is that of the command."""
    from orchestrator.host.lab import running_lab

    lab = running_lab()
    argv = lab.target(Path(lab.folder)).argv(*command)
    if not command and sys.stdin.isatty():
        argv[argv.index("-T")] = "-t"
    with stop_at_signals("ending the shell"):
        ctx.exit(subprocess.run(argv, check=False).returncode)


@lab_command.command("down")
def down_command() -> None:
    """End the lab. What was written in it is gone."""
    from orchestrator.host.lab import end_lab, running_lab

    end_lab(running_lab())
    out.print("the lab is down")


@lab_command.command("keep", hidden=True)
@click.option("--kernel")
@click.option("--memory", callback=memory_size)
@click.option("--guests-dir", type=click.Path(path_type=Path), required=True)
def keep_command(*, kernel: str | None, memory: int | None, guests_dir: Path) -> None:
    """Start it and stay: what `lab up` leaves behind."""
    from orchestrator.cli.progress import PlainProgress
    from orchestrator.host.kvm_host import NESTED_KERNEL, NESTED_MACHINE
    from orchestrator.launch.paths import ProjectPaths
    from orchestrator.run.lab import keep, lab_host

    chosen = str(Path(kernel).resolve()) if kernel and "/" in kernel else kernel or NESTED_KERNEL
    wanted = NESTED_MACHINE.model_copy(update={"memory": memory} if memory else {})
    with (
        stop_at_signals("ending the lab"),
        lab_host(ProjectPaths.beside(guests_dir), chosen, wanted, PlainProgress()) as guest,
    ):
        keep(guest)


def _started(words: list[str], log: Path) -> RunningLab:
    """Start the process that keeps the lab, and wait until the lab is there."""

    argv = [sys.executable, "-m", "orchestrator", "lab", "keep", *words]
    keeper: subprocess.Popen[bytes] | None = None
    try:
        # The keeper inherits the lock, and has it for as long as it lives.
        with _only_one(log.with_suffix(".lock")) as lock, log.open("wb") as sink, deferred():
            keeper = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
                pass_fds=[lock],
            )
        return _when_up(keeper, log)
    except BaseException:
        if keeper and keeper.poll() is None:
            keeper.send_signal(signal.SIGTERM)
            keeper.wait()
        raise


@contextmanager
def _only_one(path: Path) -> Iterator[int]:
    """A lock that one lab has at a time, from before its start: its descriptor. Raises BadInputError."""
    with path.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInputError(
                "a lab is being started or ended already", hint="orchestrator lab status"
            ) from None
        yield lock.fileno()


def _when_up(keeper: subprocess.Popen[bytes], log: Path) -> RunningLab:
    from orchestrator.host.lab import find_lab

    deadline, printed = Deadline(UP_SECONDS), 0
    while not deadline.expired:
        ended = keeper.poll() is not None  # before reading, so that its last words are read
        lines = log.read_text(errors="replace").splitlines()
        for line in lines[printed:]:
            err.print(escape(line), style="dim")
        printed = len(lines)
        lab = find_lab()
        if lab is not None and lab.pid == keeper.pid:
            return lab
        if ended:
            tail = "\n".join(lines[-_LOG_LINES:])
            raise InfrastructureError("the lab did not come up", details=tail, hint=f"less {log}")
        time.sleep(0.2)
    raise InfrastructureError(f"the lab was not up after {UP_SECONDS:.0f} s", hint=f"less {log}")


def _tell(lab: RunningLab, *, as_json: bool) -> None:
    facts = lab.facts
    if as_json:
        print_json({"uri": lab.uri, "pid": lab.pid, "port": lab.port, "accel": lab.accel, **facts})
        return
    host = facts["host"]
    kernel = host["kernel"] if isinstance(host, dict) else ""
    out.print(f"[green]the lab is up:[/] Linux {escape(str(kernel))}, KVM with {facts['second_level']}")
    if lab.accel == "tcg":
        out.print("it is emulated: counts are comparable, times are not")
    out.print(f"libvirt: {escape(lab.uri)}", soft_wrap=True)
    print_next("orchestrator run --connect lab SCENARIO, or: orchestrator lab shell")
