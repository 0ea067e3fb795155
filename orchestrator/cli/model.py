"""`model`: reclaim policies, replayed over traces and runs."""

from __future__ import annotations

from inspect import getdoc

import click
from rich.markup import escape

from orchestrator.cli.group import Group
from orchestrator.cli.model_compare import compare_command
from orchestrator.cli.model_costs import calibrate_command, overcommit_command
from orchestrator.cli.model_replay import replay_command, trace_command
from orchestrator.cli.options import json_option
from orchestrator.cli.output import print_json
from orchestrator.cli.tables import plain_table, print_table


@click.group("model", cls=Group)
def model_command() -> None:
    """Replay policies over what was measured or made up: every figure is modelled, none measured."""


for command in (replay_command, compare_command, trace_command, overcommit_command, calibrate_command):
    model_command.add_command(command)


@model_command.command("policies")
@json_option
def policies_command(*, as_json: bool) -> None:
    """List the policies, one line each: those over a trace of touches, and those over one snapshot."""
    from orchestrator.model.policies import POLICIES
    from orchestrator.model.replacement import REPLACEMENTS

    rows = [("trace", name, first_line(policy)) for name, policy in REPLACEMENTS]
    rows += [("snapshot", name, first_line(policy)) for name, policy in POLICIES]
    if as_json:
        print_json({"policies": [{"over": over, "name": name, "what": what} for over, name, what in rows]})
        return
    table = plain_table()
    table.add_column("over a", no_wrap=True)
    table.add_column("policy", no_wrap=True)
    table.add_column("what it does")
    for over, name, what in rows:
        table.add_row(over, name, escape(what))
    print_table(table)


def first_line(thing: object) -> str:
    """The first line of what `thing` says of itself."""
    return (getdoc(thing) or "").split("\n", 1)[0]
