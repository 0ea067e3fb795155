"""Entry point: finds the verb, turns errors into words and exit codes.

Verbs live in one module each and are imported only when called, so that `validate` does not pay
for pandas and libvirt.
"""

from __future__ import annotations

import importlib
import sys

import click

from orchestrator.cli.output import print_error
from orchestrator.errors import ExitCode, OrchestratorError

# verb -> (module, one line of help). The help stands here so that `--help` imports nothing.
VERBS = {
    "doctor": ("doctor", "Can this machine run guests, and how? What to do about each red line."),
    "validate": ("scenario", "Check scenario files; say file:line:column of every fault."),
    "plan": ("scenario", "Show what a scenario would do, trial by trial, without doing it."),
    "schema": ("scenario", "Print the JSON schema of scenario files, for editors."),
    "run": ("run", "Run a scenario and write a run folder with a report."),
    "list": ("runs", "List the runs in the results folder."),
    "show": ("runs", "Show one run, also one that is unfinished or was killed."),
    "report": ("runs", "Make the report of a run again from what is on disk."),
    "image": ("image", "Build, list or remove cached guest images."),
    "shell": ("shell", "Boot a guest and open a shell in it, or run one command."),
    "clean": ("clean", "Find and remove what a killed run left behind, and nothing else."),
}


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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's signature
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, help_line) for verb, (_, help_line) in VERBS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 completed; 1 completed, but an expectation failed; 2 bad usage or bad scenario; "
    "3 infrastructure failed, partial results kept; 130 interrupted.",
)
@click.version_option(package_name="orchestrator")
def cli() -> None:
    """Why will this guest not give its memory back, and what would make it?

    Boots real KVM/QEMU guests, drives ballooning, virtio-mem and hot-unplug under real workloads,
    reads what happened, replays page-table reclaim policies over it, and reports.

    \b
    Start here:
      orchestrator doctor
      orchestrator run scenarios/quickstart.yaml
    """


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    try:
        result = cli.main(args=argv, standalone_mode=False)
        sys.exit(int(result) if isinstance(result, int) else ExitCode.COMPLETED)
    except click.exceptions.Abort:
        sys.exit(ExitCode.INTERRUPTED)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitCode.BAD_INPUT)
    except OrchestratorError as error:
        print_error(error)
        sys.exit(error.exit_code)
