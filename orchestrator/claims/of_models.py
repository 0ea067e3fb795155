"""Evidence in documents of models: what `model overcommit` said, and the tables of synthetic guests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.claims.committed import Committed
from orchestrator.claims.evidence import Sampled, Source
from orchestrator.claims.figure import Sample
from orchestrator.errors import BadInputError
from orchestrator.observation import Origin

_ENDS: Final = ("low", "typical", "high")


@dataclass(frozen=True)
class OvercommitFigure(Sampled):
    """What `model overcommit` said of a policy: `killed`, `fit`, `table_bytes_peak`, or `added.mean` and
    `added.p99` in seconds. `action` is empty where the file has the policy once."""

    file: str
    policy: str
    action: str
    key: str

    @property
    def origin(self) -> Origin:
        return Origin.MODELLED

    @property
    def sources(self) -> tuple[Source, ...]:
        return (Source(f"overcommit/{self.file}"),)

    def sample(self, committed: Committed) -> Sample:
        document = committed.document(f"overcommit/{self.file}")
        rows = [
            one
            for one in document["answers"]
            if one["policy"] == self.policy and self.action in {"", one["action"]}
        ]
        if len(rows) != 1:
            what = f"policy {self.policy}" + (f" with {self.action}" if self.action else "")
            raise BadInputError(f"results/reference/overcommit/{self.file}.json has {what} {len(rows)} times")
        found = _at(rows[0], self.key)
        return Sample({end: float(found[end]) for end in _ENDS}, of_boots=False)


@dataclass(frozen=True)
class GuestBytes(Sampled):
    """Bytes of the page tables of a synthetic guest: a key of guests.json."""

    guest: str
    key: str

    @property
    def origin(self) -> Origin:
        return Origin.MODELLED

    @property
    def sources(self) -> tuple[Source, ...]:
        return (Source("guests", guest=self.guest),)

    def sample(self, committed: Committed) -> Sample:
        found = _at(committed.document("guests"), f"{self.guest}.{self.key}")
        return Sample({"": float(found)}, of_boots=False)


def _at(document: Mapping[str, Any], path: str) -> Any:
    value: Any = document
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise BadInputError(
                f"a document of the model has no {path}", hint="python tests/unit/modelled.py"
            )
        value = value[key]
    return value
