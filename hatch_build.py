"""What hatchling puts into a wheel beside the package: the folders that runs read, and the commit.

In a checkout, and in an editable install of it, they are found where they stand (orchestrator/shipped.py).
"""

from __future__ import annotations

import runpy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

DATA = "data"  # orchestrator.shipped.DATA, which is not there to be imported while it is built
# A bzImage that somebody compares lies in scenarios/, too.
SHIPPED = {
    "guests": "*",
    "playbooks": "*",
    "results/reference": "*",
    "scenarios": "*.yaml",
    "workloads": "*",
}


class CustomBuildHook(BuildHookInterface[Any]):
    """Called by its name, which hatchling looks for."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name what is added: file -> its place in the wheel or sdist."""
        if version == "editable":
            return
        root, added = Path(self.root), build_data["force_include"]
        package = root / "orchestrator"
        commit = runpy.run_path(str(package / "commit.py"))
        self._scratch = tempfile.TemporaryDirectory()
        baked = Path(self._scratch.name) / commit["BAKED"]
        baked.write_text(f"{commit['program_commit']()}\n", encoding="ascii")
        added[str(baked)] = f"orchestrator/{baked.name}"
        if self.target_name == "wheel":
            for file in _shipped(root):
                added[str(root / file)] = f"orchestrator/{DATA}/{file}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002  # hatchling's signature
        """The commit has been written."""
        if hasattr(self, "_scratch"):
            self._scratch.cleanup()


def _shipped(root: Path) -> Iterator[Path]:
    for folder, pattern in SHIPPED.items():
        for path in sorted((root / folder).rglob(pattern)):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(root)
