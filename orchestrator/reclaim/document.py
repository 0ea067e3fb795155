"""What is measured and predicted of a VM as JSON has it, of `reclaim --json` and of a journal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.levers import Lever, Prediction, Pulled
from orchestrator.printable import clean
from orchestrator.reclaim.vm import LiveVm, MomentHeld

_NAME_CHARACTERS = 80


def before_it(vm: LiveVm, name: str, lever: Lever, why_not: str, foreseen: Prediction) -> dict[str, Any]:
    """Prediction and scope, before a lever is pulled; `why_not`: why it must not be."""
    return {
        "lever": name,
        "domain": vm.name,
        "host": vm.target.shell.name,
        "scope": lever.scope.value,
        "vms": [
            {"pid": one.pid, "name": clean(one.command.name, _NAME_CHARACTERS)} for one in vm.touched(lever)
        ],
        "cost": lever.cost,
        "undone": lever.undone,
        "refused": why_not,
        "predicted": predicted(foreseen),
    }


def result(pulled: Pulled, moments: Mapping[str, MomentHeld], settle_seconds: float) -> dict[str, Any]:
    """How it went."""
    return {
        "outcome": pulled.outcome.value,
        "message": pulled.message,
        "values": dict(pulled.values),
        "settle_seconds": settle_seconds,
        "measured": {name: moment(one) for name, one in moments.items()},
    }


def predicted(one: Prediction) -> dict[str, int | None]:
    """What a lever would leave, in bytes but for `ranges`."""
    return {
        "second_level_at_least_bytes": one.tables_at_least,
        "second_level_at_most_bytes": one.tables_at_most,
        "grows_at_most_bytes": one.takes_at_most,
        "ranges": one.ranges,
    }


def moment(one: MomentHeld) -> dict[str, int | str | None]:
    """What was held at one instant; of what is null, `second_level_reason` says why for the VM's own."""
    return {
        "second_level_bytes": one.own.value,
        "second_level_reason": one.own.reason,
        "second_level_of_host_bytes": one.host.second_level,
        "resident_bytes": one.host.resident,
        "host_page_table_bytes": one.host.page_tables,
        "faults": one.host.faults,
    }
