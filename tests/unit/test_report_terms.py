"""The terms of the page are those of docs/glossary.md, and a page has those that it uses."""

from __future__ import annotations

import re

import figures
import pytest

from orchestrator.report.terms import TERMS, Term, terms_in

GLOSSARY = (figures.ROOT / "docs" / "glossary.md").read_text()
# Of its tables of four columns: our word, and what it means, without markup.
ENTRIES = {
    cells[0]: cells[2]
    for line in GLOSSARY.splitlines()
    if line.startswith("| ")
    if len(cells := [cell.strip() for cell in re.sub(r"[`*]", "", line).strip("|").split("|")]) == 4
}


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.word)
def test_each_says_what_the_glossary_says(term: Term) -> None:
    assert ENTRIES.get(term.word) == term.meaning, "write it as docs/glossary.md has it"


def test_those_that_a_page_has_in_its_text() -> None:
    text = "<p class='warm'>3 blocks are <b>pinned</b></p><style>.snapshot {}</style><td>sole\nblocker</td>"
    assert [term.word for term in terms_in(text)] == ["device block, block", "pinned block", "sole blocker"]
    assert terms_in("<p>unblocked</p>") == []
