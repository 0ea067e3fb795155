"""The campaign finds what is left, of each kind, and tells a fault that is survived from one that is not."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from campaign import leftovers, play, run
from campaign.fault import FOLDER, Expected, Fault, load_faults
from campaign.kills import TOLERANCES, differences, run_counts
from campaign.leftovers import Places, Trace
from driver import ROOT

from orchestrator.guest.cache import locked

FAULT = Fault("f", "guest", "it breaks", "step", Expected(3, "lost", ("it broke",), 30))


@pytest.fixture
def places(tmp_path: Path) -> Places:
    for name in ("tmp", "runtime", "cache/states", "cache/images", "results/r/trials"):
        (tmp_path / name).mkdir(parents=True)
    return Places((tmp_path / "tmp", tmp_path / "runtime"), tmp_path / "cache", tmp_path / "results")


@pytest.fixture
def before(places: Places) -> set[Trace]:
    return leftovers.look(places)


def kinds(places: Places, before: set[Trace]) -> set[str]:
    return {one.kind for one in leftovers.left(before, leftovers.look(places))}


def test_nothing_is_left_of_nothing(places: Places, before: set[Trace]) -> None:
    (places.results / "r" / "meta.json").write_text("{}")
    (places.cache / "states" / "guest-0123.1").mkdir()
    assert kinds(places, before) == set()


# Becomes the parent of orphans, starts a program that makes itself a daemon, and looks.
_DAEMON = """
import subprocess, sys, time
from pathlib import Path
from campaign import leftovers
leftovers.adopt(set())
places = leftovers.Places((), Path("/nowhere"), Path("/nowhere"))
before = leftovers.look(places)
child = "import os; os.setsid(); os.fork() and os._exit(0); " + sys.argv[1]
subprocess.run([sys.executable, "-c", child], check=True)
end = time.monotonic() + 10
while not (found := leftovers.left(before, leftovers.look(places))) and time.monotonic() < end:
    time.sleep(0.05)
time.sleep(0.5)
found = leftovers.left(before, leftovers.look(places))
print(sorted({one.kind for one in found}))
for process in leftovers.descendants():
    process.kill()
end = time.monotonic() + 10
while leftovers.descendants() and time.monotonic() < end:
    time.sleep(0.05)
print(sorted({one.kind for one in leftovers.left(before, leftovers.look(places))}))
"""
_LISTENS = "import socket; s = socket.create_server(('127.0.0.1', 0)); import time; time.sleep(60)"


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ("import time; time.sleep(60)", "['process']"),
        (_LISTENS, "['process', 'socket']"),
        (
            "import ctypes; assert not ctypes.CDLL(None).unshare(0x04000000); import time; time.sleep(60)",
            "['namespace', 'process']",  # CLONE_NEWUTS
        ),
    ],
)
@pytest.mark.slow
def test_a_daemon_is_found_whatever_it_is_called(program: str, found: str) -> None:
    if "unshare" in program and os.geteuid() != 0:
        pytest.skip("only root makes such a namespace")
    done = subprocess.run(
        [sys.executable, "-c", _DAEMON, program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": f"{FOLDER}:{ROOT / 'tests' / 'e2e'}:{ROOT}"},
    )
    assert done.stdout.splitlines() == [found, "[]"], done.stderr


def test_a_socket_is_found(places: Places, before: set[Trace]) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(places.results / "r" / "s"))
        one.listen()
        assert kinds(places, before) == {"socket"}


def test_a_mount_is_found(places: Places, before: set[Trace], tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    text = Path("/proc/self/mountinfo").read_text()
    line = "99 22 0:99 / {} rw,relatime shared:7 - {} none rw\n"
    mountinfo.write_text(
        text + line.format(f"{places.cache}/a\\040b", "tmpfs") + line.format("/mnt/x", "tmpfs")
    )
    assert kinds(replace(places, mountinfo=mountinfo), before) == {"mount"}
    mountinfo.write_text(text + line.format(f"{places.empty[0]}/net", "nsfs"))
    assert kinds(replace(places, mountinfo=mountinfo), before) == {"namespace"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_real_mount_is_found(places: Places, before: set[Trace]) -> None:
    place = places.cache / "images"
    if subprocess.run(["mount", "-t", "tmpfs", "none", place], check=False).returncode:
        pytest.skip("this machine lets no one mount")
    try:
        assert kinds(places, before) == {"mount"}
    finally:
        subprocess.run(["umount", place], check=True)
    assert kinds(places, before) == set()


def test_folders_and_half_files_are_found(places: Places, before: set[Trace]) -> None:
    for kind, path in {
        "folder": places.empty[0] / "ansible-tmp",
        "half file": places.cache / "states" / ".saving-0123-x",
    }.items():
        path.mkdir()
        assert kinds(places, before) == {kind}
        path.rmdir()
    for path in (places.cache / "images" / ".building-x", places.results / "r" / ".meta.json.7.7.new"):
        path.touch()
        assert kinds(places, before) == {"half file"}
        path.unlink()


def test_what_another_run_saves_at_this_moment_was_not_left(places: Places, before: set[Trace]) -> None:
    saving = places.cache / "states" / ".saving-0123.1-x"
    saving.mkdir()
    with locked(places.cache / "states" / ".locks" / "0123.1"):
        assert kinds(places, before) == set()
    assert kinds(places, before) == {"half file"}


def test_a_setting_that_is_not_put_back_is_found(places: Places, tmp_path: Path) -> None:
    setting = tmp_path / "thp"
    setting.write_text("always [madvise] never\n")
    watched = replace(places, settings=(str(setting),))
    before = leftovers.look(watched)
    setting.write_text("[always] madvise never\n")
    assert kinds(watched, before) == {"setting"}


def test_every_file_has_faults_and_all_have_an_end() -> None:
    faults = load_faults()
    assert next(iter(faults)) == "none"
    for fault in faults.values():
        assert 0 < fault.expected.seconds <= 900, fault.name
        assert fault.play is not None or fault.expected.code != 0 or fault.expected.outcome == "completed"
    assert not {path.stem for path in FOLDER.glob("*.py")} & sys.stdlib_module_names, (
        "it would be imported instead"
    )


def _scene(folder: Path, said: str, trials: list[Any], fault: Fault = FAULT) -> Any:
    run_folder = folder / "results" / "r"
    run_folder.mkdir(parents=True)
    (run_folder / "meta.json").write_text(json.dumps({"exit_code": 3}))
    answer = SimpleNamespace(code=0, err="", json={"trials": trials, "status": "failed"})
    (folder / "tmp").mkdir()
    return SimpleNamespace(
        fault=fault,
        folder=folder,
        cache=folder / "cache",
        said=said,
        run=run_folder,
        results=folder / "results",
        process=None,
        places=Places((folder / "tmp",), folder / "cache", folder / "results"),
        orchestrator=SimpleNamespace(call=lambda *_, **__: answer),
    )


LOST = {"outcome": "lost", "metrics": {"guest_page_table_bytes_peak": 7.0}}
SAID = "error: the guest: it broke\nnext: orchestrator show r\n"


def judged(scene: Any, code: int | None = 3, wrong: list[str] | None = None) -> play.Row:
    return play._judged(scene, leftovers.look(scene.places), code, 1.0, wrong or [])


def test_a_fault_that_is_survived(tmp_path: Path) -> None:
    row = judged(_scene(tmp_path, SAID, [LOST]))
    assert (row.survived, row.outcome, row.said, row.left) == (True, "lost", "the guest: it broke", [])


@pytest.mark.parametrize(
    ("said", "trials", "code", "wrong"),
    [
        (SAID, [{**LOST, "outcome": "completed"}], 3, "outcome completed, not lost"),
        (SAID, [{"outcome": "lost", "metrics": {}}], 3, "what was sampled is lost"),
        (SAID, [LOST], 0, "exit code 0, not 3"),
        (SAID.replace("it broke", "it closed"), [LOST], 3, "it does not say 'it broke'"),
        (SAID.replace("next:", ""), [LOST], 3, "it does not say what to type next"),
        (f"Traceback (most recent call last):\n{SAID}", [LOST], 3, "it prints a traceback"),
    ],
)
def test_a_fault_that_is_not(tmp_path: Path, said: str, trials: list[Any], code: int, wrong: str) -> None:
    assert wrong in judged(_scene(tmp_path, said, trials), code=code).wrong


def test_what_is_left_is_wrong_but_where_clean_removes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(play, "_SETTLE_SECONDS", 0.01)
    scene = _scene(tmp_path, SAID, [LOST])
    before = leftovers.look(scene.places)
    (tmp_path / "tmp" / "x").touch()
    row = play._judged(scene, before, 3, 1.0, [])
    assert row.wrong == [f"left: folder: {tmp_path}/tmp/x"]
    assert run.left_in_words(row.as_json()) == "folder"
    scene.fault = replace(FAULT, expected=Expected(-9, None, cleaned=True))
    scene.orchestrator.call = _cleans(scene.orchestrator.call, tmp_path / "tmp" / "x")
    row = play._judged(scene, before, -9, 1.0, [])
    assert row.survived
    assert run.left_in_words(row.as_json()) == "nothing after clean (folder)"


def _cleans(call: Any, path: Path) -> Any:
    def instead(*words: str, **more: Any) -> Any:
        if words[0] == "clean":
            path.unlink()
        return call(*words, **more)

    return instead


def test_no_control_is_no_survival(tmp_path: Path) -> None:
    row = judged(_scene(tmp_path, SAID, [LOST]), code=None, wrong=["control had not come back after 30 s"])
    assert not row.survived
    assert "NO" in run.table([row.as_json()])
    assert "0 of 1 survived" in run.table([row.as_json()])


def test_rows_of_other_faults_stay_in_a_result(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    run.write_result(path, [{"name": "a", "code": 0}, {"name": "b", "code": 0}])
    run.write_result(path, [{"name": "b", "code": 3}])
    run.write_result(path, kills={"seed": 1})
    found = run.read_result(path)
    assert [(row["name"], row["code"]) for row in found["rows"]] == [("a", 0), ("b", 3)]
    assert found["kills"] == {"seed": 1}


def test_counts_are_compared_within_what_trials_of_an_arm_differ_by() -> None:
    counts = run_counts(ROOT / "results" / "reference" / "quickstart")
    assert counts.keys() == {"linux-6.12", "linux-7.x"}
    assert all(arm.keys() >= TOLERANCES.keys() for arm in counts.values())
    assert differences(counts, counts) == []
    for name, most in TOLERANCES.items():
        other = {arm: {**found, name: found[name] + most + 1} for arm, found in counts.items()}
        assert len(differences(other, counts)) == 2, name
    assert differences({"linux-6.12": counts["linux-6.12"]}, counts) == [
        "arms ['linux-6.12'], not ['linux-6.12', 'linux-7.x']"
    ]
