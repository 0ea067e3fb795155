"""The charts over time that probes declare with their series: a section for each."""

from __future__ import annotations

from typing import ClassVar, Final

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


_DRAWN: Final = [one for one in declared_series() if one.series.line]
for _chart in dict.fromkeys(one.series.line.chart for one in _DRAWN if one.series.line):
    _lines = tuple(one for one in _DRAWN if one.series.line and one.series.line.chart == _chart)
    SECTIONS.register(_chart.name)(_section(_chart, _lines))
