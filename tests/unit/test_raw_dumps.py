"""Raw dumps of real guests after an unplug, against what the devices said.

tests/unit/live/dump-*: one run, 6.12.117 and 7.3.4, with 1 GiB and a virtio-mem device of 2 GiB in blocks of
2 MiB from 4 GiB on; 1,536 MiB plugged, sparse-map over 24 GiB (memory discarded, process alive), then all
asked back. Then /proc/kpageflags, /proc/kpagecount and /proc/meminfo were copied in the guest, one after the
other.
"""

from __future__ import annotations

import json
import lzma
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.cli.main import _exit_code
from orchestrator.units import MIB

LIVE = Path(__file__).parent / "live"
DEVICE = 0x100000  # first frame
SECTION = 128 * MIB // 4096


@dataclass(frozen=True)
class Truth:
    """`size` is the device's when the dump was made; `online` are the memory blocks of /sys."""

    size: int
    online: tuple[int, ...]
    absent: int  # sections without any flag, of 44 up to the end of the dump


TRUTH = {
    "6.12": Truth(64 * MIB, (*range(8), 32, 34, 36, 37), absent=0),
    "7.x": Truth(52 * MIB, (*range(8), 32, 34, 36, 38, 40, 42), absent=30),
}


@pytest.fixture(params=TRUTH)
def kernel(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(kernel: str, tmp_path: Path) -> Path:
    """kpageflags, kpagecount and meminfo, as they were copied."""
    for packed in (LIVE / f"dump-{kernel}").iterdir():
        if packed.suffix == ".xz":
            (tmp_path / packed.stem).write_bytes(lzma.decompress(packed.read_bytes()))
        else:
            shutil.copy(packed, tmp_path)
    return tmp_path


def blamed(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert _exit_code(["blame", *map(str, words), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["snapshots"]
    return dict(found)


def test_only_plugged_blocks_count(kernel: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = folder / "part"
    part.write_bytes((folder / "kpageflags").read_bytes()[DEVICE * 8 :])
    (region,) = blamed(capsys, part, "--base-pfn", hex(DEVICE), "--block", "2MiB")["regions"]
    assert region["start_pfn"] == DEVICE
    assert region["blocks_plugged"] * 2 * MIB == TRUTH[kernel].size
    assert region["blocks_pinned"] + region["blocks_unknown"] == region["blocks_plugged"]
    holding = [row for row in region["classes"] if row["freeable"]]
    assert {row["frame_class"] for row in holding} <= {"page_table", "slab"}
    assert (region["blocks_no_migration_target"], region["blocks_unexplained"]) == (0, 0)


def test_memory_that_is_not_there(kernel: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = blamed(capsys, folder / "kpageflags")
    (region,) = found["regions"]
    plugged = {one["pfn"] // SECTION for one in region["plugged_blocks"]}
    assert plugged == set(TRUTH[kernel].online)
    assert int(found["notes"]["sections_without_a_flag"]) == TRUTH[kernel].absent


def test_a_guest_with_free_memory_is_not_full(
    kernel: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del kernel
    found = blamed(capsys, folder / "kpageflags")
    (region,) = found["regions"]
    free = found["free"]
    assert free["by_kernel_bytes"] == pytest.approx(free["by_flags_bytes"], rel=0.01)
    assert free["by_kernel_bytes"] > 700 * MIB
    assert region["blocks_free"] > 300
    assert region["blocks_no_migration_target"] == 0
    assert region["blocks_unexplained"] >= region["blocks_free"]
    assert region["most_freeable"]["class"] == "reserved", "the kernel image: no memory without a flag"


def test_counts_agree_with_flags(kernel: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nearly: the guest ran, and both files were read one after the other."""
    words = {name: np.fromfile(folder / name, dtype="<u8") for name in ("kpageflags", "kpagecount")}
    mapped = words["kpagecount"] > 0
    changed = int((mapped & (words["kpageflags"] >> np.uint64(11) & np.uint64(1) == 0)).sum())
    assert 0 < changed < 0.01 * mapped.sum()
    found = blamed(capsys, folder / "kpageflags")
    assert found["consistency"].startswith(f"at least {changed:,} of 1,441,792 frames changed")
    # What no process maps has a count of 0, too, whether it is there or not: nothing is known from that.
    (folder / "kpagecount").unlink()
    alone = blamed(capsys, folder / "kpageflags")
    assert alone["regions"] == found["regions"], kernel
