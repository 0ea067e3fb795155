"""The catalogue of headline metrics agrees with the reference run that decides some of it."""

from __future__ import annotations

from reference import reference

from orchestrator.stats import Significance
from orchestrator.summary import CATALOGUE


def test_which_metrics_a_restore_shifts_is_what_the_nested_design_found() -> None:
    run = reference("boots")
    compared = run.nested_metrics
    found = {
        name
        for name in compared
        if run.difference(name, "cold", "warm").significance is Significance.SIGNIFICANT
    }
    declared = {metric.name for metric in CATALOGUE if metric.shifts}
    assert declared & set(compared) == found
    assert declared <= set(compared), "what the reference run does not have, it does not decide"


def test_the_nested_design_has_boots_and_trials_enough() -> None:
    run = reference("boots")
    assert run.boots("warm") >= 5
    assert run.trials_of("warm") >= 2 * run.boots("warm")
    assert run.boots("cold") == run.trials_of("cold") >= 5
