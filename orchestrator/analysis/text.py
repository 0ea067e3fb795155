"""Words and numbers for people. What guests said is bounded and made printable here."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Final

from orchestrator import printable
from orchestrator.units import format_duration, format_size

_MILLI: Final = 1e-3
_MICRO: Final = 1e-6
_ROUNDED_FROM: Final = 100  # a rate of this and more needs no decimals
_CONSOLE_BYTES: Final = 8192
_CONSOLE_LINES: Final = 24

clean, clean_block = printable.clean, printable.clean_block


def console_tail(path: Path) -> str:
    """The last lines of a guest's serial console, or nothing."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _CONSOLE_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return clean_block("\n".join(text.rstrip().splitlines()[-_CONSOLE_LINES:]), _CONSOLE_BYTES)


def size(value: float) -> str:
    """Bytes."""
    return format_size(value)


def count(value: float) -> str:
    """Whole things, by thousands."""
    return f"{value:,.0f}"


def counted(n: int, thing: str) -> str:
    """`1 boot`, `5 boots`."""
    return f"{count(n)} {thing}{'' if n == 1 else 's'}"


def seconds(value: float) -> str:
    """Seconds, down to microseconds."""
    if 0 < abs(value) < _MILLI:
        return f"{value / _MICRO:.3g} µs"
    if 0 < abs(value) < 1:
        return f"{value / _MILLI:.3g} ms"
    return format_duration(value)


def rate(value: float) -> str:
    """Operations per second."""
    return f"{value:,.0f} /s" if abs(value) >= _ROUNDED_FROM else f"{value:.3g} /s"


_CLASS_WORDS: Final = {
    "absent": "not present",
    "offline": "unplugged or in the balloon",
    "cpu_list": "free, on a PCP list",
    "page_cache": "page cache",
    "anonymous": "anonymous memory",
    "shmem": "tmpfs",
    "hugetlb": "hugetlb pages",
    "mlocked": "mlocked memory",
    "pinned": "DMA-pinned memory",
    "page_table": "page tables",
    "second_level": "second-level tables",
    "kernel_stack": "kernel stacks",
    "memmap": "memmap",
    "network": "network buffers",
    "kernel": "other kernel memory",
    "reserved": "reserved memory",
    "zero_page": "zero pages",
    "hwpoison": "poisoned memory",
    "unknown": "unknown (no page flag)",
}


def class_words(name: str) -> str:
    """A class of frames for people; `name` as in FrameClass, in either case."""
    return _CLASS_WORDS.get(name.lower(), clean(name.lower().replace("_", " "), 40))


def instructions(value: float) -> str:
    """To four digits or, from 1,000 on, whole; what they are is in the heading of the metrics."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.4g}"


FORMATS: Final[dict[str, Callable[[float], str]]] = {
    "bytes": size,
    "count": count,
    "seconds": seconds,
    "1/s": rate,
    "instructions": instructions,
}


def quantity(value: float, unit: str) -> str:
    """A number with its unit; unknown units are appended."""
    known = FORMATS.get(unit)
    return known(value) if known else f"{value:,.6g} {clean(unit, 16)}".strip()


def signed(value: float) -> str:
    """A number with its sign, to three digits or, from 100 on, four; never with an exponent."""
    if not value:
        return "0"
    if abs(value) >= 1000:
        return f"{value:+,.0f}"
    digits = 3 if abs(value) < 100 else 4
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:+.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(part: float, whole: float) -> str:
    """`part` of `whole`, which is not 0; never 100 % or 0 % of what is nearly so."""
    share = 100 * part / whole
    if 0 < share < 1:
        return f"{share:.2g} %"
    if 0 < 100 - share < 1:
        return f"{min(share, 99.99):.4g} %"
    return f"{share:.0f} %"
