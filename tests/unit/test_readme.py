"""The commands and links of README and docs exist. Their figures: test_figures.py."""

from __future__ import annotations

import re
from pathlib import Path

import figures
import pytest

from orchestrator.cli.main import VERBS

USAGE = figures.ROOT / "docs" / "usage.md"
LINKS = [
    (figures.page_name(page), link)
    for page in figures.PAGES
    for link in re.findall(r"\]\(([^)#]+)", page.read_text())
]


@pytest.mark.parametrize("page", figures.PAGES, ids=figures.page_name)
def test_every_verb_it_names_exists(page: Path) -> None:
    assert _verbs(page) <= set(VERBS)


def test_readme_and_usage_name_the_verbs_of_every_day() -> None:
    assert "run" in _verbs(figures.ROOT / "README.md")
    assert {"run", "doctor", "clean"} <= _verbs(USAGE)


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_links_lead_somewhere(page: str, link: str) -> None:
    assert link.startswith("https://") or (figures.ROOT / page).parent.joinpath(link).exists()


def _verbs(page: Path) -> set[str]:
    """Verbs of lines of code that begin with `orchestrator`."""
    return set(re.findall(r"^(?:\./bootstrap )?orchestrator ([a-z]+)", page.read_text(), re.MULTILINE))
