"""The charts over time that probes declare with their series: a section for each."""

from __future__ import annotations

from typing import ClassVar

from orchestrator.probes import DeclaredSeries, declared_series
from orchestrator.report.over_time import OverTime
from orchestrator.report.section import SECTIONS
from orchestrator.series import Chart


def _section(declared: Chart, lines: tuple[DeclaredSeries, ...]) -> type[OverTime]:
    class Charted(OverTime):
        order: ClassVar = declared.order
        title: ClassVar = declared.title
        chart: ClassVar = declared
        series: ClassVar = lines

    return Charted


for _chart in dict.fromkeys(one.series.chart for one in declared_series() if one.series.chart):
    _lines = tuple(one for one in declared_series() if one.series.chart == _chart)
    SECTIONS.register(_chart.name)(_section(_chart, _lines))
