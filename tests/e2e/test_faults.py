"""A few faults of the campaign (tests/faults): that it plays them, and that they are survived."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from driver import ROOT


def test_a_few_faults(tmp_path: Path) -> None:
    from orchestrator.guest.cache import cache_dir

    result = tmp_path / "faults.json"
    words = ["--short", "--cache", str(cache_dir()), "--result", str(result)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "faults"), *words],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(result.read_text())["rows"]
    assert len(rows) >= 2
    assert all(row["survived"] and row["left"] == [] for row in rows)
