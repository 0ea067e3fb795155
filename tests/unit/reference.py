"""Committed reference runs, as templates of figures read them: values by boot, and how they are printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.stats import FEWEST, of_few
from orchestrator.units import KIB, MIB, PAGE_BYTES

ROOT = Path(__file__).resolve().parents[2] / "results" / "reference"


class Values:
    """A figure in each boot of an arm: the mean of that boot's trials. Shape (boots,)."""

    def __init__(self, by_boot: pd.Series) -> None:
        if by_boot.empty or by_boot.isna().all():
            raise ValueError("there is no such figure in the reference run")
        self.boots = by_boot.dropna().to_numpy(dtype=np.float64)

    def __len__(self) -> int:
        return len(self.boots)

    @property
    def mean(self) -> float:
        return float(self.boots.mean())

    @property
    def median(self) -> float:
        return float(np.median(self.boots))

    @property
    def low(self) -> float:
        return float(self.boots.min())

    @property
    def high(self) -> float:
        return float(self.boots.max())

    @property
    def interval(self) -> tuple[float, float]:
        """Student's 95 % interval of the mean over boots; of fewer than five there is none to print."""
        if len(self) < FEWEST:
            raise ValueError(f"{len(self)} boots: an interval needs {FEWEST}")
        found = of_few(self.boots)
        assert found is not None
        return found.low, found.high

    def over(self, other: Values) -> Values:
        """The ratio, boot by boot."""
        return Values(pd.Series(self.boots / other.boots))

    def less(self, other: Values) -> Values:
        """The difference, boot by boot."""
        return Values(pd.Series(self.boots - other.boots))


class Reference:
    """A folder of results/reference."""

    def __init__(self, name: str) -> None:
        self.folder = ROOT / name

    @cached_property
    def meta(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "meta.json").read_text())
        return found

    @cached_property
    def plan(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "plan.json").read_text())
        return found

    @cached_property
    def trials(self) -> pd.DataFrame:
        """The trials that count, with the boot that each started from."""
        found = self._read("summary")
        if "left_out" in found:  # not in schema version 1
            found = found[found["left_out"].isna()]
        return found.assign(boot=found["state"].fillna(found["trial"]))

    @property
    def arms(self) -> list[str]:
        return [str(arm["name"]) for arm in self.plan["arms"]]

    def kernel(self, arm: str) -> str:
        """What `uname -r` says in the guests of an arm."""
        (release,) = set(self._of_arm(arm)["kernel_release"])
        return str(release)

    def boots(self, arm: str) -> int:
        return int(self._of_arm(arm)["boot"].nunique())

    def trials_of(self, arm: str) -> int:
        return len(self._of_arm(arm))

    def left_out(self, arm: str) -> int:
        """Trials that do not count."""
        found = self._read("summary")
        return int(((found["arm"] == arm) & found["left_out"].notna()).sum())

    def metric(self, arm: str, metric: str) -> Values:
        """A headline metric of summary.csv."""
        rows = self._of_arm(arm)
        return Values(rows.groupby("boot")[metric].mean())

    def of(self, table: str, column: str, arm: str, **key: str) -> Values:
        """A column of another table, in the rows that `key` selects: one for each trial."""
        rows = self._read(table)
        for name, value in key.items():
            rows = rows[rows[name].astype(str) == value]
        joined = rows.merge(self._of_arm(arm)[["trial", "boot"]], on="trial")
        if joined["trial"].duplicated().any():
            raise ValueError(f"{key} selects several rows of a trial")
        return Values(joined.groupby("boot")[column].mean())

    def prediction_error(self, *moments: str) -> float:
        """The most last-level tables by which needed (predicted) and measured are apart, in any trial."""
        rows = self._read("moments")
        rows = rows[rows["moment"].isin(moments) & rows["trial"].isin(self.trials["trial"])]
        return float((rows["second_level_bytes"] - rows["needed_bytes"]).abs().max()) / PAGE_BYTES

    def _of_arm(self, arm: str) -> pd.DataFrame:
        rows = self.trials[self.trials["arm"] == arm]
        if rows.empty:
            raise ValueError(f"no trial of arm {arm!r} counts")
        return rows

    @cache  # noqa: B019  # one for each reference, for as long as the tests run
    def _read(self, table: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / f"{table}.csv")


@cache
def reference(name: str) -> Reference:
    """The reference run of that name."""
    return Reference(name)


def _number(value: float | Values) -> float:
    return value.mean if isinstance(value, Values) else float(value)


def _printed(places: int, unit: str = "", scale: float = 1.0) -> Callable[[float | Values], str]:
    def write(value: float | Values) -> str:
        return f"{_number(value) / scale:,.{places}f}{unit}"

    return write


def _with_interval(places: int, unit: str = "", scale: float = 1.0) -> Callable[[Values], str]:
    def write(value: Values) -> str:
        low, high = value.interval
        ends = f"[{low / scale:,.{places}f}, {high / scale:,.{places}f}]"
        return f"{value.mean / scale:,.{places}f} {ends}{unit}"

    return write


def _with_range(places: int, unit: str = "", scale: float = 1.0) -> Callable[[Values], str]:
    def write(value: Values) -> str:
        low, high = (f"{end / scale:,.{places}f}" for end in (value.low, value.high))
        return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"

    return write


FILTERS: Mapping[str, Callable[..., str]] = {
    "mib": _printed(1, " MiB", MIB),
    "kib": _printed(0, " KiB", KIB),
    "n": _printed(0),
    "n1": _printed(1),
    "x": _printed(2),
    "percent": _printed(0, " %", 0.01),
    "percent1": _printed(1, " %", 0.01),
    "mib_ci": _with_interval(1, " MiB", MIB),
    "kib_ci": _with_interval(0, " KiB", KIB),
    "n_ci": _with_interval(1),
    "x_ci": _with_interval(2),
    "mib_range": _with_range(1, " MiB", MIB),
    "kib_range": _with_range(0, " KiB", KIB),
    "n_range": _with_range(0),
    "x_range": _with_range(2),
}
