"""What the replay's benchmarks assert: it fails what it must in spite of noise; its table."""

from __future__ import annotations

import numpy as np
import pytest
from timed_pairs import FLOORS, TOLERANCE, Timed, table_lines

ROUNDS = 6
NOISE = 0.12  # of one round's time: a ratio of two has a standard deviation of 17 %, as was measured


def timed(times_default: float, times_tuned: float, seed: int, policy: str = "lru") -> Timed:
    """A program so many times as fast as libcachesim, with noise in every round."""
    rng = np.random.default_rng(seed)

    def rounds(seconds: float) -> tuple[float, ...]:
        return tuple((seconds * np.exp(rng.normal(0, NOISE, ROUNDS))).tolist())

    return Timed(policy, "lru", "uniform", 1_000_000, rounds(1), rounds(times_default), rounds(times_tuned))


@pytest.mark.parametrize("policy", [*FLOORS, "frequency"])
def test_another_simulator_against_itself_is_too_slow(policy: str) -> None:
    """The trivial rival: libcachesim in our place fails, for all but one policy against either table."""
    floors = 1 if policy == "generations" else 2
    assert all(len(timed(1, 1, seed, policy).too_slow()) == floors for seed in range(200))


def test_what_is_at_its_floor_is_not_too_slow_by_chance() -> None:
    default, tuned = FLOORS["lru"]
    missed = sum(bool(timed(default, tuned, seed).too_slow()) for seed in range(1000))
    assert missed < 50
    # And what got slower by twice the tolerance is.
    slower = 1 - 2 * TOLERANCE
    found = sum(bool(timed(default, tuned * slower, seed).too_slow()) for seed in range(1000))
    assert found > 950


def test_fast_against_one_rival_is_not_enough() -> None:
    (words,) = timed(20, 1, seed=0).too_slow()
    assert words.endswith("times libcachesim's lru, tuned, not 3")


def test_the_table_is_of_medians_over_all_cases() -> None:
    one = Timed("lru", "lru", "uniform, 10", 4_000_000, (1.0, 9.0, 2.0), (8.0, 8.0, 80.0), (6.0, 4.0, 4.0))
    other = Timed("lru", "lru", "scan, 20", 4_000_000, (2.0, 2.0, 2.0), (8.0, 8.0, 8.0), (4.0, 4.0, 4.0))
    rare = Timed("none", "lru", "scan, 20", 4_000_000, (1.0, 1.0, 1.0), (8.0, 8.0, 8.0), (4.0, 4.0, 4.0))
    head, units, *rows = [line.split() for line in table_lines([one, other, rare])]
    assert head[:4] == ["policy", "ours", "default", "tuned"]
    assert units == ["M/s"] * 3 + ["tuned", "(rounds)"]
    # 8 M requests in 2 + 2, 8 + 8 and 4 + 4 seconds; where least, 2 times as fast.
    assert rows[0] == ["lru", "2", "0.5", "1", "2", "2", "(0.44", "to", "6)", "uniform,", "10"]
    assert rows[1][:6] == ["none", "(lru)", "4", "0.5", "1", "4"]
