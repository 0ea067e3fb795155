"""What ./bootstrap installs, from where, and as whom. Scripts on PATH play apt, dpkg-query, id and sudo."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LISTS = Path("orchestrator") / "doctor" / "debian-packages.sh"
RELEASE, BACKPORTS = "1:7.2+dfsg-7", "1:10.0.2+ds-2~bpo12+1"
FLEET_LOCK = "distributed==2026.8\n"
MAIN = "http://mirror.example/debian/|Debian|bookworm|Debian"
FOREIGN = "http://vendor/|Vendor|bookworm|Vendor"
SECURITY = "http://security/|Debian-Security|bookworm|Debian"
BACKPORTED = "http://mirror.example/debian/|Debian Backports|bookworm-backports|Debian Backports"

# Each plays what bootstrap asks of the real one; the machine is the files in $STATE.
STUBS = {
    # Lines of $STATE/dpkg: STATUS PACKAGE VERSION.
    "dpkg-query": """\
case $3 in
*Status*) shift 3; for name; do grep " $name " "$STATE/dpkg" | cut -d' ' -f1,2; done ;;
*) grep " $4 " "$STATE/dpkg" | cut -d' ' -f3 | grep . ;;
esac
""",
    # An installed QEMU is the candidate unless apt is told to forget what is installed.
    "apt-cache": """\
now=$(sed -n 's/^installed qemu-system-x86 //p' "$STATE/dpkg")
case " $* " in *" Dir::State::status=/dev/null "*) now= ;; esac
printf 'qemu-system-x86:\\n  Installed: x\\n  Candidate: %s\\n' "${now:-$RELEASE}"
""",
    # Lines of $STATE/sources: URI|LABEL|CODENAME|ORIGIN.
    "apt-get": """\
case $1 in indextargets)
    case " $* " in
    *" Origin: Debian "*) grep '|Debian$' "$STATE/sources" | cut -d'|' -f1-3 ;;
    *REPO_URI*) cut -d'|' -f1-3 "$STATE/sources" ;;
    *) cut -d'|' -f3 "$STATE/sources" ;;
    esac
    exit ;;
esac
echo "$(id -u) apt-get $*" >>"$STATE/log"
case " $* " in *" install "*) ;; *) exit 0 ;; esac
version=$RELEASE
case " $* " in *" -t bookworm-backports "*) version=$BACKPORTS ;; esac
for word; do
    sed -i "/ $word /d" "$STATE/dpkg"
    echo "installed $word $version" >>"$STATE/dpkg"
done
""",
    "id": 'echo "${FAKE_UID:-0}"\n',
    "sudo": """\
echo "sudo $*" >>"$STATE/log"
case $1 in -n) shift; [ -z "$PASSWORD" ] || exit 1 ;; esac
FAKE_UID=0 "$@"
""",
}


@dataclass
class Machine:
    """A copy of bootstrap whose environment is complete, and a machine made of stubs."""

    root: Path
    clone: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def source(self) -> Path:
        return self.root / "sources.list.d" / "orchestrator-backports.sources"

    @property
    def calls(self) -> list[str]:
        log = self.root / "log"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def installs(self) -> list[str]:
        return [call for call in self.calls if " install " in call]

    def has(
        self, *, without: tuple[str, ...] = (), version: str = BACKPORTS, with_checks: bool = False
    ) -> None:
        """All packages but some, in one version."""
        text = (self.clone / LISTS).read_text()
        keys = ("packages", "newer", "for_clone", *(["for_checks"] if with_checks else []))
        names = [name for key in keys for name in _words(text, key)]
        lines = [f"installed {name} {version}" for name in names if name not in without]
        (self.root / "dpkg").write_text("".join(f"{line}\n" for line in lines))

    def sources(self, *lines: str) -> None:
        (self.root / "sources").write_text("".join(f"{line}\n" for line in lines))

    def run(
        self, *argv: str, program: Path | None = None, stdin: int = subprocess.DEVNULL
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program or self.clone / "bootstrap", *argv],
            env=self.environ,
            cwd=self.root,
            stdin=stdin,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )


def _words(text: str, name: str) -> list[str]:
    found = re.search(rf"^{name}='([^']*)'", text, re.MULTILINE)
    assert found
    return found[1].split()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    clone, programs = tmp_path / "clone", tmp_path / "bin"
    for folder in (clone / ".venv", clone / LISTS.parent, programs, tmp_path / "sources.list.d"):
        folder.mkdir(parents=True)
    text = (ROOT / LISTS).read_text()
    for real in ("/etc/apt/sources.list.d/orchestrator", "/etc/os-release"):
        assert real in text  # else the test would write to the machine's own
    text = text.replace("/etc/apt/sources.list.d/orchestrator", f"{tmp_path}/sources.list.d/orchestrator")
    text = text.replace("/etc/os-release", f"{tmp_path}/os-release")
    (tmp_path / "os-release").write_text("ID=debian\nVERSION_CODENAME=bookworm\n")
    (clone / LISTS).write_text(text)
    shutil.copy(ROOT / "bootstrap", clone / "bootstrap")
    (clone / "requirements.lock").write_text("click==8.2\n")
    (clone / "requirements-fleet.lock").write_text(FLEET_LOCK)
    (clone / ".venv" / ".fleet-made-from").write_text(hashlib.sha256(FLEET_LOCK.encode()).hexdigest())
    (clone / "pyproject.toml").write_text("[project]\n")
    version = subprocess.run(["/usr/bin/python3", "-V"], capture_output=True, text=True, check=True).stdout
    made_from = f"{clone}\n{version}click==8.2\n[project]\n".encode()
    (clone / ".venv" / ".made-from").write_text(hashlib.sha256(made_from).hexdigest())
    for name, script in STUBS.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}")
        (programs / name).chmod(0o755)
    # Should a faulty one make an environment all the same: from here, and from nowhere else.
    environ = {"ORCHESTRATOR_CACHE": f"{tmp_path}/cache", "PIP_NO_INDEX": "1"}
    environ |= {"STATE": str(tmp_path), "RELEASE": RELEASE, "BACKPORTS": BACKPORTS, "PASSWORD": ""}
    made = Machine(tmp_path, clone, {**environ, "PATH": f"{programs}:/usr/bin:/bin", "HOME": str(tmp_path)})
    made.has()
    made.sources(MAIN, BACKPORTED)
    return made


def test_with_nothing_missing_it_only_runs_the_command(machine: Machine) -> None:
    done = machine.run("sh", "-c", 'echo "$VIRTUAL_ENV"; exit 7')
    assert (done.returncode, done.stdout, done.stderr) == (7, f"{machine.clone}/.venv\n", "")
    assert machine.run("--packages").returncode == 0
    assert machine.calls == []


@pytest.mark.parametrize("argv", [(), ("--packages", "tox", "unit"), ("--help",), ("",)])
def test_bad_words_install_nothing(machine: Machine, argv: tuple[str, ...]) -> None:
    machine.has(without=("git",))
    done = machine.run(*argv)
    assert done.returncode == 2
    assert "usage: ./bootstrap CMD" in done.stderr
    assert machine.calls == []


def test_two_at_once_make_one_environment(machine: Machine) -> None:
    holder = os.open(machine.clone, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    try:
        second = subprocess.Popen(
            [machine.clone / "bootstrap", "sh", "-c", "flock -n . true && echo ran"],
            env=machine.environ,
            cwd=machine.clone,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert second.stderr
        assert "waiting for it" in second.stderr.readline()
        assert second.poll() is None
    finally:
        os.close(holder)
    said, _ = second.communicate(timeout=20)
    assert (second.returncode, said) == (0, "ran\n"), "what is run does not hold the lock"


def test_through_a_symlink_from_another_folder(machine: Machine) -> None:
    link = machine.root / "elsewhere"
    link.symlink_to("clone/bootstrap")
    done = machine.run("sh", "-c", 'echo "$VIRTUAL_ENV"', program=link)
    assert (done.stdout, done.stderr) == (f"{machine.clone}/.venv\n", "")
    assert not (machine.root / ".venv").exists()


def test_without_the_lock_file_nothing_is_made(machine: Machine) -> None:
    machine.has(without=("git",))
    lone = Path(shutil.copy(machine.clone / "bootstrap", machine.root / "bootstrap"))
    done = machine.run("true", program=lone)
    assert done.returncode == 3
    assert "requirements.lock" in done.stderr
    assert machine.calls == []
    assert not (machine.root / ".venv").exists()


@pytest.mark.parametrize("first", [FOREIGN, SECURITY])
def test_backports_come_from_the_mirror_of_debian_s_main_archive(machine: Machine, first: str) -> None:
    machine.has(version=RELEASE)
    machine.sources(first, MAIN)
    assert machine.run("true").returncode == 0
    assert "URIs: http://mirror.example/debian/\nSuites: bookworm-backports\n" in machine.source.read_text()


def test_without_a_mirror_of_debian_it_says_so(machine: Machine) -> None:
    machine.has(version=RELEASE)
    machine.sources(FOREIGN)
    done = machine.run("true")
    assert done.returncode == 3
    assert "no mirror for bookworm" in done.stderr
    assert not machine.source.exists()


def test_libvirt_comes_from_where_the_installed_qemu_is_from(machine: Machine) -> None:
    machine.has(without=("libvirt-dev", "git"))
    assert machine.run("true").returncode == 0
    plain, backports = machine.installs
    newer = _words((machine.clone / LISTS).read_text(), "newer")
    assert plain.endswith("--no-install-recommends git")
    assert backports.endswith(f"--no-install-recommends -t bookworm-backports {' '.join(newer)}")
    assert not machine.source.exists(), "it was configured already"


def test_a_release_with_a_new_qemu_needs_no_backports(machine: Machine) -> None:
    machine.has(without=("libvirt-dev",))
    machine.sources(MAIN)
    machine.environ["RELEASE"] = "1:10.0.2+ds-2"
    assert machine.run("true").returncode == 0
    (install,) = machine.installs
    assert " -t " not in install
    assert not machine.source.exists()


@pytest.mark.parametrize("status", ["half-configured", "unpacked", "config-files", "not-installed"])
def test_a_package_that_is_not_configured_is_missing(machine: Machine, status: str) -> None:
    machine.has(without=("git", "qemu-system-x86"))
    with (machine.root / "dpkg").open("a") as dpkg:
        dpkg.write(f"{status} git \n{status} qemu-system-x86 \n")
    done = machine.run("true")
    assert done.returncode == 0, done.stderr
    assert [" git" in call for call in machine.installs] == [True, False]


def test_an_apt_that_fails_runs_nothing(machine: Machine) -> None:
    machine.has(without=("git",))
    (machine.root / "bin" / "apt-get").write_text("#!/bin/sh\nexit 100\n")
    done = machine.run("echo", "ran")
    assert (done.returncode, done.stdout) == (3, "")
    assert "run this again" in done.stderr


@pytest.mark.parametrize("sudo", ["none", "wants a password"])
def test_a_user_is_told_what_to_type(machine: Machine, sudo: str) -> None:
    machine.has(without=("git",))
    machine.environ |= {"FAKE_UID": "1000", "PASSWORD": "wanted"}
    if sudo == "none":
        (machine.root / "bin" / "sudo").unlink()
        # The machine's own tools, but for a sudo that it may have.
        tools = machine.root / "tools"
        tools.mkdir()
        for tool in Path("/usr/bin").iterdir():
            if tool.name != "sudo":
                (tools / tool.name).symlink_to(tool)
        machine.environ["PATH"] = f"{machine.root / 'bin'}:{tools}"
    done = machine.run("echo", "ran")
    assert (done.returncode, done.stdout) == (3, "")
    assert f"sudo {machine.clone}/bootstrap --packages\n" in done.stderr
    assert "(it installs: git)" in done.stderr
    assert "installing" not in done.stderr
    assert machine.installs == []


def test_sudo_installs_the_packages_and_the_user_runs_the_command(machine: Machine) -> None:
    machine.has(without=("git",))
    machine.environ["FAKE_UID"] = "1000"
    done = machine.run("id")
    assert (done.returncode, done.stdout) == (0, "1000\n"), done.stderr
    assert machine.calls[1] == f"sudo -n {machine.clone}/bootstrap --packages"
    assert machine.installs[0].startswith("0 apt-get ")


@pytest.mark.parametrize("command", ["tox", "pytest"])
def test_checks_have_programs_that_runs_do_not_need(machine: Machine, command: str) -> None:
    wanted = _words((machine.clone / LISTS).read_text(), "for_checks")
    assert machine.run("true").returncode == 0
    assert machine.run("--packages").returncode == 0
    assert machine.calls == []
    machine.environ["FAKE_UID"] = "1000"
    program = machine.root / "bin" / command
    program.write_text("#!/bin/sh\nexit 7\n")
    program.chmod(0o755)
    assert machine.run(command).returncode == 7
    assert machine.calls[1] == f"sudo -n {machine.clone}/bootstrap --packages {command}"
    (install,) = machine.installs
    assert install.endswith(f"--no-install-recommends {' '.join(wanted)}")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("orchestrator run quickstart", False),
        ("orchestrator list --json", False),
        ("sh -c orchestrator --fleet", False),
        ("orchestrator run quickstart --fleet fleet.toml", True),
        ("orchestrator resume last --fleet=fleet.toml", True),
        ("orchestrator worker tls://head:8786", True),
        ("orchestrator fleet head", True),
        ("pytest", True),
    ],
)
def test_what_a_fleet_needs_is_installed_for_a_fleet_only(machine: Machine, words: str, wanted: bool) -> None:
    (machine.clone / ".venv" / ".fleet-made-from").unlink()
    machine.has(with_checks=True)
    binaries = machine.clone / ".venv" / "bin"
    binaries.mkdir()
    log = machine.root / "pip"
    for name, script in {
        "python": f'#!/bin/sh\necho "$*" >>"{log}"\ncase " $* " in *" --dry-run "*) exit 1 ;; esac\n',
        "promtool": "#!/bin/sh\n",
        "orchestrator": "#!/bin/sh\necho ran\n",
        "pytest": "#!/bin/sh\necho ran\n",
    }.items():
        (binaries / name).write_text(script)
        (binaries / name).chmod(0o755)
    machine.environ["ORCHESTRATOR_CACHE"] = str(machine.root / "cache")
    for _ in range(2):
        assert machine.run(*words.split()).returncode in {0, 2}
    asked = log.read_text().splitlines() if log.exists() else []
    wheels = f"--find-links {machine.root}/cache/wheels -r {machine.clone}/requirements-fleet.lock"
    pip = "-m pip -q --disable-pip-version-check"
    expected = [
        f"{pip} install --dry-run --no-index {wheels}",
        f"{pip} wheel -w {machine.root}/cache/wheels -r {machine.clone}/requirements-fleet.lock",
        f"{pip} install --no-index {wheels}",
    ]
    assert asked == (expected if wanted else []), "once"


@pytest.mark.parametrize("works", [True, False])
def test_programs_are_taken_out_of_packages_with_daemons(
    machine: Machine, tmp_path: Path, works: bool
) -> None:
    """Which are not installed: that would start them."""
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: prometheus\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example>\nDescription: x\n"
    )
    (tree / "usr" / "bin").mkdir(parents=True)
    promtool = tree / "usr" / "bin" / "promtool"
    promtool.write_text("#!/bin/sh\nexit 0\n" if works else "#!/bin/sh\nexit 1\n")
    promtool.chmod(0o755)
    deb = tmp_path / "prometheus_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", tree, deb], check=True, capture_output=True)
    (machine.clone / ".venv" / "bin").mkdir()
    (machine.root / "bin" / "apt-get").write_text(
        f'#!/bin/sh\necho "apt-get $*" >>"$STATE/log"\ncp {deb} .\n'
    )
    program = machine.root / "bin" / "pytest"
    program.write_text("#!/bin/sh\nexit 7\n")
    program.chmod(0o755)
    # The machine's own tools, but for a promtool that it may have.
    tools = machine.root / "tools"
    tools.mkdir()
    for tool in Path("/usr/bin").iterdir():
        if tool.name != "promtool":
            (tools / tool.name).symlink_to(tool)
    machine.environ["PATH"] = f"{machine.root / 'bin'}:{tools}"
    machine.has(with_checks=True)
    done = machine.run("pytest")
    assert done.returncode == 7
    of_slurm = f"slurmctld={BACKPORTS} slurmd={BACKPORTS} slurm-client={BACKPORTS} munge"
    assert machine.calls == ["apt-get -q download prometheus", f"apt-get -q download {of_slurm}"]
    unpacked = machine.clone / ".venv" / "bin" / "promtool"
    assert unpacked.exists() == works
    assert ("there is no promtool" in done.stderr) != works
    if works:
        assert unpacked.stat().st_mode & 0o777 == 0o755
        machine.run("pytest")
        assert len(machine.calls) == 2, "both are there"
        assert (machine.clone / ".venv" / "slurm" / "usr" / "bin" / "promtool").exists(), "all of a package"
        machine.has(with_checks=True, version="another")
        machine.run("pytest")
        assert machine.calls[2:] == [f"apt-get -q download {of_slurm.replace(BACKPORTS, 'another')}"]


def test_on_a_terminal_sudo_may_ask(machine: Machine) -> None:
    machine.has(without=("git",))
    machine.environ |= {"FAKE_UID": "1000", "PASSWORD": "wanted"}
    ours, theirs = pty.openpty()
    try:
        done = machine.run("id", stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)
    assert (done.returncode, done.stdout) == (0, "1000\n"), done.stderr
    assert f"sudo {machine.clone}/bootstrap --packages" in machine.calls


def test_packages_makes_no_environment(machine: Machine) -> None:
    machine.has(without=("git",))
    shutil.rmtree(machine.clone / ".venv")
    assert machine.run("--packages").returncode == 0
    assert len(machine.installs) == 1
    assert not (machine.clone / ".venv").exists()


def as_doctor(machine: Machine, *words: str) -> subprocess.CompletedProcess[str]:
    """The list as `orchestrator doctor` calls it: with no clone around it."""
    alone = machine.root / "debian-packages.sh"
    shutil.copy(machine.clone / LISTS, alone)
    return subprocess.run(
        ["sh", alone, *words], env=machine.environ, capture_output=True, text=True, timeout=20, check=False
    )


def test_doctor_asks_the_same_list(machine: Machine) -> None:
    machine.has(without=("git", "zstd", "passt"))
    assert as_doctor(machine, "missing").stdout.split() == ["zstd", "passt"], "git is of a clone"
    dry = as_doctor(machine, "install", "--dry-run")
    assert machine.installs == []
    assert as_doctor(machine, "install").returncode == 0
    did = [call.removeprefix("0 ").replace("apt-get -q ", "apt-get ") for call in machine.calls]
    assert dry.stdout.splitlines() == did, "what it says is what it does"
    assert did[1] == "apt-get -y install --no-install-recommends zstd"
    assert as_doctor(machine, "missing").stdout == ""
    assert as_doctor(machine, "purge").returncode == 3


def test_a_dry_run_adds_no_source(machine: Machine) -> None:
    machine.has(without=("passt",))
    machine.sources(MAIN)
    dry = as_doctor(machine, "install", "--dry-run")
    assert dry.returncode == 0
    assert (
        f"# {machine.source} would be written: bookworm-backports from http://mirror.example/" in dry.stdout
    )
    assert not machine.source.exists()
    machine.environ["RELEASE"] = ""
    dry = as_doctor(machine, "install", "--dry-run")
    assert "no package lists yet" in dry.stdout, "a release whose QEMU apt does not know is not an old one"
    assert "would be written" not in dry.stdout
