"""Setting a guest up: only its own key is believed, and a task that fails is named."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ansible_runner
import pytest

from orchestrator.errors import InfrastructureError, SetupError
from orchestrator.guest.keys import SshKeys
from orchestrator.guest.setup import apply_playbook, apply_settings, setting_words
from orchestrator.guest.shell import CommandResult
from orchestrator.host.confined import DAC_READ_SEARCH
from orchestrator.scenario.model import Setup

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
SETTINGS_SOURCE = PLAYBOOKS.parent / "guests" / "programs" / "guest-settings.sh"

Apply = Callable[[], None]


@pytest.fixture
def apply(tmp_path: Path) -> Apply:
    shell: Any = SimpleNamespace(port=40022, known_hosts=tmp_path / "known_hosts", proxy=None)
    keys = SshKeys(client=tmp_path / "client", host=tmp_path / "host")
    return lambda: apply_playbook(
        PLAYBOOKS / "guest.yaml", {"thp": "never"}, shell, keys, tmp_path / "scratch", check=lambda: None
    )


def runner(
    monkeypatch: pytest.MonkeyPatch, status: str, events: tuple[dict[str, Any], ...] = (), stdout: str = ""
) -> dict[str, Any]:
    """Put a stand-in for ansible_runner.run in place; returns what it was called with."""
    called: dict[str, Any] = {}

    def run(**options: Any) -> SimpleNamespace:
        called.update(options, thread=threading.current_thread())
        for event in events:
            assert options["event_handler"](event) is False, "no copy of an event on disk"
        return SimpleNamespace(status=status, stdout=io.StringIO(stdout))

    monkeypatch.setattr(ansible_runner, "run", run)
    return called


def test_only_the_guests_own_key_is_believed(
    apply: Apply, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    called = runner(monkeypatch, "successful")
    apply()
    host = called["inventory"]["all"]["hosts"]["guest"]
    options = host["ansible_ssh_common_args"]
    assert "StrictHostKeyChecking=yes" in options
    assert f"UserKnownHostsFile={tmp_path / 'known_hosts'}" in options
    assert "-F /dev/null" in options
    assert "IdentityAgent=none" in options
    assert called["envvars"]["ANSIBLE_HOST_KEY_CHECKING"] == "True"
    assert (host["ansible_host"], host["ansible_port"]) == ("127.0.0.1", 40022)
    assert called["extravars"] == {"thp": {"__ansible_unsafe": "never"}}
    assert called["thread"] is not threading.main_thread(), "it would take our signal handlers"


# Adopts orphans, as a run does, and applies a playbook with a stand-in for Ansible that leaves what
# ControlPersist does: an orphaned ssh in a session of its own, with its socket's path on its command line.
# argv[1] is a program of that name, argv[2] the scratch folder, argv[3] the tenths of a second that it lasts.
_PERSISTS = """
import subprocess, sys, time, ansible_runner, psutil
from pathlib import Path
from types import SimpleNamespace
from orchestrator.guest.keys import SshKeys
from orchestrator.guest.setup import apply_playbook
from orchestrator.host.orphans import adopt_orphans
adopt_orphans()
program, scratch, lasts = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
LOOP = f"n=0; while [ $n -lt {lasts} ]; do n=$((n+1)); sleep 0.1; done"
# Not by Popen, which reaps a child that has ended by the time it is deleted (subprocess.py, Popen.__del__)
code = "import os, sys; os.posix_spawn(sys.argv[1], sys.argv[1:], {})"
def run(**options):
    argv = [sys.executable, "-c", code, program, "-c", LOOP, str(scratch / "c" / "socket")]
    subprocess.run(argv, start_new_session=True, check=True, stdout=subprocess.DEVNULL)
    (left,) = psutil.Process().children()
    while int(lasts) == 0 and left.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    print(left.name(), end=" ")
    return SimpleNamespace(status="successful")
ansible_runner.run = run
shell = SimpleNamespace(port=1, known_hosts=scratch / "k", proxy=None)
keys = SshKeys(client=scratch / "c1", host=scratch / "h1")
apply_playbook(Path("p.yaml"), {}, shell, keys, scratch, check=lambda: None)
print([one.status() for one in psutil.Process().children(recursive=True) if one.name() == "ssh"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("lasts", ["100", "0"], ids=["goes on", "ended by itself"])
def test_no_connection_of_ansibles_is_left_not_even_a_zombie(tmp_path: Path, lasts: str) -> None:
    program = shutil.copy("/bin/sh", tmp_path / "ssh")
    argv = [sys.executable, "-c", _PERSISTS, str(program), str(tmp_path / "scratch"), lasts]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "ssh []\n", done.stderr


def test_ansible_has_the_privileges_that_it_needs(apply: Apply, monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, str] = {}

    def run(**_: Any) -> SimpleNamespace:
        text = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
        said.update({line.partition(":")[0]: line.partition(":")[2].strip() for line in text.splitlines()})
        return SimpleNamespace(status="successful")

    monkeypatch.setattr(ansible_runner, "run", run)
    apply()
    kept = 1 << DAC_READ_SEARCH if os.geteuid() == 0 else 0
    assert (said["NoNewPrivs"], int(said["CapEff"], 16)) == ("1", kept)


def test_a_failed_task_is_named(apply: Apply, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = {
        "event": "runner_on_failed",
        "event_data": {"task": "Set memory policies", "res": {"msg": "write error"}},
    }
    fine = {"event": "runner_on_ok", "event_data": {"task": "Configure Redis", "res": {"msg": "fine"}}}
    runner(monkeypatch, "failed", (fine, failed))
    with pytest.raises(InfrastructureError, match=r"guest\.yaml: failed") as error:
        apply()
    assert error.value.details == "Set memory policies: write error"


def test_a_failed_command_is_told_by_what_it_said(apply: Apply, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"msg": "non-zero return code", "stderr": "no such sysctl"}
    runner(
        monkeypatch,
        "failed",
        ({"event": "runner_on_failed", "event_data": {"task": "Set it", "res": said}},),
    )
    with pytest.raises(InfrastructureError) as error:
        apply()
    assert error.value.details == "Set it: no such sysctl"


def test_without_a_task_its_output_tells(apply: Apply, monkeypatch: pytest.MonkeyPatch) -> None:
    runner(monkeypatch, "timeout", stdout="x" * 5000 + "the end")
    with pytest.raises(InfrastructureError, match="timeout") as error:
        apply()
    assert error.value.details.endswith("the end")
    assert len(error.value.details) <= 2000


def test_a_runner_that_does_not_start_is_told(apply: Apply, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(**_: object) -> None:
        raise OSError("no ansible-playbook here")

    monkeypatch.setattr(ansible_runner, "run", run)
    with pytest.raises(InfrastructureError, match="did not start") as error:
        apply()
    assert "no ansible-playbook here" in error.value.details


def test_the_playbook_is_given_every_variable_that_it_uses() -> None:
    text = (PLAYBOOKS / "guest.yaml").read_text()
    assert set(re.findall(r"\{\{ *(\w+)", text)) == {"programs"}


class Sys:
    """A guest's /sys and redis.conf in a folder, and guest-settings to run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.auto_online = self.file("sys/devices/system/memory/auto_online_blocks", "offline")
        self.thp = self.file("sys/kernel/mm/transparent_hugepage/enabled", "image's own")
        self.policy = self.file("sys/module/memory_hotplug/parameters/online_policy", "contig-zones")
        self.ratio = self.file("sys/module/memory_hotplug/parameters/auto_movable_ratio", "301")
        sysctl = self.file("bin/sysctl", '#!/bin/sh\nprintf "%s|" "$@"\necho\n')
        sysctl.chmod(0o755)
        self.redis = self.file("etc/redis/workload.conf", "of an earlier trial")

    def file(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
        return path

    def set(self, **setup: object) -> subprocess.CompletedProcess[str]:
        return self.call(*setting_words(Setup.model_validate(setup).model_dump()))

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        script = SETTINGS_SOURCE.read_text()
        for folder in ("/sys/", "/etc/redis/", "/proc/", "/var/swap"):
            assert folder in script
            script = script.replace(folder, f"{self.folder}{folder}")
        env = {"PATH": f"{self.folder}/bin:{os.environ['PATH']}"}
        argv = ["sh", "-c", script, "guest-settings", *words]
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)

    @property
    def written(self) -> tuple[str, ...]:
        paths = (self.auto_online, self.policy, self.ratio, self.thp)
        return tuple(path.read_text().strip() for path in paths)


@pytest.fixture
def guest_sys(tmp_path: Path) -> Sys:
    return Sys(tmp_path)


@pytest.mark.parametrize(
    ("setup", "written"),
    [
        ({}, ("online", "contig-zones", "301", "image's own")),
        (
            {"online_policy": "online_kernel", "thp": "never"},
            ("online_kernel", "contig-zones", "301", "never"),
        ),
        ({"online_policy": "auto-movable"}, ("online", "auto-movable", "301", "image's own")),
        (
            {"online_policy": "auto-movable", "auto_movable_ratio": 0},
            ("online", "auto-movable", "0", "image's own"),
        ),
    ],
)
def test_policies_are_written_to_sysfs(
    guest_sys: Sys, setup: dict[str, object], written: tuple[str, ...]
) -> None:
    done = guest_sys.set(**setup)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert guest_sys.written == written


def test_a_plain_policy_is_not_left_to_auto_movable(guest_sys: Sys) -> None:
    guest_sys.policy.write_text("auto-movable\n")
    assert guest_sys.set(online_policy="online").returncode == 0
    assert guest_sys.written[:2] == ("online", "contig-zones")
    guest_sys.policy.chmod(0o444)
    before = guest_sys.policy.stat().st_mtime_ns
    assert guest_sys.set(online_policy="online").returncode == 0
    assert guest_sys.policy.stat().st_mtime_ns == before, "the default is not written again"


def test_a_kernel_without_auto_movable_is_told_of_and_does_for_the_others(guest_sys: Sys) -> None:
    guest_sys.ratio.unlink()
    guest_sys.policy.unlink()
    failed = guest_sys.set(online_policy="auto-movable")
    assert failed.returncode == 1
    assert failed.stderr == (
        "the guest's kernel has no memory_hotplug.auto_movable_ratio: online_policy auto-movable needs it\n"
    )
    assert guest_sys.auto_online.read_text() == "offline\n"
    assert guest_sys.set(online_policy="online_movable").returncode == 0
    assert guest_sys.auto_online.read_text() == "online_movable\n"
    assert not guest_sys.policy.exists()


def test_sysctls_are_set_as_they_are_written(guest_sys: Sys) -> None:
    done = guest_sys.set(
        sysctl={"vm.max_map_count": 131072, "kernel/core_pattern": "$(touch x) 'a\" b=c; \\ %e"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "-q|-w|--|vm.max_map_count=131072|",
        "-q|-w|--|kernel/core_pattern=$(touch x) 'a\" b=c; \\ %e|",
    ]


def test_a_sysctl_that_cannot_be_set_ends_the_set_up(guest_sys: Sys) -> None:
    guest_sys.file("bin/sysctl", "#!/bin/sh\necho cannot stat >&2\nexit 1")
    done = guest_sys.set(sysctl={"vm.a": 1, "vm.b": 2})
    assert (done.returncode, done.stderr) == (1, "cannot stat\n")


def test_redis_is_configured(guest_sys: Sys) -> None:
    done = guest_sys.set(redis_config={"maxmemory": 100, "save": "a = $(touch x) 'b'"})
    assert done.returncode == 0, done.stderr
    lines = guest_sys.redis.read_text().splitlines()
    assert lines[0] == "bind 127.0.0.1"
    assert lines[-2:] == ["maxmemory 100", "save a = $(touch x) 'b'"]


@pytest.mark.parametrize(
    ("setup", "called"),
    [
        ({}, []),
        ({"swap": "none"}, []),
        (
            {"swap": "disk", "swap_size": "64MiB"},
            ["fallocate -l 67108864 {0}/var/swap", "mkswap {0}/var/swap", "swapon {0}/var/swap"],
        ),
        (
            {"swap": "zram"},
            ["modprobe zram", "mkswap /dev/zram0", "swapon /dev/zram0"],
        ),
    ],
)
def test_swap_is_made_and_switched_on(guest_sys: Sys, setup: dict[str, object], called: list[str]) -> None:
    log = guest_sys.folder / "called"
    for name in ("fallocate", "mkswap", "swapon", "modprobe"):
        makes = f"touch {guest_sys.folder}/var/swap" if name == "fallocate" else ""
        text = f'#!/bin/sh\necho "{name} $*" >>{log}\n{makes}'
        guest_sys.file(f"bin/{name}", text).chmod(0o755)
    (guest_sys.folder / "var").mkdir()
    size = guest_sys.file("sys/block/zram0/disksize", "0")
    done = guest_sys.set(**setup)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    lines = log.read_text().splitlines() if log.exists() else []
    assert lines == [line.format(guest_sys.folder) for line in called]
    assert size.read_text() == ("536870912\n" if setup.get("swap") == "zram" else "0\n")
    if setup.get("swap") == "disk":
        assert (guest_sys.folder / "var" / "swap").stat().st_mode & 0o777 == 0o600


def test_the_connection_is_spared_up_to_the_first_process(guest_sys: Sys) -> None:
    for pid, parent in ((os.getpid(), 70), (70, 1), (1, 0)):
        guest_sys.file(f"proc/{pid}/status", f"Name:\tsshd\nPid:\t{pid}\nPPid:\t{parent}\nTracerPid:\t0")
        guest_sys.file(f"proc/{pid}/oom_score_adj", "0")
    done = guest_sys.call("connection=spared")
    assert (done.returncode, done.stderr) == (0, "")
    adjusted = {
        path.parent.name: path.read_text().strip() for path in guest_sys.folder.glob("proc/*/oom_score_adj")
    }
    assert adjusted == {str(os.getpid()): "-1000", "70": "-1000", "1": "0"}


def test_a_setting_that_guest_settings_does_not_know(guest_sys: Sys) -> None:
    done = guest_sys.call("colour=red")
    assert (done.returncode, done.stderr) == (2, "guest-settings: what is colour=red?\n")


def test_the_clock_is_set(guest_sys: Sys) -> None:
    date = guest_sys.file("bin/date", '#!/bin/sh\necho "$@" >&2')
    date.chmod(0o755)
    done = guest_sys.call("clock=1764108000.250")
    assert done.stderr == "-u -s @1764108000.250\n"


def test_what_the_guest_refused_is_told() -> None:
    shell: Any = SimpleNamespace(run=lambda argv, **_: CommandResult(1, b"", b"cannot stat /proc/sys/vm/x\n"))
    with pytest.raises(SetupError) as error:
        apply_settings(shell, {"sysctl": {"vm.x": 1}}, clock=False)
    assert error.value.details == "cannot stat /proc/sys/vm/x"
