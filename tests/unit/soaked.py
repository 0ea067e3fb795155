"""What grew in a soak (`tox -e soak`): slopes over its trials, for the command and for docs/soak.md."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy import special

FILE: Final = Path(__file__).resolve().parents[2] / "results" / "reference" / "soak.json"

# A slope is that of means of blocks: memory goes in steps, so what trials show is not independent.
BLOCK: Final = 10
FEWEST: Final = 20
CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class Gauge:
    """What is looked at after each trial; `scale` makes of it what the table shows."""

    key: str
    title: str
    unit: str
    scale: float = 1.0


GAUGES: Final = (
    Gauge("anonymous_bytes", "memory of the process (RssAnon)", "KiB", 1 / 1024),
    Gauge("python_blocks", "objects of Python (sys.getallocatedblocks)", ""),
    Gauge("descriptors", "open files", ""),
    Gauge("threads", "threads", ""),
    Gauge("processes", "processes that it started", ""),
    Gauge("cache_bytes", "disk of the cache", "KiB", 1 / 1024),
    Gauge("runtime_bytes", "disk of the runtime folder", "KiB", 1 / 1024),
    Gauge("temporary_files", "temporary files", ""),
    Gauge("run_bytes", "disk of the run folder, which keeps each trial", "KiB", 1 / 1024),
    Gauge("seconds", "length of a trial", "s"),
)
# A run folder is there to grow; libvirt appends how each QEMU was started to its log, until the run ends.
GROWS_BY_DESIGN: Final = frozenset({"run_bytes", "runtime_bytes"})


@dataclass(frozen=True)
class Growth:
    """Of a gauge, in its unit: first and last block after the warm-up, and the slope for each trial."""

    gauge: Gauge
    first: float
    last: float
    slope: float
    low: float
    high: float

    @property
    def grows(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.low > 0

    @property
    def unit(self) -> str:
        """To put behind a number."""
        return f" {self.gauge.unit}" if self.gauge.unit else ""

    @property
    def told(self) -> str:
        """Whether it grows, in words."""
        if self.gauge.key in GROWS_BY_DESIGN:
            return "by design"
        return "yes" if self.grows else "no"


def warm_up(trials: int) -> int:
    """Trials until modules are imported, arenas of malloc are as large as they get, and caches are full."""
    return trials // 5


def block(trials: int) -> int:
    """Trials of a block: there are six at least."""
    return max(1, min(BLOCK, (trials - warm_up(trials)) // 6))


def growth(samples: Sequence[Mapping[str, float]], gauge: Gauge) -> Growth:
    """The slope of a gauge over trials, by least squares over means of blocks, with Student's interval.

    Of at least FEWEST trials. From the end: what does not fill a block is warm-up.
    """
    values = np.asarray([sample[gauge.key] for sample in samples], dtype=np.float64) * gauge.scale
    size = block(len(samples))
    blocks = (len(samples) - warm_up(len(samples))) // size
    means = values[len(values) - blocks * size :].reshape(blocks, size).mean(axis=1)
    at = np.arange(blocks) * float(size)
    slope, base = np.polyfit(at, means, 1)
    rest = means - (base + slope * at)
    spread = float(((at - at.mean()) ** 2).sum())
    t = float(special.stdtrit(blocks - 2, (1 + CONFIDENCE) / 2))
    half = t * math.sqrt(float((rest**2).sum()) / (blocks - 2) / spread)
    # What does not change has a slope of rounding errors.
    slope = 0.0 if np.ptp(means) == 0 else float(slope)
    half = 0.0 if np.ptp(means) == 0 else half
    return Growth(gauge, float(means[0]), float(means[-1]), slope, slope - half, slope + half)


def growths(samples: Sequence[Mapping[str, float]]) -> list[Growth]:
    """Of all gauges that were read."""
    return [growth(samples, gauge) for gauge in GAUGES if gauge.key in samples[0]]


def grown(found: Sequence[Growth]) -> list[Growth]:
    """What must not grow, and does."""
    return [one for one in found if one.grows and one.gauge.key not in GROWS_BY_DESIGN]


@cache
def soak() -> dict[str, Any]:
    """What the template needs; empty where no soak is committed."""
    if not FILE.exists():
        return {}
    found: dict[str, Any] = json.loads(FILE.read_text())
    trials = len(found["samples"])
    return {
        **found,
        "growths": growths(found["samples"]),
        "warm_up": warm_up(trials),
        "block": block(trials),
        "confidence": f"{CONFIDENCE:.0%}",
    }


def _short(value: float) -> str:
    """With three digits that count, and no fraction from a thousand on."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.3g}"


def _slope(value: float) -> str:
    return "0" if value == 0 else f"{value:+,.0f}" if abs(value) >= 10 else f"{value:+,.2g}"


FILTERS: Final[Mapping[str, Callable[..., str]]] = {
    "short": _short,
    "slope": _slope,
    "minutes": lambda seconds: f"{seconds / 60:.0f} minutes",
}


GLOBALS: Final[Mapping[str, object]] = {"soak": soak}
