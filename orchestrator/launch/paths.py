"""Where the parts outside of the package lie: guests, workloads, playbooks, the cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.guest.cache import cache_dir

PLAYBOOK = "guest.yaml"
GUEST_PROBE = Path("programs") / "guest-probe.c"


@dataclass(frozen=True)
class ProjectPaths:
    """Folders that a run reads from, and the cache that it may write to."""

    guests: Path
    workloads: Path
    playbooks: Path
    cache: Path

    @classmethod
    def beside(cls, guests: Path) -> ProjectPaths:
        """The usual layout: all beside the folder of guest definitions."""
        root = guests.resolve().parent
        return cls(root / "guests", root / "workloads", root / "playbooks", cache_dir())
