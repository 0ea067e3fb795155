"""junit.xml: a case for each trial, each expectation of an arm, and each metric compared with a baseline."""

from __future__ import annotations

from pathlib import Path

from lxml import etree

from orchestrator.analysis.arms import TrialView
from orchestrator.analysis.gate import change_in_words
from orchestrator.analysis.run import RunAnalysis
from orchestrator.analysis.text import clean, clean_block
from orchestrator.store import layout
from orchestrator.store.atomic import replace_text
from orchestrator.verdict import GateResult


def write_junit(analysis: RunAnalysis) -> Path:
    """Write `junit.xml` into the run's folder; its path. A trial that did not complete is a failure;
    one of the plan that never began is skipped."""
    path = analysis.run.directory / layout.JUNIT
    replace_text(path, junit(analysis))
    return path


def junit(analysis: RunAnalysis) -> str:
    """The file as text."""
    view = analysis.view
    scenario = clean(view.run.scenario or "run")
    begun = {trial.summary.trial for trial in view.trials}
    never = [planned for planned in view.run.planned if planned.id not in begun]
    suite = etree.Element("testsuite", name=scenario)
    for trial in view.trials:
        case = _case(suite, trial.summary.trial, f"{scenario}.{clean(trial.summary.arm)}", _seconds(trial))
        if trial.failed:
            _fail(case, "failure", trial.summary.outcome, trial.error, trial.hint)
    for planned in never:
        case = _case(suite, planned.id, f"{scenario}.{clean(planned.arm)}")
        etree.SubElement(case, "skipped", message="this trial never began")
    for one in analysis.verdicts.expectation_results:
        case = _case(suite, one.expectation, f"{scenario}.{clean(one.arm)}.expect")
        if not one.met:
            _fail(case, "failure", "expectation", one.found, "")
    if analysis.verdicts.gate:
        _gate_cases(suite, scenario, analysis.verdicts.gate)
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("errors", "0")
    suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    text: bytes = etree.tostring(suite, xml_declaration=True, encoding="UTF-8", pretty_print=True)
    return text.decode()


def _gate_cases(suite: etree._Element, scenario: str, gate: GateResult) -> None:
    """One for each arm and metric that was compared with the baseline."""
    failing = set(gate.failing)
    if gate.refused:
        case = _case(suite, "comparable", f"{scenario}.baseline")
        if gate.passed:
            etree.SubElement(case, "skipped", message=clean(gate.refused, 600))
        else:
            _fail(case, "failure", "refused", gate.refused, "")
    for arm in gate.undecided_arms:
        case = _case(suite, f"anything of {arm} could be decided", f"{scenario}.{clean(arm)}.baseline", 0.0)
        why = next(
            (one.reason for one in gate.changes if one.arm == arm and one.result == "undecided"),
            "not measured",
        )
        if gate.passed:
            etree.SubElement(case, "skipped", message=clean(why, 300))
        else:
            _fail(case, "failure", "undecided", why, "")
    for change in gate.changes:
        case = _case(suite, f"{change.metric} of {change.arm}", f"{scenario}.{clean(change.arm)}.baseline")
        if change in failing:
            _fail(case, "failure", change.result, change_in_words(change), "")
        elif change.result == "undecided":
            etree.SubElement(case, "skipped", message=clean(change.reason, 300))
        elif change.result != "none":
            output = etree.SubElement(case, "system-out")
            output.text = clean_block(f"{change.result}: {change_in_words(change)}")


def _case(suite: etree._Element, name: str, classname: str, seconds: float | None = None) -> etree._Element:
    """`seconds` is how long a trial took; what takes no time of its own, or was not timed, has none."""
    case = etree.SubElement(suite, "testcase", name=clean(name), classname=classname)
    if seconds is not None:
        case.set("time", f"{seconds:.3f}")
    return case


def _fail(case: etree._Element, kind: str, outcome: str, error: str, hint: str) -> None:
    message = clean(error.strip().splitlines()[0] if error.strip() else outcome, 200)
    failure = etree.SubElement(case, kind, type=clean(outcome, 40), message=message)
    failure.text = clean_block(f"{error}\nnext: {hint}" if hint else error)


def _seconds(trial: TrialView) -> float | None:
    events = trial.folder.events if trial.folder else ()
    return events[-1].t_ns / 1e9 if events else None
