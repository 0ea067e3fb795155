"""What may be shown of what others wrote: no sign that a terminal acts on, or that hides or turns others."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from lxml import html

from orchestrator.printable import clean

_LINE_ENDS: Final = frozenset("\n")
_ACTS: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_METRIC: Final = re.compile(
    r'[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-zA-Z_][a-zA-Z0-9_]*="(\\[\\"n]|[^"\\\n])*",?)*\})?'
    r" (-?[0-9.e+-]+|[+-]Inf|NaN)( [0-9]+)?"
)


def must_be_harmless(text: str) -> None:
    """Raise AssertionError for a text that no terminal may get."""
    if text.isascii() and text.replace("\n", "").isprintable():
        return
    for sign in set(text) - _LINE_ENDS:
        assert unicodedata.category(sign) not in _ACTS, f"{sign!a} is shown: {around(text, sign)!a}"


def around(text: str, sign: str) -> str:
    """Where a sign stands."""
    at = text.index(sign)
    return text[max(at - 40, 0) : at + 40]


def must_be_page(text: str) -> None:
    """Raise AssertionError for a page with scripts, handlers or links that are not its own."""
    must_be_harmless(text.replace("\t", " "))
    page = html.fromstring(text.encode())
    for element in page.iter():
        for name, value in element.attrib.items():
            assert not name.lower().startswith("on"), f"{element.tag} has {name}={clean(value)}"
            if name.lower() in {"href", "src", "action", "formaction", "xlink:href"}:
                assert not re.match(r"\s*(javascript|vbscript|data:text)", value, re.IGNORECASE), clean(value)


def must_be_prometheus(text: str) -> None:
    """Raise AssertionError for what the text format has not."""
    must_be_harmless(text)
    for line in text.splitlines():
        assert line.startswith("#") or not line or _METRIC.fullmatch(line), (
            f"no line of metrics: {line[:120]!a}"
        )
