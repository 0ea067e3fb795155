"""metrics.prom: headline metrics for node_exporter's textfile collector.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from orchestrator.analysis.run import RunAnalysis
from orchestrator.analysis.text import clean
from orchestrator.store import Run, layout
from orchestrator.store.atomic import replace_text
from orchestrator.summary import METRICS, TrialSummary

PREFIX: Final = "orchestrator_"

# Metrics whose value is a word: it goes into a label, and the sample is 1.
_WORDS: Final = ("unplug_outcome", "accel")


def write_prometheus(analysis: RunAnalysis) -> Path:
    """Write `metrics.prom` into the run's folder; its path. Missing metrics have no sample."""
    path = analysis.run.directory / layout.METRICS
    replace_text(path, exposition(analysis.run, analysis.summaries))
    return path


def exposition(run: Run, summaries: Sequence[TrialSummary]) -> str:
    """The file as text."""
    lines: list[str] = []
    for metric in METRICS:
        samples = [sample for one in summaries if (sample := _sample(run, one, metric))]
        if samples:
            name = _name(metric)
            lines += [f"# HELP {name} {metric} of docs/run-folder.md.", f"# TYPE {name} gauge", *samples]
    lines += [
        "# HELP orchestrator_trial_completed Whether the trial completed.",
        "# TYPE orchestrator_trial_completed gauge",
    ]
    lines += [
        f"orchestrator_trial_completed{_labels(run, one)} {int(one.outcome == 'completed')}"
        for one in summaries
    ]
    return "\n".join(lines) + "\n"


def _name(metric: str) -> str:
    return f"{PREFIX}{metric}_info" if metric in _WORDS else f"{PREFIX}{metric}"


def _sample(run: Run, one: TrialSummary, metric: str) -> str:
    value = one.metrics.get(metric)
    if value is None:
        return ""
    if metric in _WORDS:
        return f"{_name(metric)}{_labels(run, one, value=str(value))} 1"
    return f"{_name(metric)}{_labels(run, one)} {float(value)!r}" if not isinstance(value, str) else ""


def _labels(run: Run, one: TrialSummary, **more: str) -> str:
    labels = {"run": run.id, "scenario": run.scenario, "arm": one.arm, "trial": one.trial, **more}
    return "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    # clean() takes newlines out; the format asks for \n, \\ and \" only.
    return clean(value).replace("\\", r"\\").replace('"', r"\"")
