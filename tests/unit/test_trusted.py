"""Folders that another user prepared, or could change, are refused: the runtime folder's and the cache's."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator.errors import InfrastructureError
from orchestrator.guest.cache import CACHE_VARIABLE, cache_dir, locked
from orchestrator.guest.keys import ensure_keys
from orchestrator.host.runtime import runtime_folder
from orchestrator.host.trusted import must_be_trusted

NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


def as_nobody(folder: Path, act: Callable[[], object]) -> bool:
    """Do something in a folder as another user; whether the kernel let it."""
    child = os.fork()
    if not child:
        with suppress(OSError):
            os.chdir(folder)  # by name it could not pass through pytest's folders
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            act()
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def sticky(tmp_path: Path) -> Path:
    """As /var/tmp."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def of_another(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: NOBODY)


def test_what_is_ours_or_not_there_is_trusted(tmp_path: Path, sticky: Path) -> None:
    must_be_trusted(tmp_path)
    must_be_trusted(tmp_path / "nothing" / "there")
    (sticky / "ours").mkdir()
    must_be_trusted(sticky / "ours")


def test_what_is_anothers_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "ours").mkdir(parents=True)
    of_another(theirs, monkeypatch)
    for folder in (theirs, theirs / "ours", theirs / "not" / "there"):
        with pytest.raises(InfrastructureError, match=r"belongs to user \d+, who could change"):
            must_be_trusted(folder)


def test_nor_what_everybody_may_write_to(tmp_path: Path, sticky: Path) -> None:
    with pytest.raises(InfrastructureError, match="everybody may write"):
        must_be_trusted(sticky)
    loose = tmp_path / "loose"
    (loose / "ours").mkdir(parents=True)
    loose.chmod(0o777)
    with pytest.raises(InfrastructureError, match="everybody may write"):
        must_be_trusted(loose / "ours")


def test_a_link_is_where_it_is_and_where_it_leads(tmp_path: Path, sticky: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    must_be_trusted(tmp_path / "link")
    (tmp_path / "out").symlink_to(sticky)
    with pytest.raises(InfrastructureError, match="everybody may write"):
        must_be_trusted(tmp_path / "out")


@needs_root
@pytest.mark.parametrize("how", ["folder", "link", "file"])
def test_a_runtime_folder_that_another_user_prepared_is_refused(
    sticky: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    name, goal = f"orchestrator-{os.getuid()}", tmp_path / "goal"
    goal.mkdir()
    acts: dict[str, Callable[[], object]] = {
        "folder": lambda: Path(name).mkdir(),
        "link": lambda: Path(name).symlink_to(goal),
        "file": lambda: Path(name).touch(),
    }
    assert as_nobody(sticky, acts[how])
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME", str(sticky))
    with pytest.raises((InfrastructureError, FileExistsError)), runtime_folder(tmp_path / "run"):
        raise AssertionError("it was used")
    assert not list(goal.iterdir())
    if how == "folder":
        assert not list((sticky / name).iterdir())


@needs_root
def test_nor_can_another_user_take_it_away_or_look_into_it(
    sticky: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME", str(sticky))
    with runtime_folder(tmp_path / "run") as folder:
        base = folder.parent.name
        assert not as_nobody(sticky, lambda: Path(base).rename("theirs"))
        assert not as_nobody(sticky, lambda: sorted(Path(base).iterdir()))
        assert not as_nobody(sticky, lambda: Path(base, folder.name, "v").mkdir())
        assert as_nobody(sticky, lambda: os.chdir(f"{base}/{folder.name}")), "passt passes through as nobody"


@needs_root
def test_a_cache_that_another_user_prepared_is_refused(sticky: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert as_nobody(sticky, lambda: Path("cache/ssh").mkdir(parents=True))
    monkeypatch.setenv(CACHE_VARIABLE, str(sticky / "cache"))
    with pytest.raises(InfrastructureError, match="belongs to user 65534"):
        cache_dir()
    with pytest.raises(InfrastructureError, match="belongs to user 65534"), locked(sticky / "cache" / "ssh"):
        raise AssertionError("it was used")


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_private_keys_are_private_whatever_the_umask_and_whatever_was_there(
    tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        keys = ensure_keys(tmp_path / "cache")
        assert keys.client.parent.stat().st_mode & 0o777 == 0o700
        assert {one.stat().st_mode & 0o777 for one in (keys.client, keys.host)} == {0o600}
        keys.client.chmod(0o644)
        keys.client.parent.chmod(0o755)
        ensure_keys(tmp_path / "cache")
    finally:
        os.umask(before)
    assert keys.client.stat().st_mode & 0o777 == 0o600
    assert keys.client.parent.stat().st_mode & 0o777 == 0o700
