"""Two users of a machine run at once, with runtime folders side by side: neither touches the other's."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

from campaign.fault import Expected, Fault
from campaign.scene import Scene
from driver import ROOT, Orchestrator

_USER = "nobody"
_INTO = ("setpriv", f"--reuid={_USER}", "--regid=nogroup", "--clear-groups", "--")
_LOOKS = "import os, sys, orchestrator; os.listdir(sys.argv[1])"
_RUN_SECONDS = 500.0


def _give(folder: Path) -> None:
    """Make all below a folder the other user's."""
    user = pwd.getpwnam(_USER)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


def _another(scene: Scene) -> Orchestrator:
    """The command line of the other user, with a cache of its own that has the image."""
    if os.geteuid() != 0:
        raise AssertionError("only root can run as another user")
    folder = scene.folder / "other"
    for name in ("home", "tmp", "results", "cache"):
        (folder / name).mkdir(parents=True)
    for name in ("images", "ssh"):  # an image has the keys of its cache in it
        shutil.copytree(scene.cache / name, folder / "cache" / name, symlinks=True)
    other = Orchestrator(
        folder / "results",
        into=_INTO,
        environment={
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "ORCHESTRATOR_CACHE": str(folder / "cache"),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )
    _give(folder)
    for ours in (scene.folder, scene.folder.parent):  # the campaign's own
        ours.chmod(0o755)
    passes = subprocess.run([*_INTO, sys.executable, "-c", _LOOKS, folder], cwd=ROOT, check=False)
    assert passes.returncode == 0, f"{_USER} cannot read the project, or cannot come to {folder}: use --work"
    # As /tmp is: each makes a folder of its own in it.
    shutil.rmtree(other.runtime)
    other.runtime = scene.orchestrator.runtime
    other.runtime.chmod(0o1777)
    other._environment["ORCHESTRATOR_RUNTIME"] = str(other.runtime)
    return other


def _both(scene: Scene) -> tuple[int, str]:
    """Both run; the code of the first that failed, and what both said."""
    path = scene.write_scenario()
    other = _another(scene)
    theirs = scene.folder / "log-of-other"
    processes = [scene.orchestrator.start(path, scene.log), other.start(path, theirs)]
    try:
        codes = [process.wait(_RUN_SECONDS) for process in processes]
        # A user's `clean` ends nothing of the other's, and says nothing of it.
        cleaned = [one.call("clean") for one in (scene.orchestrator, other)]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    said = scene.said + theirs.read_text(errors="replace") + "".join(one.out + one.err for one in cleaned)
    for done in cleaned:
        assert (done.code, "orchestrator-" in done.out) == (0, False), done.out + done.err
    shown = other.show()
    scene.facts["other"] = [trial["outcome"] for trial in shown["trials"]]
    return next((code for code in codes if code), 0), said


def _other_completed(scene: Scene) -> None:
    assert scene.facts.get("other") == ["completed"], scene.facts
    left = [path.name for path in scene.orchestrator.runtime.rglob("*") if path.is_file()]
    assert not left, f"left: {left}"


FAULTS = [
    Fault(
        "two-users",
        "machine",
        "two users run at once, on one machine",
        "whole run",
        Expected(0, "completed", (), 600),
        steps=("wait: {time: 5s}", "snapshot: {label: only}"),
        start="cold",
        play=_both,
        check=_other_completed,
    ),
]
