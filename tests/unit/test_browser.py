"""Pages in a browser without a network: no complaint, all charts drawn, the answer in the first screen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from browser import Browser, Seen
from synthetic_run import write_run

from orchestrator import summary
from orchestrator.analysis.run import RunAnalysis
from orchestrator.cli import main
from orchestrator.report.page import build_report

pytestmark = pytest.mark.slow  # they share a browser

MIB = 1 << 20
FIRST_SCREEN = 800  # CSS pixels, of a window 1,200 wide
PHONE = 390
PAPER = 718  # A4 within the margins that browsers leave, at 96 to the inch

OVERCOMMIT = Path(__file__).parents[2] / "scenarios" / "overcommit" / "sparse.yaml"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One trial of each arm; five of each, with intervals and expectations; a model's."""
    results = tmp_path_factory.mktemp("pages")
    expect = ({"metric": "unplug_shortfall_bytes", "arm": "6.12", "at_most": 1.0 * MIB},)
    one = write_run(results, "one")
    many = write_run(results, "many", repeats=5, jitter=9, expect=expect)
    for directory in (one, many):
        summary.refresh(directory)
    model, few = results / "overcommit.html", results / "few.yaml"
    text = OVERCOMMIT.read_text().replace("[drop, migrate, compress, swap]", "[swap]")
    text = text.replace("[none, empty, pressure_random, lru]", "[none, lru]")
    few.write_text(text.replace("lasts: 1h", "lasts: 1h\nseeds: 1"))
    with pytest.raises(SystemExit) as end:
        main(["model", "overcommit", str(few), "--json", "--html", str(model)])
    assert end.value.code == 0
    made = {run.name: build_report(RunAnalysis.open(run)) for run in (one, many)}
    return {**made, "overcommit": model}


@pytest.fixture(scope="module")
def opened(browser: Browser, pages: dict[str, Path]) -> Callable[[str, int, str], Seen]:
    """What a page comes to at a width and in a scheme; each is opened once."""
    return cache(lambda name, width, scheme: browser.open(pages[name], width=width, scheme=scheme))


@pytest.mark.parametrize("name", ["one", "many", "overcommit"])
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (PHONE, "dark")])
def test_it_opens_without_a_complaint_and_draws_all(
    opened: Callable[[str, int, str], Seen], pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    seen = opened(name, width, scheme)
    assert seen.complaints == []
    assert seen.fetched == [pages[name].as_uri()], "the file itself and nothing else"
    assert {chart["id"] for chart in seen.look["charts"]} == set(seen.look["specs"])
    assert len(seen.look["charts"]) >= 3
    assert [chart for chart in seen.look["charts"] if not chart["drawn"]] == []
    assert all(0 < chart["box"]["width"] <= width for chart in seen.look["charts"])
    assert seen.look["width"] <= width, "nothing stands out to the side"
    assert seen.look["overlaps"] == [], "words stand on their own"
    light, dark = brightness(seen.look["paper"]), brightness(seen.look["ink"])
    assert (light > dark) == (scheme == "light")
    assert abs(light - dark) > 150


@pytest.mark.parametrize("name", ["one", "many", "overcommit"])
def test_paper_shows_all_of_it(browser: Browser, pages: dict[str, Path], name: str) -> None:
    look = browser.open(pages[name], width=PAPER, scheme="dark", media="print").look
    assert look["width"] <= PAPER
    assert look["cut"] == [], "paper does not scroll"
    assert look["closed"] == 0, "nothing can be opened on paper"
    assert brightness(look["paper"]) == 255
    assert all(chart["drawn"] for chart in look["charts"])


def brightness(colour: str) -> float:
    """Of `rgb(r, g, b)`, 0 to 255."""
    red, green, blue = (float(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
    return 0.299 * red + 0.587 * green + 0.114 * blue


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "one",
            ("unplug took 1.084 GiB (72 %) with 6.12", "contain a page-table page", "+4 MiB", "too few"),
        ),
        ("many", ("unplug took", "contain a page-table page", "95 % intervals", "not met")),
        ("overcommit", ("guests fit before the first OOM kill", "does best")),
    ],
)
def test_the_answer_is_on_the_first_screen(
    opened: Callable[[str, int, str], Seen], name: str, words: tuple[str, ...]
) -> None:
    lines = opened(name, 1200, "light").look["lines"]
    for word in words:
        places = [line["box"]["bottom"] for line in lines if word in line["text"]]
        assert places, f"{word!r} is not in {[line['text'] for line in lines]}"
        assert 0 < min(places) <= FIRST_SCREEN, word


def broken(browser: Browser, page: Path, tmp_path: Path, before: str, after: str) -> Seen:
    text = page.read_text(encoding="utf-8")
    assert text.count(before) == 1
    path = tmp_path / "broken.html"
    path.write_text(text.replace(before, after), encoding="utf-8")
    return browser.open(path)


def test_a_chart_that_cannot_be_drawn_is_seen(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    seen = broken(browser, pages["one"], tmp_path, '{"chart-balloon-0":', '{"chart-balloon-0": 1, "gone":')
    lost = [chart["id"] for chart in seen.look["charts"] if not chart["drawn"]]
    assert lost == ["chart-balloon-0"]


@pytest.mark.parametrize(
    "foreign",
    [
        '<img src="http://192.0.2.1/a.png">',  # refused by the page's own policy
        "<script>alert(1)</script>",
    ],
)
def test_what_a_page_must_not_do_is_seen(
    browser: Browser, pages: dict[str, Path], tmp_path: Path, foreign: str
) -> None:
    head = '<section id="conclusions"'
    assert broken(browser, pages["one"], tmp_path, head, f"{foreign}{head}").complaints
