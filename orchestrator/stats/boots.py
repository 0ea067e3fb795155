"""The boot is the experimental unit: trials from one saved boot of a guest repeat a restore, not a guest.

What they share (where the kernel put its memory, in which order its services came up) is in all of them, and
no average over them is free of it. So trials average within a boot, and boots are what is counted.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final

import numpy as np

from orchestrator.stats.tests import Floats

FEWEST: Final = 5  # boots, or pairs of them, below which there is no interval, and nothing is said of guests


def averaged(values: Floats, boots: Sequence[Hashable]) -> Floats:
    """The mean of each boot, shape (..., boots), of values of trials, shape (..., trials).

    `boots` names the boot of each trial; means are in the order in which the boots first come.
    """
    if len(set(boots)) == len(boots):
        return values
    order = list(dict.fromkeys(boots))
    places = [np.array([boot == one for boot in boots]) for one in order]
    return np.stack([values[..., place].mean(axis=-1) for place in places], axis=-1)


def connected(pairs: Sequence[tuple[Hashable, Hashable]]) -> tuple[int, ...]:
    """The unit of each pair, given the boot of each side: pairs that share a boot of either side are one.

    A boot that is in two pairs moves both of them, so that they are not two pieces of evidence.
    """
    parent: dict[Hashable, Hashable] = {}

    def root(node: Hashable) -> Hashable:
        while parent.setdefault(node, node) != node:
            node = parent[node]
        return node

    # A side is part of the name: arms that share saved boots are each paired boot with boot.
    for first, second in pairs:
        parent[root((0, first))] = root((1, second))
    roots = [root((0, first)) for first, _ in pairs]
    numbers = {one: number for number, one in enumerate(dict.fromkeys(roots))}
    return tuple(numbers[one] for one in roots)
