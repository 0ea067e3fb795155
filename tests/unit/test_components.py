"""What is between boots and what within one, on made-up boots of known spread."""

from __future__ import annotations

import numpy as np
import pytest
from components import components


@pytest.mark.parametrize(("between", "within"), [(0.0, 1.0), (0.5, 1.0), (3.0, 1.0), (1.0, 0.0)])
def test_the_spread_that_was_put_in_is_found(between: float, within: float) -> None:
    rng = np.random.default_rng(3)
    found = [
        components(100 + rng.normal(0, between, (5, 1)) + rng.normal(0, within, (5, 2))) for _ in range(4000)
    ]
    # Cut off at 0, so of the square: unbiased where boots differ, and no more than its own error where not.
    assert np.mean([one.within**2 for one in found]) == pytest.approx(within**2, rel=0.05, abs=1e-12)
    mean = np.mean([one.between**2 for one in found])
    assert mean == pytest.approx(between**2, rel=0.1, abs=0.35 * within**2)


def test_boots_of_unequal_numbers_of_trials() -> None:
    rng = np.random.default_rng(4)
    sizes = (1, 2, 4, 8, 1, 3)
    found = [
        components(
            [boot + rng.normal(0, 1, size) for boot, size in zip(rng.normal(0, 2, 6), sizes, strict=True)]
        )
        for _ in range(3000)
    ]
    assert np.mean([one.between**2 for one in found]) == pytest.approx(4, rel=0.1)


def test_what_never_varies_has_no_spread() -> None:
    one = components([[5.0, 5.0], [5.0, 5.0]])
    assert (one.between, one.within, one.mean) == (0.0, 0.0, 5.0)


def test_what_differs_between_boots_alone_is_all_theirs() -> None:
    one = components([[1.0, 1.0], [3.0, 3.0]])
    assert one.within == 0.0
    assert one.between == pytest.approx(2**0.5)


@pytest.mark.parametrize("by_boot", [[], [[1.0, 2.0]], [[1.0], [2.0], [3.0]]])
def test_what_is_no_nested_design_is_refused(by_boot: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="at least two boots"):
        components(by_boot)
