"""The man page is what the command line says, and troff reads it as text."""

from __future__ import annotations

import re

from man_page import PAGE, man_page

from orchestrator.cli.main import VERBS


def test_the_page_is_that_of_this_command_line() -> None:
    assert PAGE.read_text(encoding="utf-8") == man_page(), "python tests/unit/man_page.py writes it"


def test_every_verb_and_code_is_in_it() -> None:
    text = man_page().replace("\\-", "-")
    assert set(re.findall(r"^\.SS orchestrator (\w+)", text, re.MULTILINE)) == set(VERBS)
    assert ".SS orchestrator model replay [OPTIONS] TRACE|RUN" in text
    assert "lab keep" not in text, "it is hidden"
    for code in ("0", "1", "2", "3", "130"):
        assert f"\n\\fB{code}\\fR\n" in text


def test_nothing_in_it_is_taken_for_a_request() -> None:
    lines = man_page().splitlines()
    requests = {line.split()[0] for line in lines if line.startswith((".", "'"))}
    assert requests <= {".TH", ".SH", ".SS", ".PP", ".TP", ".B", ".nf", ".fi"}
    assert not any(mark in line for line in lines for mark in ("\b", "\t"))
