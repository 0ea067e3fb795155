"""`blame` as it is called: files, dumps and runs, and what it says of those that are none."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import REGION_START, sparse_guest

from orchestrator.cli.main import _exit_code
from orchestrator.model.frames import KPF_ANON, KPF_BUDDY, KPF_MMAP, KPF_OFFLINE, KPF_PGTABLE, KPF_SLAB
from orchestrator.model.snapshot import Evidence
from orchestrator.store.raw_flags import read_raw_flags
from orchestrator.store.snapshot_file import write_snapshot

ROOT = Path(__file__).parents[2]
BUDDY, TABLE, SLAB = 1 << KPF_BUDDY, 1 << KPF_PGTABLE, 1 << KPF_SLAB


def blame(*words: object) -> int:
    return _exit_code(["blame", *map(str, words)])


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """Four blocks of 2 MiB: free, a table, a table and slab, and one without any flag."""
    flags = np.full(4 * 512, BUDDY, dtype="<u8")
    flags[600] = flags[1100] = TABLE
    flags[1200] = SLAB
    flags[1536:] = 0
    path = tmp_path / "flags"
    flags.tofile(path)
    return path


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    path = tmp_path / "08-unplugged.npz"
    write_snapshot(path, replace(sparse_guest(2000), label="unplugged", paused=False, frames_changed=3))
    return path


def test_a_plain_dump(dump: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert blame(dump) == 0
    said = capsys.readouterr().out
    assert "4 of 4 blocks of 2 MiB are plugged (8 MiB); 2 are pinned" in said
    assert "1 have nothing unmovable: unexplained if they were requested (1 in all are free)." in said
    assert "1 have frames without a flag and no known unmovable frame" in said
    assert "(1 have no other frames)" in said
    assert "Without page tables, 1 of 2 pinned blocks would be free" in said
    assert "full" not in said
    assert "other kernel memory" not in said


@pytest.mark.parametrize("base", ["2560", "0xa00", "0XA00", "0b101000000000"])
def test_a_dump_as_json(base: str, dump: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert blame(dump, "--json", "--base-pfn", base, "--block-size", "2MiB") == 0
    (found,) = json.loads(capsys.readouterr().out)["snapshots"]
    (region,) = found["regions"]
    assert region["start_pfn"] == 5 * 512
    assert (region["blocks_pinned"], region["blocks_pinned_by_several"], region["blocks_unexplained"]) == (
        2,
        1,
        1,
    )
    assert (
        region["blocks_unknown"],
        region["blocks_without_any_flag"],
        region["blocks_no_migration_target"],
    ) == (
        1,
        1,
        0,
    )
    assert region["most_freeable"] == {"class": "page_table", "blocks": 1}
    held = {one["pfn"]: (one["attributed_to"], one["sole_blocker"]) for one in region["plugged_blocks"]}
    assert held == {
        5 * 512: ("free", False),
        6 * 512: ("page_table", True),
        7 * 512: ("page_table", False),
        8 * 512: ("unknown", False),
    }
    assert region["plugged_blocks"][2]["frames"] == {"free": 510, "page_table": 1, "slab": 1}
    assert found["policies"] == [], "a dump has no contents of page tables"
    assert found["huge_pages"] == {"ranges": 4, "free": 1, "freeable": 1}


def test_a_partial_dump_begins_within_a_block(dump: Path) -> None:
    read = read_raw_flags(dump, base_pfn=1000, block_bytes=2 << 20)
    assert len(read.flags) == 5 * 512
    assert read.faults() == []
    assert read.flags[1000 % 512] == BUDDY
    assert (read.flags[: 1000 % 512] != BUDDY).all()


SECTION = 128 << 20 >> 12
OFFLINE, MMAP, ANON = 1 << KPF_OFFLINE, 1 << KPF_MMAP, 1 << KPF_ANON


def dumped(path: Path, *sections: int, **frames: int) -> Path:
    """A dump with one value for all frames of each section, but for some frames (`f100=...`)."""
    flags = np.repeat(np.array(sections, dtype="<u8"), SECTION)
    for frame, value in frames.items():
        flags[int(frame[1:])] = value
    flags.tofile(path)
    return path


def test_sections_without_any_flag_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As 7.x shows a guest after an unplug: a section partly unplugged, one removed, one plugged."""
    path = dumped(tmp_path / "d", OFFLINE, 0, BUDDY, f700=TABLE, f1100=0, f70000=TABLE, f70001=0)
    assert blame(path, "--base-pfn", "0x100000", "--block", "2MiB", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["snapshots"]
    (region,) = found["regions"]
    assert (region["start_pfn"], region["blocks"]) == (1 << 20, 3 * 64)
    # Of the first section the blocks of a table and of the frame that nothing is known of.
    assert (region["blocks_plugged"], region["blocks_pinned"], region["blocks_unknown"]) == (66, 2, 1)
    assert region["most_freeable"] == {"class": "page_table", "blocks": 1}
    assert (region["blocks_free"], region["blocks_unexplained"], region["blocks_no_migration_target"]) == (
        63,
        63,
        0,
    )
    assert {row["frame_class"] for row in region["classes"]} == {"offline", "page_table", "free", "unknown"}
    assert blame(path, "--base-pfn", "0x100000") == 0
    assert "1 sections of 128 MiB have no flag at all" in capsys.readouterr().out


@pytest.mark.parametrize(("base", "gone"), [(0, 1), (SECTION, 1), (512, 0), (SECTION - 512, 0)])
def test_of_a_section_that_a_dump_has_a_part_of_nothing_is_said(base: int, gone: int, tmp_path: Path) -> None:
    read = read_raw_flags(dumped(tmp_path / "d", 0), base_pfn=base, block_bytes=2 << 20)
    assert int(read.notes["sections_without_a_flag"]) == gone
    assert int((read.evidence == Evidence.UNKNOWN).sum()) == (0 if gone else SECTION)


def test_counts_beside_a_dump(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is mapped is there, though it has no flag; and where the two disagree, something changed."""
    flags = dumped(tmp_path / "kpageflags", 0, 0, BUDDY, f70000=MMAP | ANON, f70001=ANON)
    counts = dumped(tmp_path / "counts", 0, 0, 0, f40000=1, f70000=3, f70001=1, f70002=1)

    def found(*words: object) -> dict[str, Any]:
        assert blame(flags, "--json", *words) == 0
        (one,) = json.loads(capsys.readouterr().out)["snapshots"]
        return dict(one)

    plain, with_counts = found(), found("--kpagecount", counts)
    counts.rename(tmp_path / "kpagecount")
    beside = found()
    assert plain["regions"][0]["blocks_plugged"] == 64
    assert plain["consistency"].startswith("unknown")
    assert with_counts["regions"][0]["blocks_plugged"] == 128
    assert with_counts["regions"][0]["blocks_unknown"] == 64
    assert with_counts["consistency"].startswith("at least 3 of 98,304 frames changed")
    assert beside == with_counts
    (tmp_path / "kpagecount").rename(counts)
    short = tmp_path / "short"
    short.write_bytes(counts.read_bytes()[:-8])
    assert blame(flags, "--kpagecount", short) == 2
    assert "counts of 98,303 frames, and the dump has flags of 98,304" in capsys.readouterr().err


def test_what_the_kernel_says_is_free(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Memory whose struct pages are not initialised yet is free, and has no flag."""
    flags = dumped(tmp_path / "kpageflags", ANON, 0, BUDDY)
    meminfo = tmp_path / "meminfo"
    for free_kib, told, pointed_out in (
        (128 << 10, "128 MiB by the kernel.", False),
        ((128 << 10) - 400, "by the kernel.", False),
        (256 << 10, "256 MiB by the kernel: 128 MiB without a flag is free", True),
        (64 << 10, "64 MiB by the kernel: some of it is isolated, or the two were read", True),
    ):
        meminfo.write_text(f"MemTotal:  999999 kB\nMemFree:   {free_kib} kB\nMemAvailable:  5 kB\n")
        assert blame(flags) == 0
        said = capsys.readouterr().out
        assert "Free: 128 MiB by flags" in said
        assert told in said
        assert (": " in said[said.index("by the kernel") :].split("\n")[0]) is pointed_out
        assert blame(flags, "--meminfo", meminfo, "--json") == 0
        (found,) = json.loads(capsys.readouterr().out)["snapshots"]
        assert found["free"] == {"by_flags_bytes": 128 << 20, "by_kernel_bytes": free_kib << 10}
    meminfo.write_text("nothing")
    assert blame(flags) == 2
    assert "no copy of /proc/meminfo" in capsys.readouterr().err
    meminfo.unlink()
    assert blame(flags, "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["snapshots"]
    assert found["free"] == {"by_flags_bytes": 128 << 20, "by_kernel_bytes": None}
    assert blame(flags) == 0
    assert "by the kernel" not in capsys.readouterr().out


def test_every_block_listed(dump: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert blame(dump, "--blocks", "--base-pfn", 512) == 0
    said = capsys.readouterr().out
    assert "0x000000400000 page tables (sole blocker): 511 free, 1 page tables [1 not read]" in said


def test_a_snapshot(snapshot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert blame(snapshot, "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["snapshots"]
    (region,) = found["regions"]
    assert region["start_pfn"] == REGION_START
    assert region["blocks"] == 1024
    kinds = {row["table"]: row["frames"] for row in region["classes"] if row["table"]}
    assert kinds["PTE, empty"] == 2000
    policies = {row["policy"]: row for row in found["policies"]}
    assert policies["empty"]["tables_freed"] == 2000
    assert {row["origin"] for row in policies.values()} == {"modelled"}
    assert "3 of" in found["consistency"]
    assert blame(snapshot) == 0
    said = capsys.readouterr().out
    assert "page flags only" in said, "a synthetic guest has no evidence"
    assert "PTE, empty" in said
    assert "empty_all_levels" in said


def test_blocks_of_another_size(snapshot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert blame(snapshot, "--block-size", "128MiB", "--json") == 0
    assert json.loads(capsys.readouterr().out)["snapshots"][0]["regions"][0]["blocks"] == 16
    assert blame(snapshot, "--block", "2MiB", "--memory", "--json") == 0
    (region,) = json.loads(capsys.readouterr().out)["snapshots"][0]["regions"]
    assert (region["region"], region["start_pfn"]) == ("memory", 0)
    assert blame(snapshot, "--block", "4GiB") == 2
    assert "not a whole number of blocks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"", "no whole number of page flags"),
        (b"\0" * 4097, "no whole number of page flags"),
        (b"\x7fELF\2\1\1\0" * 512, "neither a snapshot nor a dump"),
        (b"version: 1\nname: x\n12345", "neither a snapshot nor a dump"),
        (b"PK\3\4" + b"\0" * 1000, "not a snapshot, or damaged"),
    ],
)
def test_a_foreign_file(
    content: bytes, wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert blame(path) == 2
    said = capsys.readouterr().err
    assert wrong in said
    assert "next:" in said


def test_a_snapshot_cut_short_at_any_byte(snapshot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = snapshot.read_bytes()
    for length in (1, 4, 100, len(whole) // 2, len(whole) - 1):
        snapshot.write_bytes(whole[:length])
        assert blame(snapshot) == 2, length
        assert str(snapshot) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["absent.npz"], "no such file"),
        (["nothing"], "no run called 'nothing'"),
        (["DUMP", "--block", "3MiB"], "power of two"),
        (["DUMP", "--block", "lots"], "not a size"),
        (["DUMP", "--base-pfn", "-1"], "--base-pfn"),
        (["DUMP", "--base-pfn", "0x10000g"], "not a frame number"),
        (["DUMP", "--base-pfn", "0x20000000000"], "not a frame number"),
        (["DUMP", "--kpagecount", "absent"], "absent: cannot be read"),
        (["SNAPSHOT", "--kpagecount", "counts"], "--kpagecount is for a plain copy"),
        (["SNAPSHOT", "--meminfo", "meminfo"], "--meminfo is for a plain copy"),
        (["DUMP", "--trial", "x"], "this is a file"),
        (["SNAPSHOT", "--base-pfn", "512"], "--base-pfn is for a plain copy"),
        (["nothing", "--base-pfn", "512"], "--base-pfn is for a plain copy"),
    ],
)
def test_bad_usage(
    words: list[str], wrong: str, dump: Path, snapshot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"DUMP": str(dump), "SNAPSHOT": str(snapshot)}
    assert blame(*(places.get(word, word) for word in words)) == 2
    assert wrong in capsys.readouterr().err


def test_nothing_heavy_is_imported_for_a_dump(dump: Path) -> None:
    """393,216 frames are to be told in two seconds with everything: libraries are what takes time."""
    heavy = ("pandas", "pyarrow", "altair", "libvirt", "fabric", "numba")
    script = (
        "import sys; from orchestrator.cli.main import _exit_code;"
        f"_exit_code(['blame', {str(dump)!r}]);"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"
