"""Images in the cache: named by all that they are made of, and only used when they were completed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import InfrastructureError
from orchestrator.guest import build
from orchestrator.guest import image as module
from orchestrator.guest.cache import cache_dir, locked
from orchestrator.guest.definition import GuestDefinition
from orchestrator.guest.image import (
    Image,
    ensure_image,
    find_image,
    image_key,
    list_images,
    unfinished_builds,
)
from orchestrator.guest.keys import SshKeys

DEFINITION: dict[str, Any] = {
    "version": 1,
    "name": "debian-13",
    "description": "A guest.",
    "suite": "trixie",
    "also_suites": ["trixie-backports"],
    "disk": "3GiB",
    "packages": ["udev"],
    "kernels": {"6.12": {"package": "linux-image-cloud-amd64", "suite": "trixie"}},
    "initrd_modules": ["ext4"],
    "command_line": "quiet",
}
CHANGES: dict[str, Any] = {
    "name": "debian-14",
    "suite": "forky",
    "also_suites": [],
    "disk": "4GiB",
    "packages": ["udev", "kmod"],
    "kernels": {"7.x": {"package": "linux-image-cloud-amd64", "suite": "trixie"}},
    "initrd_modules": ["ext4", "virtio_blk"],
}
AT_BOOT: dict[str, Any] = {"description": "Another.", "command_line": "debug", "boot_timeout": "9s"}


@pytest.fixture
def keys(tmp_path: Path) -> SshKeys:
    for name in ("client", "host"):
        (tmp_path / f"{name}.pub").write_text(f"ssh-ed25519 {name} comment\n")
    return SshKeys(client=tmp_path / "client", host=tmp_path / "host")


def definition(**changes: object) -> GuestDefinition:
    return GuestDefinition.model_validate({**DEFINITION, **changes})


def test_every_field_of_a_definition_is_tried_here() -> None:
    assert set(CHANGES) | set(AT_BOOT) | {"version"} == set(GuestDefinition.model_fields)


@pytest.mark.parametrize("field", CHANGES)
def test_the_key_changes_with_each_field(keys: SshKeys, field: str) -> None:
    assert image_key(definition(), keys) == image_key(definition(), keys)
    assert image_key(definition(**{field: CHANGES[field]}), keys) != image_key(definition(), keys)


@pytest.mark.parametrize("field", AT_BOOT)
def test_what_only_matters_at_boot_builds_no_new_image(keys: SshKeys, field: str) -> None:
    assert image_key(definition(**{field: AT_BOOT[field]}), keys) == image_key(definition(), keys)


@pytest.mark.parametrize("name", ["client", "host"])
def test_the_key_changes_with_each_ssh_key(keys: SshKeys, tmp_path: Path, name: str) -> None:
    before = image_key(definition(), keys)
    (tmp_path / f"{name}.pub").write_text("ssh-ed25519 another\n")
    assert image_key(definition(), keys) != before


def test_the_key_changes_with_all_text_of_ours_that_goes_in(
    keys: SshKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = image_key(definition(), keys)
    with monkeypatch.context() as patch:
        patch.setattr(build, "_NETWORK", "[Match]\n")
        assert image_key(definition(), keys) != before
    script = tmp_path / "customize.sh"
    script.write_text(build._SCRIPT.read_text() + "\n")
    monkeypatch.setattr(build, "_SCRIPT", script)
    assert image_key(definition(), keys) != before


def finished(folder: Path) -> Path:
    folder.mkdir(parents=True)
    facts = {"key": "k", "releases": {"6.12": "6.12.57+deb13"}, "packages": {"libc6": "2.41"}}
    (folder / "image.json").write_text(json.dumps(facts))
    (folder / "disk.raw").write_bytes(b"x" * 8192)
    return folder


RELEASE = "6.12.57+deb13"


def unsealed(folder: Path) -> Path:
    """What a build makes of an image."""
    (folder / "boot").mkdir(parents=True)
    (folder / "disk.raw").write_bytes(b"x" * 8192)
    for name in ("vmlinuz", "initrd.img"):
        (folder / "boot" / f"{name}-{RELEASE}").write_text(name)
    return folder


def test_an_image_that_was_never_completed_is_none(tmp_path: Path) -> None:
    assert find_image(tmp_path / "absent", "k") is None
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "disk.raw").touch()
    assert find_image(tmp_path / "unfinished", "k") is None
    image = find_image(finished(tmp_path / "finished"), "k")
    assert image is not None
    assert image.releases == {"6.12": "6.12.57+deb13"}
    assert image.packages == {"libc6": "2.41"}


def test_a_build_that_fails_leaves_nothing_and_one_that_ends_is_kept(
    keys: SshKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds: list[Path] = []

    def build_one(one: GuestDefinition, _keys: SshKeys, scratch: Path, lock: int) -> build.Built:
        builds.append(scratch)
        made = unsealed(scratch / "image")
        if len(builds) == 1:
            raise InfrastructureError("no network")
        return build.Built(made, {"6.12": RELEASE}, {})

    monkeypatch.setattr(module, "build_image", build_one)
    cache = tmp_path / "cache"
    (cache / "images" / ".building-killed").mkdir(parents=True)
    notes: list[str] = []
    with pytest.raises(InfrastructureError, match="no network"):
        ensure_image(definition(), keys, cache, progress=notes.append)
    assert [path.name for path in (cache / "images").iterdir()] == [".lock"]
    image = ensure_image(definition(), keys, cache, progress=notes.append)
    assert image.folder.name == f"debian-13-{image_key(definition(), keys)}"
    assert image.disk.exists()
    assert ensure_image(definition(), keys, cache, progress=notes.append) == image
    assert len(builds) == 2, "a cached image is not built again"
    ensure_image(definition(), keys, cache, progress=notes.append, refresh=True)
    assert len(builds) == 3
    (listed,) = list_images(cache)
    assert (listed["name"], listed["key"]) == ("debian-13", image_key(definition(), keys))
    assert isinstance(listed["bytes"], int)
    assert listed["bytes"] >= 8192


@pytest.mark.parametrize("file", ["disk.raw", f"boot/vmlinuz-{RELEASE}", f"boot/initrd.img-{RELEASE}"])
@pytest.mark.parametrize("sealed", [True, False])
def test_a_damaged_image_is_built_again_and_kept_until_then(
    keys: SshKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, *, sealed: bool
) -> None:
    mirror = [True]

    def build_one(_definition: GuestDefinition, _keys: SshKeys, scratch: Path, _lock: int) -> build.Built:
        if not mirror:
            raise InfrastructureError("no network")
        return build.Built(unsealed(scratch / "image"), {"6.12": RELEASE}, {})

    monkeypatch.setattr(module, "build_image", build_one)
    notes: list[str] = []
    image = ensure_image(definition(), keys, tmp_path, progress=notes.append)
    if not sealed:  # as an older version left it
        (image.folder / "seal.json").unlink()
        ensure_image(definition(), keys, tmp_path, progress=notes.append)
    assert len(notes) == 1
    whole = (image.folder / file).read_bytes()
    (image.folder / file).write_bytes(b"y" + whole[1:])
    mirror.clear()
    for _ in range(2):
        with pytest.raises(InfrastructureError, match="no network"):
            ensure_image(definition(), keys, tmp_path, progress=notes.append)
        assert f"damaged: {image.folder / file} has other contents" in notes[-2]
        assert image.disk.is_file(), "it is gone before another one is there"
    mirror.append(True)
    ensure_image(definition(), keys, tmp_path, progress=notes.append)
    assert (image.folder / file).read_bytes() == whole
    assert [path.name for path in (tmp_path / "images").glob(".building-*")] == []


# Plays mmdebstrap: says that it began, and takes a while to clean up when it is asked to end.
_SLOW_TO_END = """\
#!/bin/sh
trap 'echo term >>"$NOTES/signals"; sleep 1; touch "$NOTES/ended"; exit 1' TERM
echo $$ >"$NOTES/part" && mv "$NOTES/part" "$NOTES/began"
while :; do sleep 0.05; done
"""
_BUILD = """\
import sys
from pathlib import Path
from orchestrator.guest import build
from orchestrator.guest.definition import GuestDefinition
from orchestrator.guest.image import ensure_image
from orchestrator.guest.keys import SshKeys
folder = Path(sys.argv[1])
build.debian_mirror = lambda: "http://mirror/"
definition = GuestDefinition.model_validate_json(sys.argv[2])
keys = SshKeys(client=folder / "client", host=folder / "host")
ensure_image(definition, keys, folder / "cache", progress=print)
"""


def test_two_units_that_start_at_once_build_an_image_once(
    keys: SshKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = GuestDefinition.model_validate(DEFINITION)
    built: list[Path] = []
    both = threading.Barrier(2)

    def slowly(_: GuestDefinition, __: SshKeys, scratch: Path, ___: int) -> Any:
        built.append(scratch)
        time.sleep(0.3)  # the other one wants it by now
        return SimpleNamespace(folder=unsealed(scratch / "made"), releases={"6.12": RELEASE}, packages={})

    monkeypatch.setattr(module, "build_image", slowly)
    monkeypatch.setattr(build, "debian_mirror", lambda: "http://mirror/")

    def unit(_: int) -> Image:
        both.wait(10)
        return ensure_image(definition, keys, tmp_path / "cache", progress=lambda _: None)

    with ThreadPoolExecutor(2) as pool:  # flock(2) is of an open file: threads with one each are as processes
        first, second = pool.map(unit, range(2))
    assert first == second
    assert len(built) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_mmdebstrap_ends_with_us_and_has_the_lock_until_then(
    keys: SshKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    keys.host.touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mmdebstrap").write_text(_SLOW_TO_END)
    (tmp_path / "bin" / "mmdebstrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("NOTES", str(tmp_path))
    cache, began = tmp_path / "cache", tmp_path / "began"
    argv = [sys.executable, "-c", _BUILD, str(tmp_path), json.dumps(DEFINITION)]
    # In a group of its own, which gets the signal as it would from a terminal.
    with subprocess.Popen(argv, process_group=0, stderr=subprocess.DEVNULL) as orchestrator:
        assert wait_for(lambda: began.exists() or None, Deadline(10), every=0.02)
        assert unfinished_builds(cache) == [], "it is going on"
        os.killpg(orchestrator.pid, number)
    if number == signal.SIGKILL:
        assert not (tmp_path / "ended").exists()
        assert unfinished_builds(cache) == [], "it is still cleaning up"
    with locked(cache / "images"):
        assert (tmp_path / "ended").exists()
    assert (tmp_path / "signals").read_text() == "term\n"
    left = list((cache / "images").glob(".building-*"))
    assert unfinished_builds(cache) == left
    assert len(left) == (1 if number == signal.SIGKILL else 0)


def test_clean_removes_an_unfinished_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME", str(tmp_path / "runtime"))

    def clean(*words: str) -> Any:
        with pytest.raises(SystemExit, match="0"):
            main(["clean", "--json", *words])
        return json.loads(capsys.readouterr().out)["unfinished_builds"]

    assert clean() == []
    assert not (tmp_path / "cache").exists()
    kept = finished(tmp_path / "cache" / "images" / "debian-13-k")
    killed = finished(tmp_path / "cache" / "images" / ".building-x" / "image").parent
    with locked(tmp_path / "cache" / "images"):
        assert clean() == []
    assert clean("--dry-run") == [str(killed)]
    assert clean() == [str(killed)]
    assert not killed.exists()
    assert (kept / "image.json").exists()
    assert clean() == []


def test_what_is_booted(tmp_path: Path) -> None:
    image = Image(tmp_path, "k", {"6.12": "6.12.57+deb13"}, {})
    boot = image.boot_files("6.12")
    assert boot.kernel == tmp_path / "boot" / "vmlinuz-6.12.57+deb13"
    assert boot.initrd == tmp_path / "boot" / "initrd.img-6.12.57+deb13"
    assert boot.release == "6.12.57+deb13"
    own = tmp_path / "bzImage"
    own.touch()
    boot = image.boot_files(str(own))
    assert (boot.kernel, boot.initrd, boot.release) == (own, None, "bzImage")
    with pytest.raises(InfrastructureError, match="no kernel at"):
        image.boot_files(str(tmp_path / "nowhere"))
    with pytest.raises(InfrastructureError, match=r"no kernel '7\.x'"):
        image.boot_files("7.x")


@pytest.mark.parametrize(
    ("listed", "mirror"),
    [
        (
            "http://security/|Debian-Security|trixie-security\nhttp://main/debian|Debian|trixie\n",
            "http://main/debian",
        ),
        ("http://main/|Debian|trixie-updates\nhttp://other/|Debian|bookworm\n", "http://other/"),
        ("http://x/|Debian Backports|bookworm-backports\n", None),
        ("", None),
    ],
)
def test_the_mirror_that_apt_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: str, mirror: str | None
) -> None:
    apt = tmp_path / "apt-get"
    apt.write_text(f"#!/bin/sh\ncat <<'END'\n{listed}END\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if mirror:
        assert build.debian_mirror() == mirror
        return
    with pytest.raises(InfrastructureError, match="apt knows no Debian mirror"):
        build.debian_mirror()


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("ORCHESTRATOR_CACHE")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert cache_dir() == Path("/var/cache/orchestrator")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_dir() == Path("/x/orchestrator")
    monkeypatch.setenv("XDG_CACHE_HOME", "")  # empty counts as unset (XDG base directories)
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_dir() == Path("/home/me/.cache/orchestrator")
