"""Which kind of file is meant, by what its keys are called: without importing the model, which is slow."""

from __future__ import annotations

from typing import Final

from orchestrator.scenario.model import ScenarioText
from orchestrator.yamlfile import YamlFile

# As OvercommitText has them and ScenarioText has not, which a unit test compares.
OVERCOMMIT_KEYS: Final = frozenset(
    {"actions", "arrive_every", "guests", "lasts", "policies", "seeds", "tick"}
)


SWEEP_KEYS: Final = frozenset({"overcommit", "compare"})
"""As SweepText has them, and neither of the others."""


def is_sweep(file: YamlFile) -> bool:
    """Whether a file is meant for `model sweep`."""
    return bool(set(file.root.entries) & SWEEP_KEYS)


def is_overcommit(file: YamlFile) -> bool:
    """Whether a file is meant for `model overcommit`, rather than as a scenario."""
    ours, theirs = _own_keys(file)
    return ours > theirs


def is_scenario(file: YamlFile) -> bool:
    """Whether a file is meant as a scenario, rather than for `model overcommit`."""
    ours, theirs = _own_keys(file)
    return theirs > ours


def _own_keys(file: YamlFile) -> tuple[int, int]:
    keys = set(file.root.entries)
    scenario = set(ScenarioText.model_fields) - {"version", "name", "description", "host"}
    return len(keys & OVERCOMMIT_KEYS), len(keys & scenario)
