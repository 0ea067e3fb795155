"""Fixtures of several test modules."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from played import Played
from real_cache import RealCache, real_caches

from orchestrator.guest.cache import CACHE_VARIABLE
from orchestrator.host.shell import HostShell, remote_shell
from orchestrator.host.ssh import SshTarget

REAL_CACHE = RealCache(real_caches(os.environ))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under pytest-xdist (`--dist loadgroup`), a module stays in one process, with its fixtures.

    Modules that compile the model's kernels stay in one together, and begin, since that takes longest.
    """
    if not config.pluginmanager.hasplugin("xdist"):
        return
    items.sort(key=lambda item: item.get_closest_marker("kernels") is None)
    for item in items:
        group = "kernels" if item.get_closest_marker("kernels") else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache that begins empty, for all tests that do not choose one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        REAL_CACHE.install()
        yield


@pytest.fixture(autouse=True)
def real_cache() -> Iterator[RealCache]:
    """Fails a test that touches the cache of whoever runs it."""
    before = len(REAL_CACHE.touched)
    yield REAL_CACHE
    touched = REAL_CACHE.touched[before:]
    assert not touched, f"the real cache was touched: {touched}"


# As ssh does: the words behind the host are given to a shell.
_HERE = """#!/bin/sh
while [ "$1" != root@there ]; do shift; done
shift
exec sh -c "$*"
"""


@pytest.fixture
def target(tmp_path: Path) -> SshTarget:
    script = tmp_path / "ssh"
    script.write_text(_HERE)
    script.chmod(0o755)
    return SshTarget(script, "there", 22, "root")


@pytest.fixture(params=["here", "there"])
def shell(request: pytest.FixtureRequest, target: SshTarget) -> Iterator[HostShell]:
    """This machine, directly and by a reader that was sent."""
    if request.param == "here":
        yield HostShell()
        return
    with remote_shell(target) as remote:
        yield remote


@pytest.fixture
def trials() -> Played:
    return Played()
