"""The series of all probes, as docs/run-folder.md has them: written from their declarations.

`python tests/unit/series_table.py` writes the table again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from orchestrator.probes import declared_series
from orchestrator.series import Series

PAGE = Path(__file__).resolve().parents[2] / "docs" / "run-folder.md"
BEGIN, END = "<!-- series -->\n", "<!-- end series -->"
HEAD = ("| source / name | unit | what it is | shown |", "|---|---|---|---|")


def table() -> str:
    """The table, in Markdown."""
    rows = (
        f"| `{one}` | {one.series.unit} | {_meaning(one.series)} | {'; '.join(_shown(one.series))} |"
        for one in declared_series()
    )
    return "\n".join((*HEAD, *rows)) + "\n"


def _meaning(series: Series) -> str:
    return series.meaning if series.origin == "measured" else f"{series.meaning} (*{series.origin}*)"


def _shown(series: Series) -> Iterator[str]:
    for headline in series.headlines:
        yield f"{headline.choice}: `{headline.metric}`"
    if series.moment:
        yield f"moments.csv: `{series.moment}`"
    if series.line:
        yield f"chart *{series.line.chart.title}*"


def rendered(page: str) -> str:
    """The page with its table as it should be."""
    head, _, rest = page.partition(BEGIN)
    return f"{head}{BEGIN}{table()}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
