"""`doctor` as typed: its table, its JSON, and the Debian packages that it installs."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator import doctor
from orchestrator.cli import main
from orchestrator.cli.output import out
from orchestrator.doctor import Check, Level, debian
from orchestrator.doctor.check import BOOTSTRAP, Subject
from orchestrator.errors import InfrastructureError

FINE = [
    Check("acceleration", Level.NOTE, "works, but slowly: [no] /dev/kvm", "for KVM: a machine", "tcg"),
    Check("second level", Level.NOTE, "none", word="none"),
    Check("memory", Level.OK, "23 GiB available"),
]
RED = [*FINE, Check("QEMU", Level.BAD, "qemu-system-x86_64 is not installed " * 3, BOOTSTRAP)]


def typed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, checks: list[Check], *words: str
) -> tuple[int, str]:
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: checks)
    monkeypatch.setattr(out, "width", 60)
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit) as end:
        main(["doctor", *words])
    return int(end.value.code or 0), capsys.readouterr().out


@pytest.mark.parametrize("words", [(), ("--recheck-kvm",), ("--probe-again",)])
def test_the_verb_says_whether_to_probe_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    asked: list[dict[str, bool]] = []

    def looked(*_: object, **named: bool) -> list[Check]:
        asked.append(named)
        return FINE

    monkeypatch.setattr(doctor, "examine", looked)
    monkeypatch.setattr(doctor, "examine_host", looked)
    for where in ((), ("--connect", "qemu+ssh://root@h/system")):
        with pytest.raises(SystemExit):
            main(["doctor", "--json", *where, *words])
    assert asked == 2 * [{"probe_again": bool(words)}]


@pytest.mark.parametrize(("checks", "code"), [(FINE, 0), (RED, 3)])
def test_json_has_all_and_the_exit_code_tells_red_from_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, checks: list[Check], code: int
) -> None:
    got, text = typed(capsys, monkeypatch, checks, "--json")
    assert got == code
    said = json.loads(text)
    assert {key: said[key] for key in said if key != "checks"} == {
        "format": "orchestrator.doctor/1",
        "ok": code == 0,
        "accel": "tcg",
        "second_level": "none",
    }
    assert said["checks"] == [
        {"name": one.name, "level": one.level.value, "found": one.found, "fix": one.fix} for one in checks
    ]


def test_a_narrow_terminal_reads_well(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text = typed(capsys, monkeypatch, RED)
    lines = [line.rstrip() for line in text.splitlines()]
    assert code == 3
    assert max(map(len, lines[:-1])) <= 60
    assert "[no] /dev/kvm" in text  # not taken for markup
    red = next(index for index, line in enumerate(lines) if line.startswith("bad"))
    after = [line.strip() for line in lines[red:]]
    assert f"next: {BOOTSTRAP}" in after
    assert "1 of these" in lines[-1]


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    return Subject(tmp_path / "cache", tmp_path / "guests", tmp_path / "results", None)


@pytest.fixture
def no_sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with dpkg and apt of a machine that lacks two packages; `log` has the calls of apt-get."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "sed", "tr", "id", "echo"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    stubs = {
        "dpkg-query": "case $3 in *Version*) echo 1:10.0 ;; *) shift 3; for name; do case $name in "
        'zstd|passt) ;; *) echo "installed $name" ;; esac; done ;; esac',
        "dpkg": "exit 0",
        "apt-cache": "echo '  Candidate: 1:10.0'",
        "apt-get": f'echo "apt-get $*" >>{tmp_path}/log',
    }
    for name, text in stubs.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    return tmp_path / "log"


def test_missing_packages_are_a_note_with_what_to_type(subject: Subject, no_sudo: Path) -> None:
    finding = debian.packages(subject)
    assert (finding.level, finding.found) == (Level.NOTE, "missing: zstd passt")
    assert finding.fix == "orchestrator doctor --fix"
    assert not no_sudo.exists(), "to look changes nothing"


def test_fix_asks_first_and_installs_what_is_missing(
    no_sudo: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: FINE)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False))

    def fix(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["doctor", *words])
        said = capfd.readouterr()
        return int(end.value.code or 0), said.out, said.err

    code, _, said = fix("--fix")
    assert code == 2
    assert "Debian packages are missing: zstd passt" in said
    assert "orchestrator doctor --fix --yes" in said
    code, printed, _ = fix("--fix", "--dry-run")
    assert code == 0
    assert printed.splitlines()[:2] == [
        "apt-get update",
        "apt-get -y install --no-install-recommends zstd",
    ]
    assert not no_sudo.exists()
    code, printed, _ = fix("--fix", "--yes")
    assert code == 0
    assert "Guests run here" in printed
    lines = no_sudo.read_text().splitlines()
    assert lines[1] == "apt-get -q -y install --no-install-recommends zstd"
    assert lines[2].split()[-1] == "passt"
    assert fix("--yes")[0] == fix("--dry-run")[0] == fix("--fix", "--connect", "lab")[0] == 2
    assert fix("--fix", "--dry-run", "--json")[0] == 2


def test_who_may_not_install_is_told_what_to_type_as_root(
    no_sudo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(InfrastructureError) as caught:
        debian.install_missing()
    assert caught.value.hint == f"as root: sh {debian.SCRIPT} install"
    (no_sudo.parent / "programs" / "apt-get").write_text("#!/bin/sh\nexit 100\n")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(InfrastructureError, match="not installed"):
        debian.install_missing()


@pytest.mark.parametrize(
    ("broken", "said"), [("dpkg-query", "did not say in 0 s"), ("tr", "cannot be told: code 7")]
)
def test_a_dpkg_that_does_not_answer_is_an_error_and_no_traceback(
    no_sudo: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], broken: str, said: str
) -> None:
    program = no_sudo.parent / "programs" / broken
    program.unlink()
    program.write_text(f"#!/bin/sh\n{'exec /usr/bin/sleep 20' if broken == 'dpkg-query' else 'exit 7'}\n")
    program.chmod(0o755)
    monkeypatch.setattr(debian, "_LOOK_SECONDS", 0.2 if broken == "dpkg-query" else 20)
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--fix", "--yes"])
    assert end.value.code == 3
    printed = "".join(capfd.readouterr().err.split())
    assert "".join(said.split()) in printed
    assert f"next:sh{debian.SCRIPT}missing" in printed
    assert "Traceback" not in printed
    nowhere = Path("/nowhere")
    finding = debian.packages(Subject(nowhere, nowhere, nowhere, None))
    assert finding.level is Level.UNKNOWN
    assert said in finding.found


def test_without_apt_it_says_what_it_would_need(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = debian.packages(subject)
    assert finding.level is Level.NOTE
    assert "qemu-system-x86" in finding.found
    assert "mmdebstrap" in finding.found
    with pytest.raises(InfrastructureError, match="no apt-get and no dpkg-query") as caught:
        debian.missing_packages()
    assert "qemu-system-x86" in caught.value.details
