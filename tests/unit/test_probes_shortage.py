"""Probes of memory that ran out: stalls, swap and OOM kills, of the guest, its host and QEMU's cgroup."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from fakes import MACHINE, FakeDomain, host_with
from read_probes import guest, host, values

from orchestrator.guest.sampler import Tick
from orchestrator.host.shell import HostShell
from orchestrator.probes import PROBES, HostView
from orchestrator.procfs import memory_cgroup
from orchestrator.series import Headline

PSI = (
    "some avg10=0.00 avg60=1.20 avg300=0.31 total=1204567\n"
    "full avg10=0.00 avg60=0.80 avg300=0.20 total=904567\n"
)


def test_stalls_are_seconds_since_the_boot() -> None:
    path = "/proc/pressure/memory"
    expected = {"some": 1.204567, "full": 0.904567}
    assert values(guest("guest_pressure", Tick(1, {path: PSI}))) == expected
    assert values(host("host_pressure", FakeDomain(shell=host_with({path: PSI})))) == expected


def test_stalls_that_are_longer_than_the_guest_has_run_are_none() -> None:
    text = PSI.replace("904567", "999999999999999999")
    some, full = guest("guest_pressure", Tick(5_000_000_000, {"/proc/pressure/memory": text}))
    assert (some.value, full.value) == (1.204567, None)
    assert full.gap == "the guest says 1000000000000 s, and it has run for 5 s"


@pytest.mark.parametrize("text", [None, "", "some avg10=0.00 total=-1\n", f"some avg10={'9' * 99} total=1\n"])
def test_a_kernel_without_pressure_says_why(text: str | None) -> None:
    readings = guest("guest_pressure", Tick(1, {"/proc/pressure/memory": text}))
    assert {one.name: one.value for one in readings} == {"some": None, "full": None}
    assert {one.gap for one in readings} == {
        "the guest's kernel has no /proc/pressure/memory: no CONFIG_PSI, or psi=0"
    }
    assert all(one.gap for one in host("host_pressure", FakeDomain(shell=host_with({}))))


def test_what_the_host_counts_of_want_of_memory() -> None:
    files = {"/proc/vmstat": "nr_free_pages 5\npswpin 7\npswpout 9\noom_kill 2\n"}
    found = values(host("host_vmstat", FakeDomain(shell=host_with(files))))
    assert found == {"oom_kill": 2, "pswpin": 7, "pswpout": 9}
    assert all(one.gap for one in host("host_vmstat", FakeDomain(shell=host_with({}))))


V1 = "9:name=systemd:/\n4:memory:/box/a[1]\n1:cpu:/\n0::/\n"
V2 = "0::/machine.slice/vm-1.scope\n"


@pytest.mark.parametrize(
    ("own", "path", "text"),
    [
        (
            V1,
            "/sys/fs/cgroup/memory/box/a[1]/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
        ),
        (
            V2,
            "/sys/fs/cgroup/machine.slice/vm-1.scope/memory.events",
            "low 0\nhigh 0\nmax 9\noom 4\noom_kill 3\noom_group_kill 0\n",
        ),
    ],
)
def test_kills_in_qemus_cgroup_outlive_it(own: str, path: str, text: str) -> None:
    files = {"/proc/7/cgroup": own, path: text}
    probe = PROBES["host_cgroup"]()
    # As glob(7) has it, in which `[1]` is a pattern.
    shell = HostShell(
        lambda name, patterns, **_: {
            one: text for one, text in files.items() if any(fnmatchcase(one, p) for p in patterns)
        }
    )
    view = HostView(FakeDomain(pid=7, shell=shell), MACHINE, "tcg")
    assert values(list(probe.from_host(view))) == {"oom_kill": 3}
    del files["/proc/7/cgroup"]
    files[path] = text.replace("oom_kill 3", "oom_kill 4")
    assert values(list(probe.from_host(view))) == {"oom_kill": 4}
    del files[path]
    (reading,) = probe.from_host(view)
    assert (reading.value, reading.gap) == (
        None,
        f"no count of OOM kills in {path}: the root cgroup has none",
    )


@pytest.mark.parametrize("own", ["", "0::/../other\n", "4:memory:/../..\n0::/\n"])
def test_a_cgroup_that_is_not_to_be_seen_is_a_gap(own: str) -> None:
    files = host_with({"/proc/7/cgroup": own, "/proc/70/cgroup": V2})
    (reading,) = host("host_cgroup", FakeDomain(pid=7, shell=files))
    assert (reading.value, reading.gap) == (None, "QEMU's memory cgroup is not to be seen from here")


def test_this_machine_counts_kills_where_its_own_file_does() -> None:
    (reading,) = host("host_cgroup", FakeDomain(pid=os.getpid()))
    own = memory_cgroup(Path("/proc/self/cgroup").read_text())
    if own.path and Path(own.events).exists():
        lines = Path(own.events).read_text().splitlines()
        assert [f"oom_kill {reading.value:.0f}"] == [one for one in lines if one.startswith("oom_kill ")]
    else:
        assert reading.value is None
        assert reading.gap


def test_a_counter_that_began_before_the_trial_stands_by_its_growth() -> None:
    headline = Headline("x", "growth")
    assert headline.of([3.0, 3.0, 5.0]) == 2.0
    assert headline.of([3.0]) == 0.0
    assert headline.of([]) is None
