"""Fixtures of several test modules."""

from __future__ import annotations

import mmap
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from played import Played
from real_cache import RealCache, real_caches
from staged import Stage

from orchestrator.guest.cache import CACHE_VARIABLE
from orchestrator.host.shell import HostShell, remote_shell
from orchestrator.host.ssh import SshTarget
from orchestrator.interrupts import KINDS
from orchestrator.procfs import kib_lines
from orchestrator.units import MIB, PAGE_BYTES, PMD_BYTES

REAL_CACHE = RealCache(real_caches(os.environ))


# Modules that compile the model's kernels, a second or two for each policy.
KERNELS = {
    "test_audit_overcommit",
    "test_cli_model",
    "test_model_replay",
    "test_modelled",
    "test_overcommit",
    "test_overcommit_file",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What compiles kernels comes first, since it takes longest."""
    items.sort(key=lambda item: item.path.stem not in KERNELS)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:  # pytest-xdist ships no types
    """A module stays in one process, with its fixtures; those that compile kernels share them in one.

    `--dist loadgroup` has no effect with pytest 9.2 and pytest-xdist 3.8: it sets a name that is not read.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByModule(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            module = Path(nodeid.partition("::")[0]).stem
            return "kernels" if module in KERNELS else module

    return ByModule(config, log)


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """As they were: a process that a signal ends ignores further ones, and this one goes on."""
    before = {number: signal.getsignal(number) for number in KINDS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """A cache that begins empty, for all tests that do not choose one.

    What takes seconds to make and is the same for all is shared by the processes of pytest-xdist; compiled
    code is kept in pytest's own cache, since a file of it is named by all that it is made from.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if hasattr(pytestconfig, "workerinput") else own
    cache = tmp_path_factory.mktemp("cache")
    kept = getattr(pytestconfig, "cache", None)  # not with -p no:cacheprovider
    for name, folder in {
        "compiled": kept.mkdir("compiled") if kept else shared / "compiled-of-the-tests",
        "vega": shared / "vega-of-the-tests",
    }.items():
        folder.mkdir(mode=0o700, exist_ok=True)
        (cache / name).symlink_to(folder)
    if "orchestrator.model.jit" in sys.modules:  # a test that was collected compiles
        from orchestrator.store.machine_code import keep_code

        keep_code(cache / "compiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(cache))
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


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def frees_empty_tables() -> bool:
    """Whether this machine's kernel frees last-level tables that madvise() has emptied (CONFIG_PT_RECLAIM):
    what it does to a mapping of our own."""

    def own_tables() -> int:
        return kib_lines(Path("/proc/self/status").read_text())["VmPTE"]

    span = 256 * MIB
    with mmap.mmap(-1, span, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area.madvise(mmap.MADV_NOHUGEPAGE)
        for at in range(0, span, PMD_BYTES):
            area[at] = 1
        touched = own_tables()
        area.madvise(mmap.MADV_DONTNEED)
        freed = touched - own_tables()
    assert freed == 0 or freed >= 100 * PAGE_BYTES, "the tables of a range are all freed or none"
    return freed > 0
