"""What the model says, committed: results/reference/overcommit, guests.json and tlb.json, for templates.

`python tests/unit/modelled.py` makes all again: due when the model changes, which test_modelled.py notices;
`python tests/unit/modelled.py tlb` (or `guests`, or the name of a file of overcommit) one of them.
Beside an answer of `model overcommit` is what it takes the code little time to say again: one seed alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.analysis.arms import view_run
from orchestrator.analysis.huge_supply import FREE_OR_MOVABLE
from orchestrator.analysis.instruction_costs import instruction_costs
from orchestrator.analysis.model_check import ModelCheck, model_checks
from orchestrator.analysis.text import seconds
from orchestrator.model.cost import NOT_COUNTED, SHIPPED, CostRange, CostTable
from orchestrator.model.guest_tables import GuestTables
from orchestrator.model.overcommit import OvercommitResult, answers
from orchestrator.model.patterns import pattern_named
from orchestrator.model.policies import OverTrace
from orchestrator.model.rebuild import Rebuild, rebuild
from orchestrator.model.replay import EvictionAction
from orchestrator.model.tlb_access import ACCESSES
from orchestrator.report.overcommit import cost_words, counted, ranged
from orchestrator.retest.models import guest_named, guest_sizes
from orchestrator.retest.tlb import CPUS, tlb_document
from orchestrator.scenario.overcommit import OvercommitText, load_overcommit
from orchestrator.store import open_run
from orchestrator.store.costs_file import CostsFile, read_costs
from orchestrator.summary import load
from orchestrator.units import ENTRIES_PER_TABLE, GIB, format_size

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference"

# What is said again of each file, of one seed.
FIRST_SEED: Mapping[str, tuple[tuple[str, EvictionAction], ...]] = {
    "sparse": (("none", EvictionAction.DROP), ("lru", EvictionAction.DROP), ("lru", EvictionAction.COMPRESS)),
    "dense": (("empty", EvictionAction.DROP), ("pressure_random", EvictionAction.MIGRATE)),
    "idle": (("empty_all_levels", EvictionAction.SWAP), ("zero_page", EvictionAction.SWAP)),
    "order": (("generations", EvictionAction.SWAP), ("belady", EvictionAction.SWAP)),
}
_LONGEST_TITLE = 30  # of a group of metrics
_KEYS = ("policy", "action", "fit", "killed", "table_bytes_peak", "tables_kept_least", "added")
# The talk's two guests: 50 GiB touched once and discarded, and a Redis of 600 GiB.
_GUESTS = {"sparse": ("empty", "empty_all_levels"), "redis_churn": ("empty", "zero_page", "empty_all_levels")}


# What of a run is shown beside what claims are judged by.
TLB_POLICIES = ("empty", "empty_all_levels")


def scenario(name: str) -> OvercommitText:
    """What is asked in results/reference/overcommit/NAME.json."""
    return load_overcommit(ROOT / "scenarios" / "overcommit" / f"{name}.yaml")


def as_json(answer: OvercommitResult) -> dict[str, Any]:
    """An answer as `model overcommit --json` has it."""
    found: dict[str, Any] = json.loads(json.dumps({key: asdict(answer)[key] for key in _KEYS}))
    return found


def first_seed(name: str) -> list[dict[str, Any]]:
    """What the code says now of the first seed of some policies."""
    return [
        as_json(one)
        for one in answers(scenario(name).question, FIRST_SEED[name], CostTable.shipped(), seeds=1)
    ]


def sizes_of(name: str, guest: GuestTables) -> dict[str, Any]:
    """Bytes of a guest's tables, and what policies free of them."""
    return guest_sizes(guest, _GUESTS[name])


@cache
def committed(name: str) -> dict[str, Any]:
    """A file of results/reference by its name without `.json`."""
    found: dict[str, Any] = json.loads((REFERENCE / f"{name}.json").read_text())
    return found


@dataclass(frozen=True)
class Played:
    """One committed answer."""

    policy: str
    action: str
    came: int
    fit: CostRange
    killed: CostRange
    tables: CostRange
    mean: CostRange
    p99: CostRange

    @property
    def name(self) -> str:
        """As in the tables of the page: the action only where the policy takes tables in use."""
        return (
            f"`{self.policy}`, {self.action}"
            if OverTrace.named(self.policy).evicts_in_use
            else f"`{self.policy}`"
        )

    @property
    def alive(self) -> CostRange:
        """Guests that are not killed when all start."""
        killed = self.killed
        return CostRange(self.came - killed.high, self.came - killed.typical, self.came - killed.low)


def overcommit(name: str) -> list[Played]:
    """All answers of a file, in its order."""
    came = sum(guest.at_most for guest in scenario(name).guests.values())
    return [
        Played(
            one["policy"],
            one["action"],
            came,
            CostRange(**one["fit"]),
            CostRange(**one["killed"]),
            CostRange(**one["table_bytes_peak"]),
            CostRange(**one["added"]["mean"]),
            CostRange(**one["added"]["p99"]),
        )
        for one in committed(f"overcommit/{name}")["answers"]
    ]


def played(name: str, policy: str, action: str = "") -> Played:
    """One of them."""
    (found,) = [
        one for one in overcommit(name) if one.policy == policy and (not action or one.action == action)
    ]
    return found


def span(values: list[CostRange]) -> str:
    """From the least to the most of any of them, in whole things: `29 to 30`."""
    low, high = (f"{end:g}" for end in (min(one.low for one in values), max(one.high for one in values)))
    return low if low == high else f"{low} to {high}"


def cost_rows() -> Iterator[dict[str, str]]:
    """The shipped costs, as the page of an answer has them."""
    counts = instruction_costs(open_run(REFERENCE / "costs"))
    for cost in SHIPPED:
        words = cost_words(cost.unit, cost.value)
        row = {"name": cost.name, "words": words, "what": cost.what, "source": cost.source}
        found = counts.get(cost.name)
        if found:
            ends = f"{found.typical:,.0f} [{found.low:,.0f}, {found.high:,.0f}]"
            yield row | {"instructions": ends, "of": found.of}
        else:
            yield row | {"instructions": "not measured", "of": NOT_COUNTED[cost.name]}


def calibrated() -> CostsFile:
    """What was measured of the costs: results/reference/tables/costs.json."""
    return read_costs(REFERENCE / "tables" / "costs.json")


def sizes(snapshot: str, over: str = "") -> dict[int, int]:
    """Last-level user tables of guests of size 1, 2 and 4: in a snapshot, or what it has over another."""
    found = _sizes()
    counts = found[found["snapshot"] == snapshot].set_index("size")["user_leaves"]
    if over:
        counts -= found[found["snapshot"] == over].set_index("size")["user_leaves"]
    return {int(size): int(count) for size, count in zip(counts.index, counts, strict=True)}


def sizes_kernel() -> str:
    """Of all these guests."""
    (kernel,) = set(_sizes()["kernel"])
    return str(kernel)


def _sizes() -> pd.DataFrame:
    return pd.read_csv(ROOT / "tests" / "unit" / "live" / "sizes.csv")


def extrapolate(before: float, measured: float, factor: float) -> float:
    """Tables of a guest whose workload is `factor` times as large as a measured one.

    Assumes that what was there `before` the workload stays as it is and that what the workload added grows
    with its size. test_model_live.py checks it on guests of three sizes.
    """
    return before + (measured - before) * factor


def tlb_figure(cpu: str, access: str, huge: Sequence[float], levels: str, key: str) -> float:
    """A committed figure of 64 GiB, the median; `huge` is one of tlb.SHARES."""
    (row,) = [
        one
        for one in committed("tlb")["cpus"][cpu][access]
        if (one["guest_huge"], one["host_huge"]) == tuple(huge)
    ]
    return float(row[levels][key]["typical"])


def tlb_supply(access: str, what: str, key: str = "") -> CostRange:
    """A committed figure of the run's supply with a second level, or without `key` the share: mean and range
    over boots."""
    trials = committed("tlb")["run"]["trials"][access].values()
    rows = [one[what] for one in trials]
    values = [one["two_levels"][key]["typical"] if key else one["share"] for one in rows]
    return CostRange(min(values), sum(values) / len(values), max(values))


def rebuilt(name: str, settings: Mapping[str, str], lasts: int, after: Sequence[int]) -> Rebuild:
    """What `orchestrator model rebuild` says of a pattern that lasts some seconds, with its defaults."""
    trace = pattern_named(name, dict(settings)).trace(np.random.default_rng(0))

    def event(seconds: float) -> int:
        return -int(-seconds * len(trace) // lasts)

    return rebuild(trace, event(lasts / 2), [event(lasts / 2 + one) for one in after], ENTRIES_PER_TABLE)


def predicted(name: str) -> ModelCheck:
    """What `empty` would free in a reference run, and what another kernel had fewer."""
    run = open_run(REFERENCE / name)
    (row,) = model_checks(view_run(run, load(run)))
    return row


def shown(name: str, *groups: str) -> str:
    """Groups of metrics of the table that `orchestrator show` prints of a reference run, as `run` does."""
    lines = _printed("show", name)
    arms = [arm["name"] for arm in json.loads((REFERENCE / name / "plan.json").read_text())["arms"]]
    rows = [next(line for line in lines if line.split() == arms)]
    for group in groups:
        start = lines.index(group)
        length = next(at for at, line in enumerate(lines[start + 1 :], 1) if not line.startswith(" "))
        rows += [*lines[start : start + length], "..."]
    return "\n".join(rows)


def compared(name: str, group: str) -> str:
    """What `orchestrator compare` prints of a reference run, with one of its groups of metrics."""
    lines = _printed("compare", name)
    top = next(at for at, line in enumerate(lines) if " against " in line)
    start = lines.index(group)
    titles = [at for at, line in enumerate(lines) if at > start and line[:1].strip()]
    after = next(at for at in titles if len(lines[at]) > _LONGEST_TITLE)  # sentences below the table
    sentences = [textwrap.fill(line, 110) for line in lines[after:]]
    return "\n".join([*lines[top:start], *lines[start : titles[0]], "...", *sentences])


def _references(value: float) -> str:
    """Three digits that count, down to a thousandth: a run through memory hardly misses."""
    return "<0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


FILTERS: Mapping[str, Callable[..., str]] = {
    "counted": counted,
    "seconds": lambda value: ranged(value, seconds),
    "size": lambda value: format_size(value.typical if isinstance(value, CostRange) else value),
    "gib": lambda value: f"{value / GIB:,.1f} GiB",
    "span": span,
    "apart": lambda share: f"{100 * abs(share):.2g} %",
    "refs": _references,
    "refs_range": lambda value: f"{value.typical:.2f} ({value.low:.2f} to {value.high:.2f})",
    "share_range": lambda value: (
        f"{100 * value.typical:.1f} % ({100 * value.low:.1f} to {100 * value.high:.1f})"
    ),
}
GLOBALS: Mapping[str, object] = {
    "overcommit": overcommit,
    "played": played,
    "scenario": scenario,
    "costs": cost_rows,
    "calibrated": calibrated,
    "guests": lambda: committed("guests"),
    "sizes": sizes,
    "sizes_kernel": sizes_kernel,
    "extrapolate": extrapolate,
    "predicted": predicted,
    "rebuilt": rebuilt,
    "tlb": lambda: committed("tlb"),
    "tlb_cpus": CPUS,
    "tlb_figure": tlb_figure,
    "tlb_supply": tlb_supply,
    "tlb_rows": (FREE_OR_MOVABLE, *TLB_POLICIES),
    "compared": compared,
    "shown": shown,
}


def _printed(verb: str, name: str) -> list[str]:
    """Lines that `orchestrator VERB` prints of a reference run, on a terminal of 100 columns."""
    command = [sys.executable, "-m", "orchestrator", verb, str(REFERENCE / name)]
    environment = {**os.environ, "COLUMNS": "100", "PYTHONPATH": str(ROOT)}
    said = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [line.rstrip() for line in said.splitlines()]


def _made(name: str) -> dict[str, Any]:
    command = ["orchestrator", "model", "overcommit", f"scenarios/overcommit/{name}.yaml", "--json"]
    said = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    asked = scenario(name).model_dump(mode="json")
    return {
        **_head(" ".join(command)),
        "asked": asked,
        **json.loads(said.stdout),
        "first_seed": first_seed(name),
    }


def _head(command: str) -> dict[str, str]:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    return {"command": command, "commit": commit.stdout.strip()}


def main() -> None:
    """Make all of them again, or those that are named."""
    wanted = sys.argv[1:] or [*FIRST_SEED, "guests", "tlb"]
    for name in wanted:
        if name == "tlb":
            found = tlb_document(REFERENCE, ACCESSES, ("uniform", "hot"), TLB_POLICIES)
            _write("tlb", {**_head("python tests/unit/modelled.py tlb"), **found})
        elif name == "guests":
            sizes = {one: sizes_of(one, guest_named(one)) for one in _GUESTS}
            _write("guests", {**_head("python tests/unit/modelled.py guests"), **sizes})
        else:
            _write(f"overcommit/{name}", _made(name))


def _write(name: str, found: Mapping[str, Any]) -> None:
    (REFERENCE / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
