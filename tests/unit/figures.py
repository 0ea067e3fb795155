"""Figures in README and docs: rendered from committed results, or declared as constants.

What was measured stands in a region, which a template of docs/figures/ renders from results/reference/:

    <!-- figures: NAME -->
    rendered from docs/figures/NAME.md.j2
    <!-- end figures -->

What was measured without a run folder is in results/reference/measurements.yaml, with its conditions; what
the model says, in results/reference/overcommit and guests.json (modelled.py); how fast it is, in
replay.json (replay_speed.py); what grows with trials, in soak.json (soaked.py); what came of faults, in
faults.json (campaign_page.py); what was fuzzed, in fuzz.json (fuzzed.py). What claims come of all
that is judged by orchestrator/claims (claims_page.py).

Every other number of a page, outside of code, is a constant: docs/figures/constants.yaml lists it with the
words about it, and why it needs no measurement. `python tests/unit/figures.py` renders all regions again.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import campaign_page
import claims_page
import fuzzed
import jinja2
import modelled
import reference
import replay_speed
import soaked
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "docs" / "figures"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_REGION = re.compile(r"(<!-- figures: ([a-z0-9-]+) -->\n)(.*?)(<!-- end figures -->)", re.DOTALL)
_NUMBER = re.compile(r"\d(?:[\d.,]*\d)?")
_WORD = r"[^\s|*\[\]()]*"
# Code, addresses of links, and markup say what is typed, or name something: they claim nothing. What
# series are is written from the code of probes (series_table.py).
_NO_PROSE = re.compile(
    r"<!-- series -->.*?<!-- end series -->"
    r"|```.*?```|`(?:[^`\n]|\n(?!\n))*`|\]\([^)\s]*\)|<!--.*?-->|^\|[-:| ]+\|$",
    re.DOTALL | re.MULTILINE,
)
_EXPRESSION = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_DECLARED = re.compile(r"\{# constants: (.*?) #\}\n?", re.DOTALL)


@dataclass(frozen=True)
class Fault:
    """What is wrong on a page, and where."""

    page: str
    what: str


def faults(page: str, text: str) -> Iterator[Fault]:
    """What of a page's figures is not what the committed results, or its declared constants, say."""
    for name, written in regions(text):
        try:
            rendered = render(name)
        except ValueError as error:
            yield Fault(page, f"region {name} cannot be rendered: {error}")
            continue
        if written != rendered:
            yield Fault(page, f"region {name} is not what docs/figures/{name}.md.j2 renders")
    if text.count("<!-- figures:") != len(regions(text)):
        yield Fault(page, "a region has no end")
    found, declared = Counter(constants(text)), Counter(declared_constants().get(page, ()))
    for phrase in (found - declared).elements():
        yield Fault(page, f"neither in a region nor a declared constant: {phrase!r}")
    for phrase in (declared - found).elements():
        yield Fault(page, f"a declared constant that is not there: {phrase!r}")


def regions(text: str) -> list[tuple[str, str]]:
    """Name and text of each region."""
    return [(match[2], match[3]) for match in _REGION.finditer(text)]


def constants(text: str) -> list[str]:
    """Each number outside of regions and code, with the words about it."""
    prose = re.sub(r"\s+", " ", _NO_PROSE.sub(" ", _REGION.sub(" ", text)))
    pattern = re.compile(rf"(?:({_WORD}) )?({_WORD}{_NUMBER.pattern}{_WORD})(?: ({_WORD}))?")
    return [" ".join(filter(None, match.groups())) for match in _each(pattern, prose)]


def _each(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Matches, each beginning after the number of the one before it: neighbours share words."""
    at = 0
    while match := pattern.search(text, at):
        yield match
        at = match.end(2)


@cache
def render(name: str) -> str:
    """A region from its template, ending with a newline.

    Raises ValueError for a number in the template that is neither computed nor declared, and for a figure
    that the committed results do not have.
    """
    source = (TEMPLATES / f"{name}.md.j2").read_text()
    undeclared = literals(source)
    if undeclared:
        raise ValueError(f"{name}.md.j2 has numbers that are neither computed nor declared: {undeclared}")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False)  # noqa: S701  # Markdown
    for module in (reference, modelled, replay_speed, soaked, fuzzed, claims_page, campaign_page):
        environment.filters |= module.FILTERS
        environment.globals |= module.GLOBALS
    return environment.from_string(_DECLARED.sub("", source)).render().strip("\n") + "\n"


def literals(source: str) -> list[str]:
    """Numbers of a template's own text that its `{# constants: a; b #}` does not declare."""
    declared = [phrase.strip() for found in _DECLARED.findall(source) for phrase in found.split(";")]
    text = _NO_PROSE.sub(" ", _EXPRESSION.sub(" ", source))
    for phrase in sorted(declared, key=len, reverse=True):
        text = text.replace(phrase, " ")
    return _NUMBER.findall(text)


@cache
def declared_constants() -> dict[str, list[str]]:
    """Constants of each page, in no order. In the file they stand under the reason why they need no run."""
    pages: Any = YAML(typ="safe").load(TEMPLATES / "constants.yaml") or {}
    return {
        page: [phrase for phrases in reasons.values() for phrase in phrases]
        for page, reasons in pages.items()
    }


def rewritten(text: str) -> str:
    """The page with every region rendered again; `faults` says why one could not be, which stays as it is."""

    def again(match: re.Match[str]) -> str:
        try:
            return f"{match[1]}{render(match[2])}{match[4]}"
        except ValueError:
            return match[0]

    return _REGION.sub(again, text)


def page_name(path: Path) -> str:
    """As constants.yaml has it: relative to the project."""
    return str(path.relative_to(ROOT))


def main() -> int:
    """Render all regions again, and tell what is left wrong."""
    left = []
    for path in PAGES:
        text = path.read_text()
        new = rewritten(text)
        if new != text:
            path.write_text(new)
            print(f"{page_name(path)}: rendered again")  # noqa: T201  # a program for people
        left += list(faults(page_name(path), new))
    for fault in left:
        print(f"{fault.page}: {fault.what}")  # noqa: T201  # as above
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
