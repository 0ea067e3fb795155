"""Files are cut short, or have a bit flipped: of the cache, and of a run that has ended."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from campaign.fault import Expected, Fault
from campaign.scene import Scene

Damage = Callable[[Path], None]

_UNDISTURBED_SECONDS = 400.0  # where the guest has to be saved first


def truncate(path: Path) -> None:
    """Cut the second half off."""
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Flip one bit in the middle, of what is no hole."""
    with path.open("r+b") as file:
        at = os.lseek(file.fileno(), path.stat().st_size // 2, os.SEEK_DATA)
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


_DAMAGES: dict[str, tuple[Damage, str]] = {
    "truncated": (truncate, "is cut in half"),
    "flipped": (flip, "has a bit flipped"),
}


def _damage_image(how: Damage) -> Callable[[Scene], None]:
    def prepare(scene: Scene) -> None:
        (disk,) = scene.cache.glob("images/debian-13-*/disk.raw")
        how(disk)

    return prepare


def _damage_state(how: Damage) -> Callable[[Scene], None]:
    """Of the guest that the run is going to restore: other faults have saved guests that differ."""

    def prepare(scene: Scene) -> None:
        undisturbed = scene.orchestrator.run(scene.write_scenario(), seconds=_UNDISTURBED_SECONDS)
        assert undisturbed.code == 0, undisturbed.err[-300:]
        assert scene.run is not None
        with (scene.run / "summary.csv").open() as file:
            (row,) = csv.DictReader(file)
        shutil.rmtree(scene.run)
        (memory,) = (
            memory
            for memory in scene.cache.glob("states/*/memory*")
            if row["state"].startswith(memory.parent.name.rpartition("-")[2])
        )
        how(memory)

    return prepare


def _is_whole_again(scene: Scene) -> None:
    assert "is damaged" in scene.said, "nothing says that it was damaged"


def _cached(what: str, damage: str, seconds: float) -> Fault:
    how, words = _DAMAGES[damage]
    prepare = _damage_state if what == "state" else _damage_image
    return Fault(
        f"{what}-{damage}",
        "machine",
        f"{'the saved memory of a guest' if what == 'state' else 'a guest image'} {words}",
        "before the run",
        Expected(0, "completed", ("is damaged",), seconds),
        steps=("wait: {time: 2s}",),
        moment="is damaged",
        prepare=prepare(how),
        check=_is_whole_again,
    )


_VERBS = ("show", "blame", "report", "compare")
_FILES = {
    "snapshot": ("trials/*/snapshots/*.npz", "a snapshot"),
    "parquet": ("trials/*/observations.parquet", "the file of the samples"),
    "events": ("trials/*/events.jsonl", "the file of the events"),
}


def _read_damaged(pattern: str, how: Damage) -> Callable[[Scene], tuple[int, str]]:
    """Damage a file of a run that has ended, and ask for the run in several ways.

    Each says what is wrong, and names the file, or leaves out what it cannot read. The run is one of the unit
    tests, since no guest is needed.
    """

    def play(scene: Scene) -> tuple[int, str]:
        from synthetic_run import write_run

        run = write_run(scene.folder / "ended", "r-1")
        made = scene.orchestrator.call("report", str(run))
        assert made.code == 0, made.err[-300:]
        victim = min(run.glob(pattern))
        how(victim)
        for table in run.glob("*.csv"):  # what was summed up before the damage would hide it
            table.unlink()
        scene.strike_now()
        worst, said = 0, ""
        for verb in _VERBS:
            done = scene.orchestrator.call(verb, str(run), seconds=300)
            assert done.code in {0, 1, 2}, f"{verb}: {done.code}, {done.err[-300:]}"
            assert done.code != 2 or victim.name in done.err, f"{verb} names no file: {done.err[-300:]}"
            worst, said = max(worst, done.code), said + done.err
        if worst == 0:  # no verb has said so: the trial itself does
            shown = scene.orchestrator.call("show", str(run), "--json").json
            outcomes = {trial["trial"]: trial["outcome"] for trial in shown["trials"]}
            name = victim.relative_to(run / "trials").parts[0]
            assert outcomes[name] != "completed", f"{name} is called completed, with half of its events"
        return worst, said

    return play


def _of_run(name: str, damage: str, code: int) -> Fault:
    pattern, words = _FILES[name]
    how, said = _DAMAGES[damage]
    return Fault(
        f"{name}-{damage}",
        "machine",
        f"{words} {said}",
        "after the run",
        Expected(code, None, (), 120, samples=False),
        play=_read_damaged(pattern, how),
    )


FAULTS = [
    # Of events that end in the middle the trial is one that was killed: `unfinished`.
    *(
        _of_run(name, damage, 0 if (name, damage) == ("events", "truncated") else 2)
        for name in _FILES
        for damage in _DAMAGES
    ),
    *(_cached("state", damage, 400) for damage in _DAMAGES),
    *(_cached("image", damage, 600) for damage in _DAMAGES),
]
