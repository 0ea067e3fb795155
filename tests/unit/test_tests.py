"""What the tests do not depend on: how they were started, and the cache of whoever started them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from real_cache import RealCache, real_caches

from orchestrator.guest.cache import CACHE_VARIABLE, cache_dir

HERE = Path(__file__).parent


@pytest.mark.slow
def test_signals_come_however_the_tests_were_started() -> None:
    # One signals itself, one a process that it starts.
    chosen = [
        "test_cli_image_shell.py::test_a_second_signal_does_not_disturb_the_end",
        "test_image.py::test_mmdebstrap_ends_with_us_and_has_the_lock_until_then[2]",
    ]
    pytest_argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    argv = ["sh", "-c", "trap '' INT HUP TERM; exec \"$@\"", "sh", *pytest_argv]
    done = subprocess.run(
        [*argv, *(str(HERE / one) for one in chosen)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "2 passed" in done.stdout


def test_the_cache_of_the_tests_is_not_the_real_one(real_cache: RealCache) -> None:
    assert str(cache_dir()) not in real_cache.folders


@pytest.mark.parametrize(
    ("environment", "last"),
    [
        ({"HOME": "/h"}, "/h/.cache/orchestrator"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/x/orchestrator"),
        ({"HOME": "/h", CACHE_VARIABLE: "/mine"}, "/mine"),
    ],
)
def test_where_real_caches_are(
    environment: dict[str, str], last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = real_caches(environment)
    assert found[-1] == last
    for name in ("XDG_CACHE_HOME", CACHE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for uid in (0, 1000):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        assert str(cache_dir()) in found


def test_what_touches_a_real_cache_is_noticed(real_cache: RealCache, tmp_path: Path) -> None:
    folder = tmp_path / "real"
    with real_cache.expected(folder) as touched:
        assert not (folder / "x").exists()
        (tmp_path / "really").mkdir()
        assert touched == [], "to look whether it is there is no harm, nor is a name that begins alike"
        folder.mkdir()
        (folder / "x").write_text("x")
        (folder / "x").rename(tmp_path / "y")
        os.replace(tmp_path / "y", folder / "y")  # noqa: PTH105  # other arguments
        list(folder.iterdir())
        subprocess.run(
            [sys.executable, "-c", ""], env={**os.environ, CACHE_VARIABLE: str(folder)}, check=True
        )
        subprocess.run([sys.executable, "-c", ""], env={}, check=True)
        subprocess.run(["true"], env={}, check=True)
    assert [one.split()[0] for one in touched] == [
        *("os.mkdir", "open", "os.rename", "os.rename", "os.listdir"),
        *("subprocess.Popen", "subprocess.Popen"),
    ]
