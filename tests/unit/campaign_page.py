"""What docs/reliability.md has of the campaign of faults, from results/reference/faults.json."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "faults"))
from campaign.fault import load_faults  # beside the faults

FILE = Path(__file__).resolve().parents[2] / "results" / "reference" / "faults.json"
_GROUPS = {
    "none": "No fault",
    "guest": "The guest",
    "host processes": "QEMU, passt and libvirt",
    "ourselves": "The orchestrator itself",
    "machine": "The machine",
    "other hosts": "Other hosts",
    "packages": "Debian's mirror",
}
# Of what is printed, what tells one phase from another.
_PHASES = {
    "before the steps: ": "before the steps",
    "snapshot": "snapshot",
    "unplug": "unplug",
    "plug to": "plug",
    "the balloon": "balloon",
    "start ": "start of a workload",
    "bootstrap: ": "./bootstrap",
    "guest image": "image",
    "booting and saving": "boot and save",
    ": boot": "boot and save",
    "saved": "boot and save",
}


@cache
def _file() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


def campaign() -> dict[str, Any]:
    """What the templates need."""
    found = _file()
    rows = found["rows"]
    groups = [(title, [row for row in rows if row["group"] == name]) for name, title in _GROUPS.items()]
    return {
        "cold_kills": {},
        **found,
        "groups": [(title, members) for title, members in groups if members],
        "survived": sum(bool(row["survived"]) for row in rows),
        "not_played": sorted(load_faults().keys() - {row["name"] for row in rows}),
        "commits": sorted({_short(row["commit"]) for row in rows}),
        "first": min(row["at"] for row in rows)[:16].replace("T", " "),
        "last": max(row["at"] for row in rows)[:16].replace("T", " "),
    }


def _short(commit: str) -> str:
    name, changed, _ = commit.partition("-dirty")
    return name[:12] + changed


def left(row: Mapping[str, Any]) -> str:
    """What was left, as the table has it."""
    if not row["left"]:
        return "nothing"
    kinds = Counter(one.partition(":")[0] for one in row["left"])
    words = ", ".join(f"{kind} ({count})" for kind, count in sorted(kinds.items()))
    if row["deadline_seconds"] and not row["left_by_clean"] and _by_clean(row):
        return f"nothing after `clean`, which ended: {words}"
    return words


def phases(kills: Sequence[Mapping[str, Any]]) -> str:
    """What was going on when they hit, by what was printed last: each with how often."""
    counts = Counter(_phase(one["doing"]) for one in kills)
    return ", ".join(f"{phase} ({count})" for phase, count in sorted(counts.items()))


def _phase(doing: str) -> str:
    doing = re.sub(r"^\d+ s +", "", doing)
    for text, phase in _PHASES.items():
        if text in doing:
            return phase
    step = re.search(r"step \d+ of \d+: (\w+ ?\w*)", doing)
    return step[1] if step else cell(doing)


def _by_clean(row: Mapping[str, Any]) -> bool:
    return not any(wrong.startswith("left") for wrong in row["wrong"])


def came_out(row: Mapping[str, Any]) -> str:
    """Whether it was survived, and what is wrong where it was not."""
    return "" if row["survived"] else f"**not survived**: {cell('; '.join(row['wrong']))}"


def cell(text: str) -> str:
    """Text in a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


FILTERS: Mapping[str, Callable[..., str]] = {
    "left": left,
    "came_out": came_out,
    "cell": cell,
    "phases": phases,
}
GLOBALS: Mapping[str, object] = {"campaign": campaign}
