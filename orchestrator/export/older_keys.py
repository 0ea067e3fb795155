"""Keys of JSON documents under the names that they had: printed beside the new ones for one version.

docs/json.md has the table; `python tests/unit/json_keys.py` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

REMOVED_IN: Final = "0.3"


@dataclass(frozen=True)
class OlderKey:
    """A key's older name; `values` are those that had other words under it."""

    name: str
    values: Mapping[str, str] = field(default_factory=dict)


_VERDICT: Final = OlderKey(
    "verdict",
    {
        "significant": "different",
        "not significant": "no difference detected",
        "identical in all trials": "the same in all trials",
        "too few boots": "too few boots to say",
    },
)
_COMPARISON: Final[Mapping[str, OlderKey]] = {
    "excluded": OlderKey("left_out"),
    "pairs[].metrics.*.significance": _VERDICT,
    "pairs[].lost_trials.significance": _VERDICT,
    "pairs[].lost_trials": OlderKey("lost"),
}
_BLOCKS: Final[Mapping[str, OlderKey]] = {
    "blocks_pinned": OlderKey("blocks_held"),
    "blocks_pinned_by_several": OlderKey("blocks_together"),
    "blocks_pinned_by_memmap_only": OlderKey("blocks_following"),
    "blocks_no_migration_target": OlderKey("blocks_no_room"),
}
_CLASS: Final[Mapping[str, OlderKey]] = {
    "sole_blocker": OlderKey("alone"),
    "freeable": OlderKey("frees"),
    "attributed": OlderKey("named"),
}
_PAIRS: Final[Mapping[str, OlderKey]] = {
    "snapshot_pairs[].allocated": OlderKey("made"),
    "snapshot_pairs[].touched_at_least": OlderKey("at_least"),
    "snapshot_pairs[].touched_at_most": OlderKey("at_most"),
    "snapshot_pairs[].unmapped": OlderKey("let_go"),
    "snapshot_pairs": OlderKey("steps"),
}


def _below(path: str, keys: Mapping[str, OlderKey]) -> dict[str, OlderKey]:
    return {f"{path}.{key}": older for key, older in keys.items()}


_SHOW: Final[Mapping[str, OlderKey]] = {
    "conclusions": OlderKey("answer"),
    "trials[].snapshots[].frames_changed": OlderKey("moved"),
    **_below("trials[].snapshots[]", _BLOCKS),
    **_below("trials[].blame[]", _CLASS),
    "expect[].expectation": OlderKey("words"),
    "gate.changes[].result": OlderKey("word"),
    "gate.tolerance": OlderKey("tolerated"),
    "attribution_check": OlderKey("confusion"),
    "attribution_check[].blocks_still_plugged": OlderKey("blocks_stayed"),
    "attribution_check[].contained": OlderKey("found"),
    "attribution_check[].attributed": OlderKey("named"),
    "attribution[].recall_attributed": OlderKey("recall_named"),
    "attribution[].precision_attributed": OlderKey("precision_named"),
    "model_check": OlderKey("foretold"),
    "model_check[].modelled_bytes": OlderKey("foretold_bytes"),
    "model_check[].relative_error": OlderKey("apart"),
}
_RUN: Final[Mapping[str, OlderKey]] = {**_SHOW, **_below("comparison", _COMPARISON)}

OLDER_KEYS: Final[Mapping[str, Mapping[str, OlderKey]]] = {
    "blame": {
        "snapshots[].frames_changed": OlderKey("moved"),
        "snapshots[].policies": OlderKey("counterfactuals"),
        **_below("snapshots[].regions[]", _BLOCKS),
        **_below("snapshots[].regions[].classes[]", _CLASS),
        "snapshots[].regions[].most_freeable": OlderKey("frees_most"),
        "snapshots[].regions[].plugged_blocks": OlderKey("held_blocks"),
        "snapshots[].regions[].plugged_blocks[].attributed_to": OlderKey("named"),
        "snapshots[].regions[].plugged_blocks[].sole_blocker": OlderKey("alone"),
    },
    "compare": _below("comparisons[]", _COMPARISON),
    "model compare": _PAIRS,
    "model replay": _PAIRS,
    "resume": _RUN,
    "run": _RUN,
    "show": _SHOW,
}
"""Of the document of each verb: its keys by path, and what they were called. `[]` is each item of a list, `*`
each value of a mapping."""


def with_older_keys(verb: str, document: Mapping[str, Any]) -> dict[str, Any]:  # whatever JSON has
    """The document of a verb as plain JSON, with each renamed key under its older name as well."""
    plain: dict[str, Any] = json.loads(json.dumps(document, default=str))
    for path, older in OLDER_KEYS.get(verb, {}).items():
        *above, key = path.split(".")
        for place in _places(plain, above):
            if key in place:
                value = place[key]
                place[older.name] = older.values.get(value, value) if older.values else value
    return plain


def _places(value: Any, path: list[str]) -> Iterator[dict[str, Any]]:
    """The objects at a path; none where there is nothing or null."""
    if not path:
        if isinstance(value, dict):
            yield value
        return
    first, *rest = path
    found: Any
    if first == "*":
        found = value.values() if isinstance(value, dict) else ()
    else:
        key = first.removesuffix("[]")
        inner = value.get(key) if isinstance(value, dict) else None
        found = (inner or ()) if key != first else (inner,)
    for one in found:
        yield from _places(one, rest)
