"""Keys of scenarios, guests and patterns that were renamed: the older name is read as the new one."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestrator.actions import ACTIONS
from orchestrator.errors import FileProblemsError
from orchestrator.guest.definition import load_definition
from orchestrator.model.patterns import PATTERNS, pattern_named
from orchestrator.plan import PlannedStep
from orchestrator.scenario.load import load_scenario

ROOT = Path(__file__).parents[2]
WITH_TIMEOUT = sorted(name for name, kind in ACTIONS if "timeout" in kind.model_fields)
SCENARIO = """\
version: 1
name: old
guest: debian-13
machine: {memory: 1GiB}
arms: {a: {}}
steps:
  - exec: {argv: ['true'], %s}
"""


def test_the_actions_that_wait_have_one() -> None:
    assert {"unplug", "unplug_dimm", "inflate", "offline", "start", "exec"} <= set(WITH_TIMEOUT)


@pytest.mark.parametrize("name", WITH_TIMEOUT)
def test_a_step_of_an_older_plan_is_the_same_step(name: str) -> None:
    """plan.json of runs before has `within`: `resume` runs it, and `compare` sets it beside a new one."""
    required = {"argv": ["true"], "workload": "redis", "to": 0, "by": 1 << 30, "count": 1}
    fields = ACTIONS[name].model_fields
    params = {key: value for key, value in required.items() if key in fields and fields[key].is_required()}
    old = PlannedStep(action=name, params={**params, "within": 7.0}).load()
    assert old == PlannedStep(action=name, params={**params, "timeout": 7.0}).load()
    assert old.model_dump()["timeout"] == 7.0
    with pytest.raises(ValidationError, match="within"):
        ACTIONS[name].model_validate({**params, "within": 7.0, "timeout": 7.0}, context={"resolved": True})


def loaded(tmp_path: Path, words: str) -> object:
    path = tmp_path / "s.yaml"
    path.write_text(SCENARIO % words)
    return load_scenario(path, kernels_of=lambda _: ["6.12"]).steps[0].action.model_dump()["timeout"]


def test_a_scenario_may_have_it(tmp_path: Path) -> None:
    assert loaded(tmp_path, "within: 7s") == loaded(tmp_path, "timeout: 7s") == 7.0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("within: soon", ":7:36: steps[0].exec.within: 'soon' is not a duration"),
        ("within: 7s, timeout: 7s", ":7:28: unknown key 'within' in steps[0].exec"),
    ],
)
def test_what_is_wrong_with_it_is_where_it_was_written(tmp_path: Path, words: str, told: str) -> None:
    with pytest.raises(FileProblemsError) as raised:
        loaded(tmp_path, words)
    (problem,) = raised.value.problems
    assert told in str(problem)


def test_an_action_that_waits_for_nothing_has_neither() -> None:
    with pytest.raises(ValidationError, match="within"):
        ACTIONS["mark"].model_validate({"label": "x", "within": "7s"})


def test_of_guests_and_patterns_as_well(tmp_path: Path) -> None:
    text = (ROOT / "guests" / "debian-13.yaml").read_text()
    path = tmp_path / "debian-13.yaml"
    path.write_text(f"{text}\nboot_within: 9s\n")
    assert load_definition(path).boot_timeout == 9.0
    for name in ("sparse", "phases"):
        assert pattern_named(name, {"let_go": 0.25}) == pattern_named(name, {"unmapped": 0.25})
    assert pattern_named("many_mappings", {"apart": 2}) == pattern_named("many_mappings", {"spacing": 2})
    assert "unmapped" not in PATTERNS["dense"].model_fields
