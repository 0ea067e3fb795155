"""What docs/reliability.md says of kills: the phase that each hit, by what was printed last."""

from __future__ import annotations

import pytest
from campaign_page import phases


@pytest.mark.parametrize(
    ("doing", "phase"),
    [
        ("1 s   linux-7.x-01: before the steps: restore", "before the steps"),
        ("49 s   linux-6.12-01: step 1 of 8: plug to 1.5 GiB", "plug"),
        ("16 s   linux-7.x-01: step 7 of 8: unplug to 0 B", "unplug"),
        ("35 s   linux-7.x-01: step 8 of 8: snapshot unplugged", "snapshot"),
        ("17 s   linux-7.x-01: step 6 of 8: deflate the balloon", "balloon"),
        ("3 s   linux-7.x-01: step 2 of 8: start redis", "start of a workload"),
        ("3 s   linux-7.x-01: step 2 of 8: wait 5 s", "wait 5"),
        ("bootstrap: making the Python environment .venv from requirements.lock", "./bootstrap"),
        ("building the guest image debian-13 (kept in cache/images/x)", "image"),
        ("2 s   debian-13-d536b6f7fc6dc748.1: boot", "boot and save"),
        ("something else | of a table", "something else \\| of a table"),
    ],
)
def test_phase(doing: str, phase: str) -> None:
    assert phases([{"doing": doing}]) == f"{phase} (1)"


def test_they_are_counted() -> None:
    one, other = (
        {"doing": "1 s   a: before the steps: restore"},
        {"doing": "2 s   a: step 1 of 1: plug to 1 B"},
    )
    assert phases([one, other, one]) == "before the steps (2), plug (1)"
