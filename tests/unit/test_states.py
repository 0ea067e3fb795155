"""Saved states: made once, found by all that they are made of, never half-used, and bounded."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import InfrastructureError
from orchestrator.guest import states
from orchestrator.guest.cache import locked
from orchestrator.guest.seal import seal
from orchestrator.guest.states import (
    GuestSpec,
    SavedState,
    ensure_state,
    find_state,
    list_states,
    remove_state,
    start_from_state,
    unfinished_states,
)

SPEC = GuestSpec(
    guest="debian-13",
    image="0123456789abcdef",
    release="6.12",
    kernel="k",
    domain="<domain/>",
    installed=(("guest-probe", "p"),),
    accel="tcg",
    cpu="a CPU",
    versions=(("libvirt", "11.3.0"), ("qemu", "10.0.2")),
)


class Guests:
    """Makes and restores states that are but files; counts how often."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.made = 0
        self.refusals = 0
        self.machine_is_broken = False
        self.said: list[str] = []

    def make(self, state: SavedState) -> None:
        if self.machine_is_broken:
            raise InfrastructureError("passt did not start", details="EMFILE")
        self.made += 1
        for path in (state.memory, state.disk, state.console_log):
            path.write_text(f"{self.made}")

    def restore(self, state: SavedState) -> str:
        if self.refusals or self.machine_is_broken:
            self.refusals = max(0, self.refusals - 1)
            raise InfrastructureError("libvirt could not start the guest", details="no port")
        return state.memory.read_text()

    def start(self, spec: GuestSpec = SPEC) -> str:
        return start_from_state(self.cache, spec, make=self.make, restore=self.restore, tell=self.said.append)


@pytest.fixture
def guests(tmp_path: Path) -> Guests:
    return Guests(tmp_path)


def test_a_state_is_made_once(guests: Guests) -> None:
    assert (guests.start(), guests.start()) == ("1", "1")
    (listed,) = list_states(guests.cache)
    assert (listed["name"], listed["key"], listed["release"]) == ("debian-13", SPEC.key, "6.12")


@pytest.mark.parametrize(
    "changed",
    [
        {"image": "f" * 16},
        {"kernel": "another"},
        {"domain": "<domain type='kvm'/>"},
        {"installed": (("guest-probe", "q"),)},
        {"accel": "kvm"},
        {"accel": "tcg-icount"},
        {"cpu": "another"},
        {"versions": (("libvirt", "11.3.0"), ("qemu", "10.0.3"))},
        {"boot": 2},
    ],
)
def test_whatever_differs_makes_another_state(guests: Guests, changed: dict[str, Any]) -> None:
    assert guests.start() == "1"
    assert guests.start(replace(SPEC, **changed)) == "2"
    assert guests.start() == "1"


def test_the_boots_of_a_guest_share_its_key() -> None:
    second = replace(SPEC, boot=2)
    assert second.guest_key == SPEC.guest_key
    assert (SPEC.key, second.key) == (f"{SPEC.guest_key}.1", f"{SPEC.guest_key}.2")
    assert replace(SPEC, kernel="another").guest_key != SPEC.guest_key


def test_a_state_is_made_ahead_of_its_use_and_once(guests: Guests) -> None:
    assert find_state(guests.cache, SPEC) is None
    for _ in range(2):
        ensure_state(guests.cache, SPEC, make=guests.make)
    assert find_state(guests.cache, SPEC) is not None
    assert (guests.start(), guests.made) == ("1", 1)


def test_a_boot_that_is_made_again_has_another_name(guests: Guests) -> None:
    """Else trials of two boots would pass for pairs from one."""
    guests.start()
    folder = guests.cache / "states" / f"debian-13-{SPEC.key}"
    names = {SavedState(folder).boot_name, SavedState(folder).boot_name}
    for _ in range(3):
        (folder / "memory.sav").unlink()
        guests.start()
        names.add(SavedState(folder).boot_name)
    assert len(names) > 1
    assert all(name.startswith(f"{SPEC.key}-") for name in names)


def test_one_that_cannot_be_restored_is_made_anew_once(guests: Guests) -> None:
    guests.start()
    guests.refusals = 1
    assert guests.start() == "2"
    guests.refusals = 2
    with pytest.raises(InfrastructureError, match="could not start"):
        guests.start()
    assert guests.made == 3


def test_a_good_state_outlives_a_fault_of_the_machine(guests: Guests) -> None:
    guests.start()
    guests.machine_is_broken = True
    with pytest.raises(InfrastructureError, match="passt did not start") as caught:
        guests.start()
    assert "so the fault is the machine, and it is kept" in caught.value.details
    assert "libvirt could not start the guest\nno port" in caught.value.details
    (said,) = guests.said
    assert f"debian-13-{SPEC.key} could not be restored (libvirt could not start the guest no port)" in said
    guests.machine_is_broken = False
    assert (guests.start(), guests.made) == ("1", 1)


def test_the_fault_is_the_states_where_its_files_have_changed(
    guests: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found when it is not restored, where a look did not tell before."""
    guests.start()
    found = iter(["", "memory.sav has other contents"])
    monkeypatch.setattr(states, "damage", lambda *_, **__: next(found))
    guests.machine_is_broken = True
    with pytest.raises(InfrastructureError, match="passt did not start") as caught:
        guests.start()
    assert "it is damaged: memory.sav has other contents" in caught.value.details
    assert "the fault is the machine" not in caught.value.details


@pytest.mark.parametrize("file", ["memory.sav", "disk.qcow2", "console.log"])
@pytest.mark.parametrize("contents", ["", "7", "11"])
def test_damage_is_noticed_before_a_guest_runs_on_it(guests: Guests, file: str, contents: str) -> None:
    guests.start()
    folder = guests.cache / "states" / f"debian-13-{SPEC.key}"
    (folder / file).write_text(contents)
    assert guests.start() == "2"
    (said,) = guests.said
    assert f"debian-13-{SPEC.key} is damaged and is made anew: {folder / file} has" in said


def test_a_damaged_state_is_kept_until_its_successor_is_whole(guests: Guests) -> None:
    guests.start()
    folder = guests.cache / "states" / f"debian-13-{SPEC.key}"
    (folder / "memory.sav").write_text("7")
    guests.machine_is_broken = True
    with pytest.raises(InfrastructureError, match="passt did not start"):
        guests.start()
    assert (folder / "memory.sav").read_text() == "7"
    assert sorted(path.name for path in (guests.cache / "states").iterdir()) == [".locks", folder.name]


def test_a_state_over_another_build_of_its_image_is_made_anew(guests: Guests) -> None:
    """Its disk is an overlay: below it are blocks that its kernel has not written."""
    image = guests.cache / "images" / f"{SPEC.guest}-{SPEC.image}"
    image.mkdir(parents=True)
    for build, start in (("a", "1"), ("a", "1"), ("b", "2"), ("b", "2")):
        (image / "disk.raw").write_text(build)
        seal(image, ["disk.raw"])
        assert guests.start() == start
    (said,) = guests.said
    assert "the image that its disk is an overlay of was built again" in said


@pytest.mark.parametrize("lost", ["memory.sav", "disk.qcow2", "console.log", "state.json"])
def test_half_a_state_is_none(guests: Guests, lost: str) -> None:
    guests.start()
    (guests.cache / "states" / f"debian-13-{SPEC.key}" / lost).unlink()
    assert guests.start() == "2"


def test_one_that_says_it_was_made_of_something_else_is_none(guests: Guests) -> None:
    guests.start()
    facts = guests.cache / "states" / f"debian-13-{SPEC.key}" / "state.json"
    facts.write_text(facts.read_text().replace("10.0.2", "9.2.0"))
    assert guests.start() == "2"


def test_what_fails_in_the_making_leaves_nothing(guests: Guests) -> None:
    def make(state: SavedState) -> None:
        guests.make(state)
        raise InfrastructureError("no room")

    with pytest.raises(InfrastructureError, match="no room"):
        start_from_state(guests.cache, SPEC, make=make, restore=guests.restore, tell=print)
    assert [path.name for path in (guests.cache / "states").iterdir()] == [".locks"]


def test_what_a_killed_run_left_is_found_unless_it_is_being_made(guests: Guests) -> None:
    left = guests.cache / "states" / f".saving-{SPEC.key}-abc"
    left.mkdir(parents=True)
    with locked(guests.cache / "states" / ".locks" / SPEC.key):
        assert unfinished_states(guests.cache) == []
    assert unfinished_states(guests.cache) == [left]
    guests.start()
    assert not left.exists()


def test_the_least_recently_used_go(guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "MOST_STATES", 2)
    specs = [replace(SPEC, kernel=str(number)) for number in range(3)]
    for age, spec in ((30, specs[0]), (20, specs[1])):
        guests.start(spec)
        facts = guests.cache / "states" / f"debian-13-{spec.key}" / "state.json"
        os.utime(facts, (facts.stat().st_mtime - age,) * 2)
    guests.start(specs[0])  # used again
    guests.start(specs[2])
    assert [entry["key"] for entry in list_states(guests.cache)] == [specs[2].key, specs[0].key]
    monkeypatch.setattr(states, "MOST_BYTES", 1)
    guests.start(specs[1])
    assert [entry["key"] for entry in list_states(guests.cache)] == [specs[1].key]


def test_a_state_is_removed_by_its_folder(guests: Guests) -> None:
    guests.start()
    remove_state(guests.cache, guests.cache / "states" / f"debian-13-{SPEC.key}")
    assert list_states(guests.cache) == []


def _start(cache: Path, made: Path) -> None:
    guests = Guests(cache)

    def make(state: SavedState) -> None:
        (made / str(os.getpid())).touch()
        guests.make(state)

    start_from_state(cache, SPEC, make=make, restore=guests.restore, tell=print)


def test_two_runs_make_a_state_once(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    spawn = multiprocessing.get_context("spawn")
    runs = [spawn.Process(target=_start, args=(tmp_path / "cache", made)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
        assert run.exitcode == 0
    assert len(list(made.iterdir())) == 1
