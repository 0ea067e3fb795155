"""Puts the report together: what the template shows, as plain words and numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from orchestrator import summary
from orchestrator.errors import BadInputError
from orchestrator.host.labs import NESTED
from orchestrator.records.events import SnapshotTaken, of_kind
from orchestrator.report import charts, effects, second_level, text, verdicts
from orchestrator.report.answer import answer
from orchestrator.report.blockmap import KINDS, Kind, Picture, pictures
from orchestrator.report.comparison import comparison
from orchestrator.report.confusion import (
    attribution_rows,
    attributions,
    confusion,
    confusion_columns,
    confusion_rows,
)
from orchestrator.report.data import ArmView, RunView, StepView, TrialView, flat, view_run
from orchestrator.report.findings import finding_rows, findings_left
from orchestrator.report.foretold import foretold_rows
from orchestrator.report.frame import fill
from orchestrator.report.gaps import missing
from orchestrator.report.holders import holder_table
from orchestrator.report.hugepages import COUNTERS, FREE_RANGES, huge_pages
from orchestrator.report.policies import policies_explained, policy_bars, policy_rows
from orchestrator.report.text import class_words, clean, clean_block
from orchestrator.report.tradeoff import tradeoff_alt, tradeoff_points, tradeoff_spec
from orchestrator.report.verdicts import Verdicts
from orchestrator.report.yields import taking_steps, yield_panels
from orchestrator.store import layout, open_run
from orchestrator.store.atomic import replace_text
from orchestrator.store.snapshot_file import read_snapshot

_MOST_MAPS: Final = 24  # pictures; the rest of the snapshots is named, not drawn


@dataclass(frozen=True)
class _Series:
    """A section of charts over time."""

    id: str
    title: str
    lead: str
    readings: tuple[charts.Reading, ...]


_SECTIONS: Final = (
    _Series(
        "page-tables",
        "Guest page tables",
        "PageTables of the guest's /proc/meminfo. Numbers mark steps; a band lasts until its step settled.",
        (charts.Reading("guest_meminfo", "PageTables", "page tables"),),
    ),
    _Series(
        "second-level-time",
        "Second-level tables over time",
        "Solid is what KVM has, of all levels (SecPageTables of the host without IOMMU tables); dashed is "
        "what is needed to map what QEMU has of the guest, predicted from its page map. Between them are "
        "tables that map nothing.",
        (
            charts.Reading("host_meminfo", "second_level_bytes", "measured"),
            charts.Reading("host_pagemap", "second_level_needed_bytes", "needed (predicted)", dashed=True),
        ),
    ),
    _Series(
        "virtio-mem",
        "Resizable memory",
        "Size of the virtio-mem device: solid is what is plugged, dashed what the host asks for. "
        "Where they stay apart, the guest could not give the rest back.",
        (
            charts.Reading("virtio_mem", "size", "plugged"),
            charts.Reading("virtio_mem", "requested_size", "asked for", dashed=True),
        ),
    ),
    _Series(
        "balloon",
        "Balloon",
        "Memory that the balloon leaves to the guest.",
        (charts.Reading("balloon", "actual", "left to the guest"),),
    ),
)


@dataclass(frozen=True)
class Figure:
    """A chart's place in the page."""

    id: str
    title: str
    note: str
    colour: int
    alt: str


@dataclass(frozen=True)
class Section:
    """Charts of one kind."""

    id: str
    title: str
    lead: str
    charts: tuple[Figure, ...]
    steps: tuple[StepView, ...]


def build_report(run_dir: Path) -> Path:
    """Write `report.html` of a run folder from what is in it, and nothing else; its path.

    The same folder gives the same file, byte by byte, on every machine with the same packages. Works on
    the folder of an unfinished or killed run.
    """
    run = open_run(run_dir)
    view = view_run(run, summary.load(run))
    path = run_dir / layout.REPORT
    replace_text(path, render(view))
    return path


def render(view: RunView) -> str:
    """The page as text."""
    specs: dict[str, charts.Spec] = {}
    sections = list(_time_sections(view, specs))
    policies = policy_rows(view)
    policy_figures = list(_policy_figures(view, specs))
    judged = verdicts.judged(view)
    yields = list(_yield_figures(view, specs))
    status = view.run.status.value
    return fill(
        "report.html.j2",
        title=clean(f"{view.run.scenario or 'run'}: {view.run.id}"),
        run_id=clean(view.run.id),
        scenario=clean(view.run.scenario),
        status=status,
        facts=list(_facts(view)),
        seconds=_seconds(view),
        answer=[clean(sentence, 600) for sentence in answer(view)],
        **_verdicts(view, judged, specs),
        arms=[_arm_head(arm) for arm in view.arms],
        groups=comparison(view.arms),
        findings=finding_rows(view),
        findings_left=findings_left(view),
        trouble=[_trouble(trial) for trial in view.trials if trial.failed],
        sections_before_map=sections,
        yields=yields,
        **_maps(view),
        holders=holder_table(view.arms),
        **_confusion(view),
        policies=policies,
        policies_explained=policies_explained(view),
        policy_charts=policy_figures,
        tradeoff=_tradeoff(view, specs),
        foretold=foretold_rows(view),
        second_level=second_level.moment_rows(view),
        second_level_trees=second_level.tree_rows(view),
        second_level_policies=second_level.POLICIES,
        second_level_name=clean(view.run.meta.second_level or "second-level tables", 20),
        huge_pages=huge_pages(view),
        huge_counters=(*COUNTERS, FREE_RANGES),
        step_tables=_step_tables(view),
        gaps=list(missing(view)),
        provenance=[(clean(key, 60), clean(value, 600)) for key, value in flat(view.run.meta.facts())],
        specs=specs,
    )


def _verdicts(view: RunView, judged: Verdicts, specs: dict[str, charts.Spec]) -> dict[str, Any]:
    sections = verdicts.pair_sections(judged)
    figures: dict[str, Figure] = {}
    for pair, section in sections:
        spec = effects.effects_spec(pair)
        if spec is not None:
            specs[section.place] = spec
            figures[section.place] = Figure(section.place, "", "", section.colour, effects.effects_alt(pair))
    return {
        "first_table": verdicts.first_table(judged),
        "in_short": list(verdicts.in_short(judged, len(view.trials))),
        "expectations": verdicts.expectations(judged),
        "left_out": verdicts.left_out(judged),
        "pairs": [section for _, section in sections],
        "pair_figures": figures,
        "pair_legend": effects.legend([pair for pair, _ in sections]),
    }


def _tradeoff(view: RunView, specs: dict[str, charts.Spec]) -> Figure | None:
    points = tradeoff_points(view.arms)
    if not points:
        return None
    specs["chart-tradeoff"] = tradeoff_spec(points)
    return Figure("chart-tradeoff", "Bytes against blocks", "all arms, modelled", 0, tradeoff_alt(points))


def _facts(view: RunView) -> Iterator[str]:
    planned = len(view.run.planned)
    yield f"{view.run.done} of {planned} trials ended" if planned else f"{len(view.trials)} trials"
    accels = sorted({str(trial.summary.metrics.get("accel", "")) for trial in view.trials} - {""})
    level = clean(view.run.meta.second_level, 20)
    if accels:
        second = f", second level {level}" if level and level != "none" else ""
        yield clean(f"{' and '.join(accels)}{second}")
    started = clean(view.run.meta.started_at, 40)
    if started:
        yield f"began {started.replace('T', ' ').replace('+00:00', ' UTC')}"


def _seconds(view: RunView) -> str:
    """What is to be said beside an axis of seconds, where they are not those of a guest by itself."""
    if view.run.plan.host == NESTED:
        return "The guest's host is a guest itself: the seconds tell the order, not how long it takes."
    if view.run.at_once:
        return "Trials ran side by side: the seconds tell the order, not how long it takes."
    return ""


def _arm_head(arm: ArmView) -> dict[str, object]:
    told = [f"{key} {value}" for key, value in arm.differs.items() if value]
    kernels = sorted({trial.summary.kernel_release for trial in arm.trials} - {""})
    trials = [f"median of {arm.of_boots}"] if len(arm.trials) > 1 else []
    note = " · ".join([*told, *(f"Linux {kernel}" for kernel in kernels), *trials])
    return {"name": clean(arm.name, 60), "colour": _colour(arm), "note": clean(note, 160)}


def _trouble(trial: TrialView) -> dict[str, str]:
    folder = trial.folder
    said = clean_block(folder.ended.console_tail) if folder and folder.ended else ""
    return {
        "id": clean(trial.summary.trial),
        "outcome": trial.summary.outcome,
        "error": clean_block(trial.error),
        "hint": clean(trial.hint, 400),
        "console": said or (text.console_tail(folder.directory / layout.CONSOLE) if folder else ""),
    }


def _time_sections(view: RunView, specs: dict[str, charts.Spec]) -> Iterator[Section]:
    for series in _SECTIONS:
        if series.id == "second-level-time" and not second_level.moment_rows(view):
            continue  # without KVM there are none to be seen
        panels = charts.time_panels(view.arms, series.readings, series.title)
        figures = []
        for number, panel in enumerate(panels):
            place = f"chart-{series.id}-{number}"
            specs[place] = panel.spec
            trials = len(panel.arm.trials)
            note = (
                f"{trials} trials, steps of {clean(panel.arm.shown.summary.trial, 40)}" if trials > 1 else ""
            )
            figures.append(Figure(place, clean(panel.arm.name, 60), note, _colour(panel.arm), panel.alt))
        if figures:
            steps = charts.legend_trial(view.arms)
            yield Section(series.id, series.title, series.lead, tuple(figures), steps.steps if steps else ())


def _yield_figures(view: RunView, specs: dict[str, charts.Spec]) -> Iterator[Figure]:
    for panel in yield_panels(view.arms):
        arm, place = panel.arm, f"chart-yield-{panel.arm.index}"
        specs[place] = panel.spec
        steps = [f"{step.number} {step.describe}" for step in taking_steps(arm)]
        note = [arm.shown.summary.trial, *steps] if len(arm.trials) > 1 else steps
        yield Figure(place, clean(arm.name, 60), clean(" · ".join(note), 300), _colour(arm), panel.alt)


def _confusion(view: RunView) -> dict[str, Any]:
    rows = confusion(view)
    columns = confusion_columns(rows)
    return {
        "confusion": confusion_rows(view, rows, columns),
        "confusion_columns": [class_words(name) for name in columns],
        "attributions": attribution_rows(attributions(rows)),
    }


def _maps(view: RunView) -> dict[str, Any]:
    arms, problems, regions, left = [], [], [], _MOST_MAPS
    seen: set[Kind] = set()
    for arm in view.arms:
        drawn: list[Picture] = []
        for label, draw in _snapshots(arm.shown):
            try:
                new = draw() if left > 0 else []
            except BadInputError as error:
                problems.append(clean(f"{label}: {error.brief}", 300))
                continue
            left -= len(new)
            drawn += new
        if drawn:
            regions += [picture.region for picture in drawn]
            seen |= {shape.kind for picture in drawn for shape in picture.shapes}
            note = arm.shown.summary.trial if len(arm.trials) > 1 else ""
            arms.append(
                {"name": clean(arm.name, 60), "colour": _colour(arm), "note": clean(note), "pictures": drawn}
            )
    if left <= 0:
        problems.append(f"Only the first {_MOST_MAPS} snapshots are drawn.")
    return {
        "maps": arms,
        "map_kinds": [kind for kind in KINDS if kind in seen],
        "map_problems": problems,
        "map_region": ", ".join(dict.fromkeys(regions)),
    }


def _snapshots(trial: TrialView) -> Iterator[tuple[str, Callable[[], list[Picture]]]]:
    for event in of_kind(trial.folder.events, SnapshotTaken) if trial.folder else ():
        path = trial.folder.snapshot_path(event) if trial.folder else None
        if path is not None:
            yield event.label, lambda path=path: pictures(read_snapshot(path))  # type: ignore[misc]  # bound now


def _policy_figures(view: RunView, specs: dict[str, charts.Spec]) -> Iterator[Figure]:
    chosen = [(arm, policy_bars(arm)) for arm in view.arms]
    largest = max((bar.value for _, bars in chosen for bar in bars), default=0)
    for arm, bars in chosen:
        if bars:
            place = f"chart-policies-{arm.index}"
            specs[place] = charts.policy_spec(bars, largest)
            label = clean(arm.shown.summary.tables_snapshot, 40)
            words = "; ".join(f"{bar.policy}, {bar.measure}: {bar.text}" for bar in bars)
            alt = clean(f"Modelled policies for {arm.name} at snapshot {label}. {words}.", 900)
            yield Figure(place, clean(arm.name, 60), f"at snapshot {label}, modelled", _colour(arm), alt)


def _step_tables(view: RunView) -> list[dict[str, object]]:
    return [
        {
            "id": clean(trial.summary.trial),
            "outcome": trial.summary.outcome,
            "colour": _colour(arm),
            "steps": trial.steps,
            "later": any(step.later_bytes is not None for step in trial.steps),
        }
        for arm in view.arms
        for trial in arm.trials
        if trial.steps
    ]


def _colour(arm: ArmView) -> int:
    return arm.index % charts.ARM_COLOURS
