"""`shell`: boot a guest and open a shell in it, or run one command."""

from __future__ import annotations

import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.complete import complete_guests
from orchestrator.cli.image import DEFAULT_GUEST
from orchestrator.cli.options import connect_option, guests_dir_option
from orchestrator.cli.progress import watch
from orchestrator.cli.scenario import find_guests_dir
from orchestrator.cli.signals import stop_at_signals
from orchestrator.errors import BadInputError, GuestLostError
from orchestrator.suggestion import suggest
from orchestrator.units import MIB, format_size, parse_size

if TYPE_CHECKING:
    from orchestrator.guest.boot import Guest
    from orchestrator.guest.definition import GuestDefinition

MEMORY_MINIMUM_BYTES = 256 * MIB  # the initrd of a Debian kernel does not unpack in much less
_SSH_FAILED = 255  # ssh(1), EXIT STATUS; a command may end with it, too
_END_SECONDS = 5.0


class _WithCommand(click.Command):
    """What follows `--` is a command, and none of it an argument of ours."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        dashes = args.index("--") if "--" in args else len(args)
        ctx.obj = tuple(args[dashes + 1 :])
        return super().parse_args(ctx, args[:dashes])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND...]"]


def memory_size(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """A size of a guest's memory, in bytes; None where none was given."""
    if text is None:
        return None
    try:
        size = parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if size < MEMORY_MINIMUM_BYTES or size % MIB:
        least = format_size(MEMORY_MINIMUM_BYTES)
        raise click.BadParameter(f"{text} is not whole MiB of at least {least}")
    return size


@click.command("shell", cls=_WithCommand)
@click.argument("guest", default=DEFAULT_GUEST, shell_complete=complete_guests)
@click.option("--kernel", metavar="NAME|PATH", help="One of the guest's kernels, or a bzImage of your own.")
@click.option("--memory", metavar="SIZE", default="1GiB", show_default=True, callback=memory_size)
@guests_dir_option
@connect_option
@click.pass_context
def shell_command(
    ctx: click.Context,
    *,
    guest: str,
    kernel: str | None,
    memory: int,
    guests_dir: Path | None,
    connect: str | None,
) -> None:
    """Boot GUEST (debian-13 if none is named) and open a shell in it, or run one command.

    With a COMMAND, its output and its exit code are those of this one. The guest writes to a disk
    overlay of its own, and ends with the shell: nothing of it is kept.

    \b
    orchestrator shell
    orchestrator shell --kernel 7.x -- uname -r
    """
    from orchestrator.guest.definition import load_definition

    command: tuple[str, ...] = ctx.obj
    if not command and not sys.stdin.isatty():
        raise BadInputError(
            "a shell needs a terminal, and standard input is none",
            hint="give a command:   orchestrator shell -- uname -r",
        )
    definition = load_definition(find_guests_dir(Path("guests"), guests_dir) / f"{guest}.yaml")
    chosen = chosen_kernel(kernel, definition)
    with stop_at_signals("ending the guest"), ExitStack() as stack:
        running = _boot(stack, definition, chosen, memory, connect)
        code = _ssh(running, command)
    ctx.exit(code)


def chosen_kernel(wanted: str | None, definition: GuestDefinition) -> str:
    """A kernel as `Image.boot_files` takes it: a name of the definition, or a path with a slash in it.

    Raises BadInputError for what is neither, and for a file that is no bzImage.
    """
    from orchestrator.scenario import kernel_file_fault

    if wanted is None:
        return definition.default_kernel
    if wanted in definition.kernels:
        return wanted
    path = Path(wanted).expanduser().absolute()
    if not path.exists():
        raise BadInputError(
            f"{wanted!r} is neither a kernel of {definition.name} nor a file",
            hint=suggest(wanted, list(definition.kernels)),
        )
    if fault := kernel_file_fault(wanted, path):
        raise BadInputError(fault[0], hint=fault[1])
    return str(path)


def _boot(
    stack: ExitStack, definition: GuestDefinition, kernel: str, memory: int, connect: str | None
) -> Guest:
    from orchestrator.guest.boot import booted
    from orchestrator.guest.cache import cache_dir
    from orchestrator.guest.image import ensure_image
    from orchestrator.guest.keys import ensure_keys
    from orchestrator.host.accel import choose
    from orchestrator.host.machine import Machine
    from orchestrator.host.runtime import runtime_folder
    from orchestrator.host_kinds import LOCAL, host_kind

    kind = host_kind(connect or LOCAL)
    if kind.is_guest:
        raise BadInputError(
            f"there is a {kind.text} host only while a trial runs on it",
            hint="orchestrator lab up   starts a host that --connect lab then means",
        )
    cache = cache_dir()
    # The progress ends with the boot: the terminal belongs to the guest then.
    with watch() as progress:
        runtime = stack.enter_context(runtime_folder(Path("shell") / definition.name))
        keys = ensure_keys(cache)
        image = ensure_image(definition, keys, cache, progress=progress.note)
        host = stack.enter_context(kind.connect(runtime, cache))
        kernel_to_try = image.kernel_to_try(definition.default_kernel)
        acceleration = choose("auto", kernel_to_try, cache, host.shell)
        progress.note(acceleration.explanation)
        return stack.enter_context(
            booted(
                host,
                image,
                image.boot_files(kernel),
                # As a plan read back from JSON does: sizes are numbers already.
                Machine.model_validate({"memory": memory}, context={"resolved": True}),
                keys,
                name=f"shell-{runtime.name}",
                accel=acceleration.name,
                definition=definition,
                scratch=runtime / "guest",
                progress=progress.note,
            )
        )


def ssh_argv(guest: Guest, command: tuple[str, ...], *, terminal: bool) -> list[str]:
    """OpenSSH's client, believing nothing but the key that is baked into the image."""
    return [
        "ssh",
        *("-F", "/dev/null", "-i", str(guest.keys.client)),
        *("-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"),
        *("-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={guest.shell.known_hosts}"),
        *("-o", "GlobalKnownHostsFile=/dev/null", "-o", "ServerAliveInterval=15"),
        *("-o", "LogLevel=ERROR"),  # no "Connection to 127.0.0.1 closed."
        *(("-o", f"ProxyCommand={guest.shell.proxy}") if guest.shell.proxy else ()),
        "-t" if terminal else "-T",
        *("-p", str(guest.shell.port), "root@127.0.0.1"),
        *(["--", shlex.join(command)] if command else []),
    ]


def _ssh(guest: Guest, command: tuple[str, ...]) -> int:
    """Run it with our standard streams. Raises what happened to the guest if that ended it."""
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    with subprocess.Popen(ssh_argv(guest, command, terminal=terminal)) as ssh:
        try:
            code = ssh.wait()
        except BaseException:
            ssh.terminate()  # not killed: it puts the terminal back in order
            ssh.wait(_END_SECONDS)
            raise
    if code == _SSH_FAILED and command:
        dead = guest.why_dead()
        if dead:
            raise dead
    if code < 0:
        raise GuestLostError(f"ssh was ended by signal {-code}")
    return code
