"""Every figure of README and docs is what the committed results say, and none can change unseen."""

from __future__ import annotations

import re

import figures
import pytest

PAGES = {figures.page_name(path): path for path in figures.PAGES}
_DIGITS = re.compile(r"\d(?:[\d.,]*\d)?")


@pytest.mark.parametrize("page", PAGES)
def test_every_figure_is_rendered_from_results_or_declared(page: str) -> None:
    assert list(figures.faults(page, PAGES[page].read_text())) == []


@pytest.mark.parametrize("page", PAGES)
def test_each_figure_that_is_changed_is_caught(page: str) -> None:
    """Each number outside of code, in turn: another one in its place is a fault."""
    text = PAGES[page].read_text()
    spans = [match.span() for match in figures._NO_PROSE.finditer(text)]
    code = [span for span in spans if not text[slice(*span)].startswith("|")]
    changed = 0
    for number in _DIGITS.finditer(text):
        if any(start <= number.start() < end for start, end in code):
            continue
        digit = str((int(number[0][0]) + 1) % 10)
        mutant = text[: number.start()] + digit + text[number.start() + 1 :]
        assert any(figures.faults(page, mutant)), (
            f"{number[0]} at {number.start()} changed, and nothing said so"
        )
        changed += 1
    assert changed or not figures.constants(text)


def test_a_template_may_not_smuggle_a_number() -> None:
    assert figures.literals("{{ run('x')|n }} of 2 MiB blocks, 1,412 stayed") == ["2", "1,412"]
    declared = "{# constants: 2 MiB #}\n{{ run('x')|n }} of 2 MiB blocks"
    assert figures.literals(declared) == []


def test_a_constant_has_its_words_about_it() -> None:
    assert figures.constants("at most 24 GiB, `code 5`, [8 ways](x9.md) and 6.12") == [
        "most 24 GiB,",
        "8 ways",
        "and 6.12",
    ]


@pytest.mark.parametrize("template", sorted(path.name for path in figures.TEMPLATES.glob("*.md.j2")))
def test_each_template_is_used(template: str) -> None:
    used = {name for path in PAGES.values() for name, _ in figures.regions(path.read_text())}
    assert template.removesuffix(".md.j2") in used


def test_rendering_again_changes_nothing() -> None:
    for path in PAGES.values():
        text = path.read_text()
        assert figures.rewritten(text) == text
