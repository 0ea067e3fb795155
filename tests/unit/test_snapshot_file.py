from __future__ import annotations

import contextlib
import gc
import json
import sys
import tempfile
import zipfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import USER_DATA, Guest, entry, sparse_guest

from orchestrator.errors import BadInputError
from orchestrator.model.snapshot import Region, Snapshot
from orchestrator.store import archive, snapshot_file
from orchestrator.store.snapshot_file import read_snapshot, write_snapshot

REGION = Region("vm0", 1024, 2048, 512, 4 << 20)  # reaches past the flags, as it may


def small() -> Snapshot:
    guest = Guest(2048)
    leaf = guest.table({0: entry(guest.anon(), USER_DATA), 5: entry(guest.anon(), USER_DATA)})
    guest.upper({0: leaf, 7: guest.table()})
    snapshot = guest.snapshot((REGION,))
    return replace(
        snapshot,
        label="nach dem Abstecken \N{EURO SIGN}",
        frames_changed=-1,
        tables_unread=2,
        notes={"how": "HMP"},
        deposited_pfn=snapshot.table_pfn[1:2],
        deposited_below=snapshot.table_pfn[2:],
        deposits_read=True,
    )


def assert_same(one: Snapshot, other: Snapshot) -> None:
    for field in fields(Snapshot):
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(ours, np.ndarray):
            assert ours.dtype == theirs.dtype
            assert ours.tolist() == theirs.tolist()
        else:
            assert ours == theirs


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_snapshot(path, small())
    assert_same(read_snapshot(path), small())
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


def test_what_a_snapshot_says_is_not_kept(tmp_path: Path) -> None:
    """Each of a long run says something that the others do not."""
    path, texts = tmp_path / "a.npz", 50

    def kept(name: str) -> int:
        notes = {f"note {number}": f"{name} {number}" for number in range(texts)}
        write_snapshot(path, replace(small(), notes=notes))
        gc.collect()
        before = sys.getallocatedblocks()
        read_snapshot(path)
        gc.collect()
        return sys.getallocatedblocks() - before

    kept("the first, whose keys are kept")
    assert kept("another") < texts / 2


def test_the_same_snapshot_makes_the_same_file(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        write_snapshot(tmp_path / name, small())
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_plain_numpy_reads_it_as_the_docstring_says(tmp_path: Path) -> None:
    path = tmp_path / "after-unplug.npz"
    write_snapshot(path, small())
    lines = [line[4:] for line in (snapshot_file.__doc__ or "").splitlines() if line.startswith("    ")]
    assert len(lines) == 6
    found: dict[str, Any] = {}
    exec("\n".join(lines).replace("after-unplug.npz", str(path)), found)  # noqa: S102  # the documented words
    assert found["meta"]["regions"][0]["block_pages"] == 512
    assert found["flags"].tolist() == small().flags.tolist()
    slots, values = found["first_table"]
    assert slots.tolist() == [0, 5]
    assert values.tolist() == small().entry_value[:2].tolist()
    assert found["z"]["schema"].tolist() == [snapshot_file.SCHEMA]


@pytest.mark.slow
def test_25_600_empty_tables_take_little_room(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_snapshot(path, sparse_guest())
    assert path.stat().st_size < 2 << 20


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npz"
    write_snapshot(path, small())
    before = path.read_bytes()

    def full_disk(file: Any, **_: Any) -> None:
        file.write(b"PK")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_snapshot(path, replace(small(), label="other"))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


def test_a_file_of_schema_1_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_snapshot(path, small())
    _rewrite(path, schema=_npy(tmp_path, np.array([1])), evidence=None)
    snapshot = read_snapshot(path)
    assert len(snapshot.evidence) == 0
    assert snapshot.flags.tolist() == small().flags.tolist()


def _array(values: list[int], dtype: str) -> Any:
    return np.array(values, dtype=dtype)


FAULTS = [
    ({"entry_start": _array([0, 2, 2], "i8")}, "need 4 entry starts"),
    ({"entry_start": _array([0, 3, 2, 4], "i8")}, "do not ascend"),
    ({"entry_start": _array([1, 2, 2, 4], "i8")}, "do not ascend"),
    ({"entry_start": _array([0, 2, 2, 5], "i8")}, "do not ascend"),
    ({"entry_slot": _array([0, 512, 0, 7], "u2")}, "not below 512"),
    ({"entry_slot": _array([5, 5, 0, 7], "u2")}, "slots within a table"),
    ({"entry_slot": _array([5, 0, 0, 7], "u2")}, "slots within a table"),
    ({"entry_value": _array([1, 0, 1, 1], "u8")}, "although it is zero"),
    ({"entry_value": _array([1, 1, 1], "u8")}, "4 entry slots for 3"),
    ({"table_pfn": _array([4, 3, 5], "i8")}, "not sorted"),
    ({"table_pfn": _array([3, 4, 2048], "i8")}, "outside of the frames"),
    ({"online_blocks": _array([1, 1], "i8")}, "online memory blocks"),
    ({"online_block_bytes": 0}, "no whole number of pages"),
    ({"frames_changed": -2}, "negative"),
    ({"regions": (replace(REGION, block_pages=0),)}, "whole number of blocks"),
    ({"regions": (replace(REGION, pages=2047),)}, "whole number of blocks"),
    ({"regions": (replace(REGION, start_pfn=-1),)}, "outside of physical memory"),
    ({"regions": (replace(REGION, plugged_bytes=1 << 40),)}, "more plugged than its size"),
]


@pytest.mark.parametrize(("change", "wrong"), FAULTS)
def test_inconsistent_snapshots_are_neither_written_nor_read(
    change: dict[str, Any], wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npz"
    bad = replace(small(), **change)
    with pytest.raises(ValueError, match=wrong):
        write_snapshot(path, bad)
    assert not path.exists()
    with monkeypatch.context() as patch:
        patch.setattr(Snapshot, "faults", lambda _: [])
        write_snapshot(path, bad)
    with pytest.raises(BadInputError, match=wrong):
        read_snapshot(path)


def _rewrite(path: Path, **changed: bytes | None) -> None:
    """Replace members of the file; None removes one."""
    with zipfile.ZipFile(path) as archive:
        members: dict[str, bytes | None] = {name[:-4]: archive.read(name) for name in archive.namelist()}
    members |= changed
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            if data is not None:
                archive.writestr(f"{name}.npy", data)


def _npy(path: Path, array: Any, *, allow_pickle: bool = False) -> bytes:
    np.save(path / "x.npy", array, allow_pickle=allow_pickle)
    return (path / "x.npy").read_bytes()


def test_foreign_and_damaged_members_are_refused(tmp_path: Path) -> None:
    long_header = _npy(tmp_path, np.zeros(4, dtype="<u8")).replace(b"(4,)", b"(4000000000000,)", 1)
    meta = json.loads(small_meta(tmp_path))
    cases: list[tuple[dict[str, bytes | None], str]] = [
        ({"schema": None}, "no schema version"),
        ({"schema": _npy(tmp_path, np.array([4]))}, r"schema \[4\], this program reads 1 to 3"),
        ({"evidence": None}, "it has no evidence"),
        ({"schema": _npy(tmp_path, np.array([1, 1]))}, r"schema \[1, 1\]"),
        ({"flags": None}, "it has no flags"),
        ({"meta": _npy(tmp_path, np.frombuffer(b"{", dtype="u1"))}, "meta data"),
        ({"meta": _npy(tmp_path, _bytes(meta | {"paused": "yes"}))}, "meta data"),
        ({"meta": _npy(tmp_path, _bytes(meta | {"surprise": 1}))}, "meta data"),
        ({"flags": _npy(tmp_path, np.zeros(2048, dtype="<u4"))}, "not a flat array"),
        ({"flags": _npy(tmp_path, np.zeros((64, 32), dtype="<u8"))}, "not a flat array"),
        ({"flags": _npy(tmp_path, np.array([object()]), allow_pickle=True)}, "not a flat array"),
        ({"flags": b"no array"}, "not a flat array"),
        ({"flags": _npy(tmp_path, np.zeros(2048, dtype="<u8"))[:-8]}, "cut short"),
        ({"flags": long_header}, "false header"),
    ]
    for change, wrong in cases:
        path = tmp_path / "a.npz"
        write_snapshot(path, small())
        _rewrite(path, **change)
        with pytest.raises(BadInputError, match=wrong) as caught:
            read_snapshot(path)
        assert "\n" not in caught.value.brief


def small_meta(folder: Path) -> bytes:
    write_snapshot(folder / "m.npz", small())
    with np.load(folder / "m.npz") as archive:
        data: bytes = archive["meta"].tobytes()
    return data


def _bytes(meta: dict[str, Any]) -> Any:
    return np.frombuffer(json.dumps(meta).encode(), dtype="u1")


def test_more_than_any_snapshot_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npz"
    write_snapshot(path, small())
    monkeypatch.setattr(archive, "MAX_BYTES", 4096)
    with pytest.raises(BadInputError, match="more than a snapshot may"):
        read_snapshot(path)


def test_no_file_and_no_archive(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="No such file"):
        read_snapshot(tmp_path / "none.npz")
    with pytest.raises(BadInputError, match="cannot be read"):
        read_snapshot(tmp_path)
    for content in (b"", b"PK", b"text\n" * 100):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(BadInputError, match="not a snapshot"):
            read_snapshot(tmp_path / "a.npz")


@pytest.mark.slow
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_damage_is_told_or_without_effect(where: int, value: int) -> None:
    """One byte changed, or the end missing: the one error there is, or the same snapshot."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npz"
        write_snapshot(path, small())
        data = bytearray(path.read_bytes())
        where %= len(data)
        data[where] = value
        for damaged in (bytes(data), bytes(data[:where])):
            path.write_bytes(damaged)
            with contextlib.suppress(BadInputError):
                assert_same(read_snapshot(path), small())
