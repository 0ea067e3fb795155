"""Known kernel bugs: by release, configuration, or the header of a bzImage; who says so."""

from __future__ import annotations

import json
import platform
import struct
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.doctor import kernels
from orchestrator.doctor.check import Level, Subject
from orchestrator.host.bzimage import bzimage_release
from orchestrator.host.kernel_bugs import FAULTS, known_bugs

CVE = "CVE-2026-74674"


@pytest.mark.parametrize(
    "release",
    [
        "7.0",
        "7.0.0-rc3",
        "7.0.13+deb13-cloud-amd64",
        "7.1.7+deb13-cloud-amd64",
        "7.1.8",
        "7.1-rc1",
        "7.2-rc4",
        "7.2.0-rc4-dirty",
    ],
)
def test_releases_in_the_range(release: str) -> None:
    (warning,) = known_bugs(release)
    assert warning.startswith(f"Linux {release} is in the range of {CVE} (7.0 to before 7.1.9), unless ")
    assert "backported" in warning
    assert "4c640eb4181c" in warning
    assert "478a1c3abebf" in warning


@pytest.mark.parametrize(
    "release",
    [
        "6.12.117+deb13-cloud-amd64",
        "6.19.14",
        "7.1.9",
        "7.1.13+deb13-cloud-amd64",
        "7.2",
        "7.2.0+deb14-amd64",
        "7.3.4+deb13-cloud-amd64",
        "7.3-rc7",
        "17.1.3",
        "",
        "unknown",
    ],
)
def test_releases_out_of_the_range(release: str) -> None:
    assert known_bugs(release) == []


@pytest.mark.parametrize(
    ("config", "concerned"),
    [
        (None, True),
        ("CONFIG_MMU=y\nCONFIG_PT_RECLAIM=y\n", True),
        ("CONFIG_MMU=y\n# CONFIG_PT_RECLAIM is not set\n", False),
        ("CONFIG_MMU=y\n", False),
        ("CONFIG_XPT_RECLAIM=y\n", False),
    ],
)
def test_a_kernel_without_it_cannot_have_it(config: str | None, concerned: bool) -> None:
    assert bool(known_bugs("7.1.5", config)) is concerned
    assert FAULTS[0].name == CVE


def write_bzimage(path: Path, version: bytes, *, magic: bytes = b"HdrS", at: int = 0x3000) -> Path:
    """The header of a kernel of that version (Documentation/arch/x86/boot.rst)."""
    head = bytearray(0x8000)
    head[0x1FE:0x200] = b"\x55\xaa"
    head[0x202:0x206] = magic
    struct.pack_into("<H", head, 0x20E, at)
    head[at + 0x200 : at + 0x200 + len(version)] = version
    path.write_bytes(head)
    return path


def test_a_bzimage_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "bzImage"
    text = b"7.1.5-mine (me@here) #1 SMP PREEMPT_DYNAMIC Mon Jan 1\0rest"
    assert bzimage_release(write_bzimage(path, text)) == "7.1.5-mine"
    assert bzimage_release(write_bzimage(path, text, magic=b"HdrX")) == ""
    assert bzimage_release(write_bzimage(path, text, at=0)) == ""
    assert bzimage_release(write_bzimage(path, b"\0")) == ""
    assert bzimage_release(write_bzimage(path, b"hello there\0")) == ""
    path.write_bytes(b"HdrS")
    assert bzimage_release(path) == ""
    assert bzimage_release(tmp_path / "absent") == ""
    assert bzimage_release(tmp_path) == ""


def image(cache: Path, release: str, config: str | None) -> None:
    folder = cache / "images" / f"g-{release}"
    (folder / "boot").mkdir(parents=True)
    facts = {"key": release, "releases": {"7.x": release}, "packages": {}}
    (folder / "image.json").write_text(json.dumps(facts))
    if config is not None:
        (folder / "boot" / f"config-{release}").write_text(config)


def test_doctor_looks_at_the_kernels_of_images(tmp_path: Path) -> None:
    subject = Subject(tmp_path, tmp_path / "guests", tmp_path / "results", None)
    assert kernels.guests(subject).found == "not checked: no guest image is built yet"
    image(tmp_path, "7.3.4", None)
    image(tmp_path, "7.1.6", "# CONFIG_PT_RECLAIM is not set\n")
    finding = kernels.guests(subject)
    assert (finding.level, finding.found) == (Level.OK, "no known fault: 7.1.6, 7.3.4")
    image(tmp_path, "7.1.5", "CONFIG_PT_RECLAIM=y\n")
    finding = kernels.guests(subject)
    assert finding.level is Level.NOTE
    assert finding.found.startswith(f"Linux 7.1.5 is in the range of {CVE}")
    assert "orchestrator run integrity" in finding.fix


@pytest.mark.parametrize(("release", "level"), [("7.0.9", Level.NOTE), ("6.18.44", Level.OK)])
def test_doctor_looks_at_this_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str, level: Level
) -> None:
    monkeypatch.setattr(platform, "release", lambda: release)
    finding = kernels.host(Subject(tmp_path, tmp_path, tmp_path, None))
    assert finding.level is level
    assert release in finding.found


def test_validate_warns_of_a_bzimage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bzimage(tmp_path / "bzImage", b"7.1.5-mine #1\0")
    write_bzimage(tmp_path / "fixed", b"7.1.9-mine #1\0")
    (tmp_path / "s.yaml").write_text(
        "version: 1\nname: s\nguest: debian-13\nmachine: {memory: 256MiB}\n"
        "arms: {mine: {kernel: ./bzImage}, again: {kernel: ./bzImage}, fixed: {kernel: ./fixed}}\n"
        "steps:\n  - wait: {time: 1s}\n"
    )
    with pytest.raises(SystemExit) as ended:
        main(["validate", "--any-host", str(tmp_path / "s.yaml")])
    assert not ended.value.code, "it is no fault of the scenario"
    said = " ".join(capsys.readouterr().err.split())
    assert said.count(CVE) == 1, "once for each file"
    assert f"{tmp_path / 'bzImage'}: Linux 7.1.5-mine is in the range" in said.replace("\n", " ")
    with pytest.raises(SystemExit):
        main(["validate", "--any-host", "--json", str(tmp_path / "s.yaml")])
    answer = json.loads(capsys.readouterr().out)
    assert answer["valid"] is True
    assert len(answer["warnings"]) == 1
