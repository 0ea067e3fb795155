"""The README's commands and links exist. Its figures: test_figures.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.cli.main import VERBS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_every_verb_it_names_exists() -> None:
    named = set(re.findall(r"^(?:\./bootstrap )?orchestrator ([a-z]+)", README, re.MULTILINE))
    assert named <= set(VERBS)
    assert {"run", "doctor", "clean"} <= named


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
