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

    def make(self, state: SavedState) -> None:
        self.made += 1
        for path in (state.memory, state.disk, state.console_log):
            path.write_text(f"{self.made}")

    def restore(self, state: SavedState) -> str:
        if self.refusals:
            self.refusals -= 1
            raise InfrastructureError("libvirt could not start the guest")
        return state.memory.read_text()

    def start(self, spec: GuestSpec = SPEC) -> str:
        return start_from_state(self.cache, spec, make=self.make, restore=self.restore)


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
        start_from_state(guests.cache, SPEC, make=make, restore=guests.restore)
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

    start_from_state(cache, SPEC, make=make, restore=guests.restore)


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
