"""Entry point: finds the verb, turns errors into words and exit codes.

Verbs live in one module each and are imported only when called, so that `validate` does not pay
for pandas and libvirt.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import subprocess
import sys
import traceback
from contextlib import suppress

import click
from click.shell_completion import CompletionItem

from orchestrator.cli.output import flush_output, print_error
from orchestrator.errors import (
    ExitCode,
    InfrastructureError,
    OrchestratorError,
    host_failure,
    machine_refusal,
)
from orchestrator.interrupts import interrupted

# As a shell has it for what SIGPIPE ended: neither completed nor failed.
_BROKEN_PIPE = 128 + signal.SIGPIPE

# verb -> (module, one line of help). The help stands here so that `--help` imports nothing.
VERBS = {
    "doctor": ("doctor", "Check whether this machine can run guests, and what to fix."),
    "validate": ("scenario", "Check scenario files; print file:line:column of every problem."),
    "plan": ("scenario", "Show what a scenario would do, trial by trial, without doing it."),
    "schema": ("scenario", "Print the JSON schema of scenario files, for editors."),
    "run": ("run", "Run a scenario and write a run folder with a report."),
    "trial": ("trial", "Execute one trial of a plan, into a folder that appears whole or not at all."),
    "gather": ("trial", "Make a run of trials that were executed by themselves."),
    "resume": ("run", "Run the trials of a run that are missing or were lost."),
    "fleet": ("fleet", "Spread trials over many hosts: certificates, the head, what hosts do."),
    "worker": ("worker", "Do trials of a fleet on this host."),
    "list": ("listing", "List the runs in the results folder."),
    "show": ("runs", "Show a run, also one that is unfinished or was killed."),
    "compare": (
        "compare",
        "Compare the arms of a run, or two runs, and say what differs significantly.",
    ),
    "baseline": ("baseline", "Save the metrics of a run as baseline for later runs."),
    "report": ("runs", "Make the report of a run again from its folder."),
    "blame": ("blame", "Say what pins each block still plugged, and what would free it."),
    "audit": ("audit", "Say what page tables map nothing, on a machine as it runs."),
    "claims": ("claims", "Say of each claim of the talk whether committed results bear it out."),
    "model": ("model", "Replay reclaim policies over traces and runs."),
    "image": ("image", "Build, list or remove cached guest images."),
    "lab": ("lab", "A KVM host with nested paging on this machine, whatever its processor."),
    "reclaim": ("reclaim", "Free second-level page tables that a VM holds, by a lever."),
    "shell": ("shell", "Boot a guest and open a shell in it, or run one command."),
    "clean": ("clean", "Remove what a killed run left behind."),
    "init": ("init", "Copy a scenario to a folder, to start from."),
    "completion": ("init", "Print the completion script of a shell."),
}


def print_version(ctx: click.Context, _parameter: click.Parameter, asked: bool) -> None:  # noqa: FBT001  # click's signature
    """`--version`: the release, and the commit that it was made from."""
    if not asked or ctx.resilient_parsing:
        return
    from importlib import metadata

    from orchestrator.commit import program_commit

    commit = program_commit() or "unknown"
    click.echo(f"orchestrator, version {metadata.version('orchestrator')}, commit {commit}")
    ctx.exit()


class LazyGroup(click.Group):
    """A group whose verbs are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"orchestrator.cli.{VERBS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:  # click knows of none that is not imported yet
            raise click.NoSuchCommand(error.command_name, possibilities=VERBS, ctx=ctx) from None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # click's own of a group imports every verb.
        verbs = ((verb, text) for verb, (_, text) in VERBS.items() if verb.startswith(incomplete))
        options = super(click.Group, self).shell_complete(ctx, incomplete)
        return [*(CompletionItem(verb, help=text) for verb, text in verbs), *options]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's signature
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, help_line) for verb, (_, help_line) in VERBS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 completed; 1 completed, but an expectation or a baseline gate failed, or an arm of "
    "it could not be decided; "
    "2 bad usage or bad scenario; 3 infrastructure failed, partial results kept; 130 interrupted.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=print_version,
    help="Show the version and the commit, and exit.",
)
def cli() -> None:
    """Why does a guest keep memory that it no longer uses, and what would make it free that memory?

    Boots QEMU/KVM guests, runs workloads in them, takes memory by virtio-mem, DIMM, balloon, free page
    reporting or memory offlining, says what pins each block still plugged, and replays page-table reclaim
    policies over saved snapshots.

    \b
    Start here:
      orchestrator doctor
      orchestrator run quickstart
    """


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    _have_standard_files()
    os.umask(os.umask(0o077) | 0o022)  # whatever the caller's is: only its user writes to our files
    sys.exit(_exit_code(argv))


def _have_standard_files() -> None:
    """Put /dev/null where the caller closed standard input, output or error.

    Else the next file that is opened gets that number, and what a child prints goes into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(number, True)  # noqa: FBT003  # positional only
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # for good
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # as above


def _exit_code(argv: list[str] | None) -> int:
    try:
        result = cli.main(args=argv, standalone_mode=False)
        flush_output()  # here, where a reader that has gone can still be dealt with
    except (click.exceptions.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return ExitCode.BAD_INPUT
    except SystemExit as end:
        # Nothing of ours raises it: click and rich end with 1 where a pipe is broken. That is our code
        # for an expectation that failed.
        if end.code != 1:
            raise
        return _reader_gone()
    except Exception as error:  # noqa: BLE001  # the last place to tell it from a failed expectation
        return _failed(error)
    return int(result) if isinstance(result, int) else ExitCode.COMPLETED


def _failed(error: Exception) -> int:
    if isinstance(error, BrokenPipeError):
        return _reader_gone()
    if isinstance(error, OSError) and error.errno == errno.EIO and interrupted(error):
        return ExitCode.INTERRUPTED  # the terminal has gone, and with it whom to tell
    reported = _as_error(error)
    # What cannot be printed, since standard error is closed, still has its code. rich exits by itself.
    with suppress(OSError, SystemExit):
        print_error(reported)
    _forget_output()
    return reported.exit_code


def _as_error(error: Exception) -> OrchestratorError:
    if isinstance(error, OrchestratorError):
        return error
    if isinstance(error, OSError):
        return host_failure(error)
    if isinstance(error, subprocess.CalledProcessError):
        return _tool_failure(error)
    if refusal := machine_refusal(error):
        return refusal
    brief = f"internal error: {type(error).__name__}: {error}".splitlines()[0]
    details = "".join(traceback.format_exception(error))
    return OrchestratorError(brief, details=details)


def _tool_failure(error: subprocess.CalledProcessError) -> InfrastructureError:
    argv = error.cmd if isinstance(error.cmd, list | tuple) else [error.cmd]
    output = error.stderr or error.output or ""
    details = output.decode(errors="replace") if isinstance(output, bytes) else str(output)
    return InfrastructureError(
        f"{argv[0]}: ended with exit code {error.returncode}",
        details=details.strip()[-2000:],
        hint="orchestrator doctor",
    )


def _reader_gone() -> int:
    """`| head` has seen enough: nothing to tell."""
    _forget_output()
    return _BROKEN_PIPE


def _forget_output() -> None:
    """The interpreter shall not try again what standard output did not take: it would end with code 120."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):  # there may be no descriptor behind it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
