"""`model`: reclaim policies, replayed over traces and runs."""

from __future__ import annotations

import click
from rich.markup import escape

from orchestrator.cli.group import Group
from orchestrator.cli.model_compare import compare_command
from orchestrator.cli.model_costs import calibrate_command, overcommit_command
from orchestrator.cli.model_guest import guest_command
from orchestrator.cli.model_rebuild import rebuild_command
from orchestrator.cli.model_replay import replay_command, trace_command
from orchestrator.cli.model_sweep import sweep_command
from orchestrator.cli.model_tlb import tlb_command
from orchestrator.cli.options import json_option
from orchestrator.cli.output import print_json
from orchestrator.cli.tables import plain_table, print_table


@click.group("model", cls=Group)
def model_command() -> None:
    """Replay policies over what was measured or made up: every figure is modelled, none measured."""


for command in (
    replay_command,
    compare_command,
    rebuild_command,
    trace_command,
    guest_command,
    overcommit_command,
    tlb_command,
    sweep_command,
    calibrate_command,
):
    model_command.add_command(command)


@model_command.command("policies")
@json_option
def policies_command(*, as_json: bool) -> None:
    """List the policies, one line each, and over what each answers.

    \b
    snapshot  which tables of a guest go, as it was at an instant; `model guest` asks it of one made up
    trace     which tables are evicted under a budget; `model replay`, `compare` and `overcommit` ask it
    tree      which second-level tables of a host go; `model rebuild` asks it of a trace's
    """
    from orchestrator.model.policies import POLICIES, QUESTIONS

    policies = [policy for _, policy in POLICIES]
    if as_json:
        rows = [{"name": one.name, "over": list(one.questions), "what": one.what} for one in policies]
        print_json({"policies": rows})
        return
    table = plain_table()
    table.add_column("policy", no_wrap=True)
    asked = [question.question for question in QUESTIONS]
    for name in asked:
        table.add_column(name, no_wrap=True)
    table.add_column("what it does")
    for one in policies:
        table.add_row(one.name, *("yes" if name in one.questions else "" for name in asked), escape(one.what))
    print_table(table)
