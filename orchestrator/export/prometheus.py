"""metrics.prom: headline metrics for node_exporter's textfile collector.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from orchestrator import summary
from orchestrator.analysis.text import clean
from orchestrator.store import Run, layout, open_run
from orchestrator.store.atomic import replace_text
from orchestrator.summary import METRICS, TrialSummary

PREFIX: Final = "orchestrator_"

# Metrics whose value is a word: it goes into a label, and the sample is 1.
_WORDS: Final = ("unplug_outcome", "accel")


def write_prometheus(run_dir: Path) -> Path:
    """Write `metrics.prom` of a run folder; its path. Missing metrics have no sample."""
    run = open_run(run_dir)
    path = run_dir / layout.METRICS
    replace_text(path, exposition(run, summary.load(run)))
    return path


def exposition(run: Run, summaries: list[TrialSummary]) -> str:
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
