"""Seals: damage is found, by a look where that is enough and by the contents where it is not."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from orchestrator.guest import seal as module
from orchestrator.guest.seal import damage, seal, sealed_base, sealed_crc

NAMES = ("memory", "disk")
MIB = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sealed folder with a file of data and one that is mostly a hole."""
    (tmp_path / "memory").write_bytes(os.urandom(3 * MIB + 17))
    with (tmp_path / "disk").open("wb") as disk:
        disk.truncate(64 * MIB)
        disk.seek(40 * MIB + 5)
        disk.write(b"data")
    seal(tmp_path, NAMES)
    return tmp_path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose contents were read."""
    names: list[str] = []
    look_at = module._look_at
    monkeypatch.setattr(module, "_look_at", lambda path: names.append(path.name) or look_at(path))  # type: ignore[func-returns-value]
    return names


def flip(path: Path, offset: int) -> None:
    """Flip a bit. The file's times stay what they were, as far as they can be set."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_is_as_it_was_costs_a_look(folder: Path, reads: list[str]) -> None:
    assert (damage(folder, NAMES), reads) == ("", [])


@pytest.mark.parametrize("offset", [0, MIB, 3 * MIB + 16])
def test_a_flipped_bit(folder: Path, offset: int) -> None:
    flip(folder / "memory", offset)
    assert damage(folder, NAMES) == f"{folder / 'memory'} has other contents than when it was made"


@pytest.mark.parametrize("offset", [0, 40 * MIB + 6, 64 * MIB - 1])
def test_a_flipped_bit_in_a_file_with_holes(folder: Path, offset: int) -> None:
    flip(folder / "disk", offset)
    assert "disk has other contents" in damage(folder, NAMES)


def test_data_that_moved(folder: Path) -> None:
    with (folder / "disk").open("r+b") as disk:
        disk.seek(40 * MIB)
        disk.write(bytes(16))
        disk.seek(20 * MIB + 5)  # the same bytes, elsewhere
        disk.write(b"data")
    assert "disk has other contents" in damage(folder, NAMES)


def test_a_file_that_was_cut_short(folder: Path) -> None:
    os.truncate(folder / "memory", MIB)
    assert damage(folder, NAMES) == (
        f"{folder / 'memory'} has 1,048,576 bytes, and had 3,145,745 when it was made"
    )


def test_a_file_that_is_gone(folder: Path) -> None:
    (folder / "disk").unlink()
    assert damage(folder, NAMES) == f"{folder / 'disk'} is missing"


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE])
def test_a_file_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The disk's fault is damage; that of a machine which has no descriptors left is none."""

    def fail(path: Path) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(module, "_look_at", fail)
    if number == errno.EIO:
        wrong = damage(folder, NAMES, thorough=True)
        assert wrong == f"{folder / NAMES[0]} cannot be read: Input/output error"
    else:
        with pytest.raises(OSError, match="Too many open files"):
            damage(folder, NAMES, thorough=True)


def test_a_bit_that_the_disk_flipped_is_found_in_the_next_boot(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but the contents tells: stat(2) says what it said before."""
    flip(folder / "memory", MIB)
    noted = json.loads((folder / "seal.json").read_text())
    now = (folder / "memory").stat()
    noted["files"]["memory"].update(ctime_ns=now.st_ctime_ns, mtime_ns=now.st_mtime_ns)
    (folder / "seal.json").write_text(json.dumps(noted))
    assert damage(folder, NAMES) == "", "a look cannot tell"
    assert "other contents" in damage(folder, NAMES, thorough=True)
    monkeypatch.setattr(module, "boot_id", lambda: "another boot")
    assert "other contents" in damage(folder, NAMES)
    assert "other contents" in damage(folder, NAMES), "a check that failed counts as none"


def test_what_is_below_is_kept_from_boot_to_boot(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sealed_base(folder) is None
    seal(folder, NAMES, base=7)
    monkeypatch.setattr(module, "boot_id", lambda: "another boot")
    assert (damage(folder, NAMES), sealed_base(folder)) == ("", 7)


def test_each_boot_reads_the_contents_once(
    folder: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "boot_id", lambda: "another boot")
    assert [damage(folder, NAMES) for _ in range(3)] == ["", "", ""]
    assert reads == list(NAMES)


def test_a_copy_is_whole_wherever_its_holes_are(folder: Path, tmp_path: Path, reads: list[str]) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (*NAMES, "seal.json"):
        shutil.copyfile(folder / name, copy / name)  # zeros are data in it
    assert (copy / "disk").stat().st_blocks > (folder / "disk").stat().st_blocks
    assert [damage(copy, NAMES), damage(copy, NAMES)] == ["", ""]
    assert sorted(reads) == sorted(NAMES), "what was found whole is not read again"
    assert sealed_crc(copy, "disk") == sealed_crc(folder, "disk")


@pytest.mark.parametrize("said", [None, "", "{", "[]", '{"boot": "b", "files": {"memory": {"size": 1}}}'])
def test_what_has_no_seal_is_sealed_as_it_is(folder: Path, said: str | None) -> None:
    (folder / "seal.json").unlink()
    if said is not None:
        (folder / "seal.json").write_text(said)
    assert sealed_crc(folder, "memory") is None
    assert damage(folder, NAMES) == ""
    flip(folder / "memory", 1)
    assert "other contents" in damage(folder, NAMES)
