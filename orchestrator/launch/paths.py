"""Where the parts outside of the package lie: guests, workloads, playbooks, the cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.guest.cache import cache_dir
from orchestrator.shipped import own_or_shipped

PLAYBOOK = "guest.yaml"


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

    @property
    def playbook(self) -> Path:
        """What sets guests up."""
        return own_or_shipped(self.playbooks / PLAYBOOK, "playbooks")

    @property
    def programs(self) -> Path:
        """The folder of programs that each guest has."""
        return own_or_shipped(self.guests / "programs", "guests")
