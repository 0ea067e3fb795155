"""What a soak says of growth: a leak is found, and what only fluctuates is not taken for one."""

from __future__ import annotations

import numpy as np
import pytest
from soaked import FEWEST, GAUGES, Growth, block, grown, growth, growths, warm_up

MEMORY = GAUGES[0]
TRIALS = 200


def samples(slope: float, noise: float = 0.0, *, warm: float = 0.0, seed: int = 1) -> list[dict[str, float]]:
    """Bytes after each trial: in steps, as malloc takes them."""
    random = np.random.default_rng(seed)
    level = 1e8 + slope * np.arange(TRIALS) + noise * random.standard_normal(TRIALS)
    first = warm_up(TRIALS)
    level[:first] += warm * np.linspace(1, 0, first)
    return [{MEMORY.key: float(value), "descriptors": 12.0} for value in level]


def found(slope: float, noise: float, warm: float = 0.0) -> Growth:
    return growth(samples(slope, noise, warm=warm), MEMORY)


def test_a_leak_is_found_with_its_size() -> None:
    leak = found(4096.0, 1e5)
    assert leak.grows
    assert leak.low < 4.0 < leak.high
    assert [one.gauge.key for one in grown(growths(samples(4096.0, 1e5)))] == [MEMORY.key]


def test_what_fluctuates_does_not_grow() -> None:
    wrong = sum(growth(samples(0.0, 1e6, seed=seed), MEMORY).grows for seed in range(100))
    assert wrong <= 8, "a two-sided interval of 95 % is above 0 in one case of 40"


def test_warming_up_is_no_growth() -> None:
    assert not found(0.0, 1e4, warm=-5e7).grows


def test_what_stays_has_no_slope() -> None:
    still = next(one for one in growths(samples(1.0)) if one.gauge.key == "descriptors")
    assert (still.slope, still.low, still.high, still.grows) == (0.0, 0.0, 0.0, False)


def test_a_shrinking_process_does_not_grow() -> None:
    assert not found(-4096.0, 1e4).grows


@pytest.mark.parametrize("trials", [FEWEST, 33, 70, TRIALS])
def test_there_are_six_blocks_at_least(trials: int) -> None:
    assert (trials - warm_up(trials)) // block(trials) >= 6
    assert growth(samples(4096.0)[:trials], MEMORY).grows
