"""Inputs made from others, by what knows lines, numbers, texts and nesting, beside libFuzzer's own ways."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Final

HOSTILE_WORDS: Final = (
    *(
        "-1",
        "0",
        "1e999",
        "-1e308",
        "NaN",
        "Infinity",
        "null",
        "true",
        "[]",
        "{}",
        '""',
        "0x10",
        "1_0",
        ".inf",
        "~",
    ),
    *(
        "18446744073709551615",
        "9223372036854775808",
        "-9223372036854775809",
        "4294967296",
        "1" * 400,
        "9" * 5000,
    ),
    *(
        "../../../etc/passwd",
        "/etc/passwd",
        ".",
        "..",
        "a/b",
        "\\u0000",
        "\\ud800",
        "\\u202e",
        "\x1b[2J",
        "\x1b]8;;http://x\x07",
    ),
    *(
        "\x9b31m",
        "\u202e",
        "\u200b",
        "\ufeff",
        "\u2028",
        "<script>alert(1)</script>",
        "</script>",
        "[red]x[/]",
        "{{7*7}}",
    ),
    *("\r", "\r\n", "\t", "\0", "'", '"', "\\", "%s", "=1+1", "\u0660", "\u00b2", "A" * 3000),
)
_NUMBER: Final = re.compile(rb"-?[0-9][0-9.eE+-]*")
_TEXT: Final = re.compile(rb'"(?:[^"\\\n]|\\.){0,200}"')
_SCALAR: Final = re.compile(rb"(?<=: )[^\n{}\[\],]{1,80}|(?<=,)[^\n,]{1,80}(?=,)")
_KEY: Final = re.compile(rb"[A-Za-z_][A-Za-z0-9_.-]{1,40}(?=:|\")")
_PATTERNS: Final = (_NUMBER, _TEXT, _SCALAR, _KEY)


def mutated(data: bytes, most: int, seed: int, plainly: Callable[[bytes, int], bytes]) -> bytes:
    """Another input of at most `most` bytes; `plainly` is the fuzzer's own way to make one."""
    chance = random.Random(seed)  # noqa: S311  # nothing secret
    if chance.random() < 0.4:
        return plainly(data, most)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        data = chance.choice(_WAYS)(data, chance)
    return data[:most]


def _hostile(chance: random.Random) -> bytes:
    return chance.choice(HOSTILE_WORDS).encode("utf-8", "surrogatepass")


def _replaced(data: bytes, chance: random.Random) -> bytes:
    """One number, text, scalar or key is another one, of here or hostile."""
    places = list(chance.choice(_PATTERNS).finditer(data))
    if not places:
        return _inserted(data, chance)
    place = chance.choice(places)
    word = _hostile(chance) if chance.random() < 0.7 else chance.choice(places)[0]
    if place[0].startswith(b'"') and not word.startswith(b'"') and chance.random() < 0.7:
        word = b'"' + word.replace(b'"', b"'") + b'"'
    return data[: place.start()] + word + data[place.end() :]


def _inserted(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + _hostile(chance) + data[at:]


def _of_lines(data: bytes, chance: random.Random) -> bytes:
    """A line more, less, or at another place."""
    lines = data.split(b"\n")
    at, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    way = chance.randrange(4)
    if way == 0:
        lines.insert(other, lines[at])
    elif way == 1 and len(lines) > 1:
        del lines[at]
    elif way == 2:
        lines[at], lines[other] = lines[other], lines[at]
    else:
        lines[at : at + 1] = [lines[at]] * chance.choice((2, 3, 50))
    return b"\n".join(lines)


def _cut(data: bytes, chance: random.Random) -> bytes:
    first, last = sorted((chance.randrange(len(data) + 1), chance.randrange(len(data) + 1)))
    return data[:first] + data[last:] if chance.random() < 0.5 else data[:last]


def _nested(data: bytes, chance: random.Random) -> bytes:
    """Something in brackets, and those in others: a parser that calls itself runs out of stack."""
    depth = chance.choice((1, 2, 60, 600, 3000))
    opened, closed = chance.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"{a: ", b"}"), (b"- ", b"")))
    places = list(chance.choice(_PATTERNS).finditer(data))
    if not places:
        return opened * depth + data + closed * depth
    place = chance.choice(places)
    return data[: place.start()] + opened * depth + place[0] + closed * depth + data[place.end() :]


_WAYS: Final = (_replaced, _replaced, _replaced, _inserted, _of_lines, _of_lines, _cut, _nested)
