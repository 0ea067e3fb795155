"""How finely a metric of an arm can be known: for memory that is unplugged, by the mechanism that took it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache

from pydantic import TypeAdapter

from orchestrator.errors import BadInputError
from orchestrator.host.machine import Machine
from orchestrator.metric import Metric
from orchestrator.plan import PlannedStep

_RESOLVED = {"resolved": True}  # sizes in a plan are numbers of bytes
_STEPS = TypeAdapter(tuple[PlannedStep, ...])


def resolution_of(metric: Metric, does: Mapping[str, str]) -> float:
    """One unit of what is counted. `does` has the arm's `machine` and `steps` as the JSON of plan.json.

    Where these are not there, or of a version that cannot be read, it is the metric's own.
    """
    if not metric.by_block:
        return metric.resolution
    return _unplug_bytes(does.get("machine", ""), does.get("steps", "")) or metric.resolution


@lru_cache(maxsize=256)
def _unplug_bytes(machine_json: str, steps_json: str) -> int | None:
    """Bytes of which the last step that shrinks the guest by hot-unplug takes memory."""
    try:
        machine = Machine.model_validate(json.loads(machine_json), context=_RESOLVED)
        actions = [step.load() for step in _STEPS.validate_json(steps_json)]
    except (ValueError, BadInputError):
        return None
    units = (unit for action in reversed(actions) if (unit := action.unplugs_by(machine)))
    return next(units, None)
