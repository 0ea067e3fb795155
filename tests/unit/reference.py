"""Committed reference runs, as templates of figures read them: values by boot, and how they are printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from components import Components, components
from ruamel.yaml import YAML

from orchestrator.analysis.arms import view_run
from orchestrator.analysis.attribution import (
    AttributionRow,
    attribution_check,
    attribution_rows,
    attributions,
)
from orchestrator.analysis.text import FORMATS, class_words
from orchestrator.metric import COST_PHASES
from orchestrator.model.frame_class import FrameClass
from orchestrator.records.versions import COLUMNS_2_TO_3
from orchestrator.stats import FEWEST, Difference, of_few
from orchestrator.store import open_run
from orchestrator.summary import CATALOGUE, METRIC, TrialSummary, load
from orchestrator.units import KIB, MIB, PAGE_BYTES
from orchestrator.verdict import Comparison, compare_arms, figures_of

ROOT = Path(__file__).resolve().parents[2] / "results" / "reference"

FRAME_CLASSES = frozenset(each.name.lower() for each in FrameClass)


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
    def interval(self) -> tuple[float, float] | None:
        """Student's 95 % interval of the mean over boots; None of fewer than five."""
        found = of_few(self.boots, range(len(self.boots)))
        return (found.low, found.high) if found else None

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
        boot = found["state"].fillna(found["trial"]) if "state" in found else found["trial"]
        return found.assign(boot=boot)

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

    @property
    def basis(self) -> str:
        """What its figures are means of, and whether there are intervals."""
        trials = {self.trials_of(arm) for arm in self.arms}
        boots = {self.boots(arm) for arm in self.arms}
        counted = [" or ".join(map(str, sorted(numbers))) for numbers in (trials, boots)]
        words = [
            f"{number} {noun}{'' if number == '1' else 's'}"
            for number, noun in zip(counted, ("trial", "boot"), strict=True)
        ]
        of = f"{words[0]} of {words[1]} in each arm"
        if min(boots) >= FEWEST:
            return f"means over boots with Student's 95 % interval ({of})"
        if max(boots) >= FEWEST:
            return (
                f"means over boots, with Student's 95 % interval for arms of at least {FEWEST} boots ({of}; "
                f"{sum(map(self.left_out, self.arms))} trials that were lost or did not settle are left out)"
            )
        return f"means, without an interval ({of}: at least {FEWEST} boots needed)"

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

    def freed(self, policy: str, arm: str, snapshot: str) -> Values:
        """Second-level tables that a policy would have freed, at a snapshot of each trial of an arm."""
        rows = pd.DataFrame(
            [
                {"trial": summary.trial, "tables": row.tables_freed}
                for summary in self._summaries
                for row in summary.second_level
                if (row.snapshot, row.policy) == (snapshot, policy)
            ]
        )
        joined = rows.merge(self._of_arm(arm)[["trial", "boot"]], on="trial")
        return Values(joined.groupby("boot")["tables"].mean())

    def difference(self, metric: str, first: str, second: str) -> Difference:
        """A headline metric of arm `second` minus that of `first`, as `orchestrator compare` has it."""
        (pair,) = (pair for pair in self._compared(first).pairs if pair.second.name == second)
        return pair.metrics[metric]

    @property
    def nested_metrics(self) -> list[str]:
        """Numeric metrics that every trial that counts has, but those that are chosen."""
        numeric = [metric.name for metric in CATALOGUE if metric.unit and not metric.given]
        there = [name for name in numeric if name in self.trials]  # a run has no column of a later metric
        return [name for name in there if self.trials[name].notna().all()]

    def nested(self, metric: str, arm: str) -> Components:
        """Of a metric's spread, what is between boots and what within one."""
        rows = self._of_arm(arm)
        return components([list(values) for _, values in rows.groupby("boot")[metric]])

    def of_class(self, column: str, arm: str, frame_class: str, snapshot: str) -> Values:
        """A count of blame.csv for a class of frames, in all regions: 0 in a trial that has none of them."""
        rows = self._read("blame")
        rows = rows[(rows["snapshot"] == snapshot) & rows["table"].isna()]
        trials = self._of_arm(arm)
        trials = trials[trials["trial"].isin(rows["trial"])]
        if frame_class not in FRAME_CLASSES:
            raise ValueError(f"{frame_class!r} is no class of frames")
        counts = rows[rows["frame_class"] == frame_class].groupby("trial")[column].sum()
        found = trials.assign(count=trials["trial"].map(counts).fillna(0))
        return Values(found.groupby("boot")["count"].mean())

    def expected(self, arm: str, snapshot: str) -> list[str]:
        """The classes of frames as which what was injected in an arm is to be found, the finest first."""
        rows = self._read("snapshots")
        rows = rows[(rows["snapshot"] == snapshot) & rows["trial"].isin(self._of_arm(arm)["trial"])]
        (classes,) = set(rows["expected"])
        return str(classes).split()

    @cached_property
    def attributions(self) -> list[AttributionRow]:
        """What `show` has under "Attribution check"."""
        rows = attribution_check(view_run(open_run(self.folder), self._summaries))
        return attribution_rows(attributions(rows), rows)

    def trials_where(self, arm: str, metric: str) -> int:
        """Trials of an arm in which a count was not zero."""
        return int((self._of_arm(arm)[metric] > 0).sum())

    def killed(self, arm: str) -> str:
        """Which processes OOM killers of an arm's guests ended, the most often first, in all its trials."""
        rows = self._read("oom_kills")
        rows = rows[(rows["of"] == "guest") & rows["trial"].isin(self._of_arm(arm)["trial"])]
        return ", ".join(f"{name} {count} times" for name, count in rows["comm"].value_counts().items())

    def killed_elsewhere(self) -> str:
        """Which processes an OOM killer of the host ended that were in no cgroup of a guest of this run."""
        if not (self.trials["host_cgroup_oom_kills"] == 0).all():  # nor is one missing
            raise ValueError("some were in the cgroup of a guest, or may have been")
        rows = self._read("oom_kills")
        rows = rows[rows["of"] == "host"]
        return ", ".join(
            f"{row['comm']} in {row['trial']} (a cgroup's memory had run out)"
            if row["out_of"] == "cgroup"
            else f"{row['comm']} in {row['trial']}"
            for _, row in rows.iterrows()
        )

    def prediction_error(self, *moments: str) -> float:
        """The most last-level tables by which needed (predicted) and measured are apart, in any trial."""
        rows = self._read("moments")
        rows = rows[rows["moment"].isin(moments) & rows["trial"].isin(self.trials["trial"])]
        return float((rows["second_level_bytes"] - rows["needed_bytes"]).abs().max()) / PAGE_BYTES

    @cached_property
    def _summaries(self) -> list[TrialSummary]:
        return load(open_run(self.folder))

    @cache  # noqa: B019  # as below. All metrics are compared at once, so that Holm's adjustment is right
    def _compared(self, base: str) -> Comparison:
        return compare_arms(figures_of(open_run(self.folder), self._summaries), base=base)

    def _of_arm(self, arm: str) -> pd.DataFrame:
        rows = self.trials[self.trials["arm"] == arm]
        if rows.empty:
            raise ValueError(f"no trial of arm {arm!r} counts")
        return rows

    @cache  # noqa: B019  # one for each reference, for as long as the tests run
    def _read(self, table: str) -> pd.DataFrame:
        rows = pd.read_csv(self.folder / f"{table}.csv")
        return rows.rename(columns=COLUMNS_2_TO_3.get(f"{table}.csv", {}))


@cache
def reference(name: str) -> Reference:
    """The reference run of that name."""
    return Reference(name)


def medians_apart(one: str, other: str, arm: str, metrics: Iterable[str]) -> float:
    """By how much the medians over boots of two runs differ at most, over these metrics: a share."""
    found = [
        abs(reference(other).metric(arm, metric).median / reference(one).metric(arm, metric).median - 1)
        for metric in metrics
    ]
    return max(found)


@cache
def measurements() -> dict[str, Any]:
    """Figures without a run folder: measurements.yaml."""
    found: dict[str, Any] = YAML(typ="safe").load(ROOT / "measurements.yaml")
    return found


def measured(name: str) -> str:
    """A figure of measurements.yaml with its unit, by its group, a dot, and its name."""
    group, _, key = name.partition(".")
    value = measurements()[group]["values"][key]
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def conditions(group: str) -> str:
    """How a group of measurements was made, in words."""
    words = (f"{name}: {value}" for name, value in measurements()[group]["conditions"].items())
    return "; ".join(words)


def _number(value: float | Values) -> float:
    return value.mean if isinstance(value, Values) else float(value)


def _printed(places: int, unit: str = "", scale: float = 1.0) -> Callable[[float | Values], str]:
    def write(value: float | Values) -> str:
        return f"{_number(value) / scale:,.{places}f}{unit}"

    return write


def _with_interval(places: int, unit: str = "", scale: float = 1.0) -> Callable[[Values], str]:
    def write(value: Values) -> str:
        mean, interval = f"{value.mean / scale:,.{places}f}", value.interval
        if interval is None:  # the page says why, by `basis`
            whole = scale == 1 and value.mean.is_integer()
            return f"{value.mean:,.0f}{unit}" if whole else f"{mean}{unit}"
        if interval[0] == interval[1]:  # an interval without width would claim that it cannot differ
            return f"{mean}{unit} (each boot)"
        low, high = (f"{end / scale:,.{places}f}" for end in interval)
        return f"{mean} [{low}, {high}]{unit}"

    return write


def _with_range(places: int, unit: str = "", scale: float = 1.0) -> Callable[[Values], str]:
    def write(value: Values) -> str:
        low, high = (f"{end / scale:,.{places}f}" for end in (value.low, value.high))
        return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"

    return write


def _mib_difference(value: Difference) -> str:
    """With its interval, and for use before a word that says which way."""
    if value.interval is None:
        return f"{value.estimate / MIB:,.1f} MiB"
    ends = f"[{value.interval.low / MIB:,.1f}, {value.interval.high / MIB:,.1f}]"
    return f"{value.estimate / MIB:,.1f} {ends} MiB"


def _in_unit(value: float, metric: str) -> str:
    unit = METRIC[metric].unit
    # Means of counts have tenths; of what rounds to nothing, no sign is left.
    return f"{round(value, 1) + 0.0:,.1f}" if unit == "count" else FORMATS[unit](value)


def _difference_in_unit(value: Difference, metric: str) -> str:
    if value.interval is None:
        return _in_unit(value.estimate, metric)
    low, high = (_in_unit(end, metric) for end in (value.interval.low, value.interval.high))
    return f"{_in_unit(value.estimate, metric)} [{low}, {high}]"


FILTERS: Mapping[str, Callable[..., str]] = {
    "mib": _printed(1, " MiB", MIB),
    "kib": _printed(0, " KiB", KIB),
    "n": _printed(0),
    "n1": _printed(1),
    "x": _printed(2),
    "percent": _printed(0, " %", 0.01),
    "percent1": _printed(1, " %", 0.01),
    "percent2": _printed(2, " %", 0.01),
    "percent3": _printed(3, " %", 0.01),
    "signed_percent": lambda value: f"{value:+.2%}".replace("%", " %"),
    "mib_ci": _with_interval(1, " MiB", MIB),
    "kib_ci": _with_interval(0, " KiB", KIB),
    "n_ci": _with_interval(1),
    "n0_ci": _with_interval(0),
    "x_ci": _with_interval(2),
    "mib_range": _with_range(1, " MiB", MIB),
    "kib_range": _with_range(0, " KiB", KIB),
    "n_range": _with_range(0),
    "x_range": _with_range(2),
    "x4_range": _with_range(4),
    "mib0_range": _with_range(0, " MiB", MIB),
    "mib_difference": _mib_difference,
    "in_unit": _in_unit,
    "difference_in_unit": _difference_in_unit,
    "class_words": class_words,
}
GLOBALS: dict[str, object] = {
    "run": reference,
    "measured": measured,
    "conditions": conditions,
    "page_bytes": PAGE_BYTES,
    "phases": COST_PHASES,
    "medians_apart": medians_apart,
}
