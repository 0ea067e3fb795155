"""Puts the page of a run together from its sections."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.analysis.run import RunAnalysis
from orchestrator.analysis.text import clean
from orchestrator.report.frame import Scripts, fill, scripts
from orchestrator.report.section import SECTIONS, Section
from orchestrator.report.terms import terms_in
from orchestrator.store import layout
from orchestrator.store.atomic import replace_text


@dataclass(frozen=True)
class _Placed:
    """A section under its name."""

    name: str
    it: Section

    @property
    def template(self) -> str:
        """What shows it."""
        return f"sections/{self.it.fragment or self.name}.html.j2"


def build_report(analysis: RunAnalysis) -> Path:
    """Write `report.html` of a run folder from what is in it, and nothing else; its path.

    The same folder gives the same file, byte by byte, on every machine with the same packages. Works on
    the folder of an unfinished or killed run.
    """
    path = analysis.run.directory / layout.REPORT
    replace_text(path, render(analysis, scripts()))
    return path


def render(analysis: RunAnalysis, library: Scripts) -> str:
    """The page as text. Writes nothing."""
    run = analysis.run
    sections = sorted(_sections(analysis), key=lambda placed: placed.it.order)
    return fill(
        "report.html.j2",
        library,
        title=clean(f"{run.scenario or 'run'}: {run.id}"),
        run_id=clean(run.id),
        scenario=clean(run.scenario),
        description=clean(run.plan.description, 400),
        status=run.status.value,
        facts=list(_facts(analysis)),
        conditions=analysis.conditions.rows,
        sections=sections,
        terms_in=terms_in,
        specs={figure.id: figure.spec for placed in sections for figure in placed.it.charts()},
    )


def _sections(analysis: RunAnalysis) -> Iterator[_Placed]:
    for name, kind in SECTIONS:
        section = kind.of(analysis)
        if section is not None:
            yield _Placed(name, section)


def _facts(analysis: RunAnalysis) -> Iterator[str]:
    run = analysis.run
    planned, trials = len(run.planned), len(analysis.trials)
    if run.trials and planned:
        yield f"{run.done} of {planned} trials ended"
    else:  # only the tables of the run are kept
        yield f"{trials} of {planned} trials" if planned else f"{trials} trials"
    started = clean(run.meta.started_at, 40)
    if started:
        yield f"began {started.replace('T', ' ').replace('+00:00', ' UTC')}"
