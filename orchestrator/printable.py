"""Text of others made fit to be shown: a guest or a host may print what a terminal or a page would act on."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_NAME_LIMIT: Final = 120
_LINE_LIMIT: Final = 400
_BLANKS: Final = frozenset("\n\t\r\v\f")

# Control, format (bidi overrides, zero width), surrogate, private and unassigned characters: a guest
# that prints them could move the cursor, reorder the line or hide a part of it.
_UNPRINTABLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# ANSI escapes and other control characters, which a terminal would act on.
_ESCAPES: Final = re.compile(r"\x1b(\[[0-9;?!]*[ -/]*[@-~]|[@-Z\\-_])|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Lines as on a terminal: without escapes, which are dropped, and with the rest as in `clean`."""
    plain = _ESCAPES.sub("", text.replace("\r\n", "\n"))
    return plain if plain.isascii() else "".join(sign if sign in "\n\t" else _shown(sign) for sign in plain)


def clean(text: object, limit: int = _NAME_LIMIT) -> str:
    """`text` on one line, printable, and no longer than `limit` characters.

    What cannot be printed is replaced, not dropped: two names that differ still do.
    """
    raw = str(text)
    kept = "".join(_shown(character) for character in raw[: limit + 1])
    return kept if len(raw) <= limit else kept[: limit - 1] + "…"


def clean_block(text: str, limit: int = 4000) -> str:
    """Several lines, each as by `clean`; of what is too long, the end."""
    lines = text[-limit:].replace("\r\n", "\n").split("\n")
    return "\n".join(clean(line, _LINE_LIMIT) for line in lines)


def _shown(character: str) -> str:
    if character in _BLANKS:
        return " "
    return "\N{REPLACEMENT CHARACTER}" if unicodedata.category(character) in _UNPRINTABLE else character
