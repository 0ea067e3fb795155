"""SSH keys: private, made once, and known before the first connection."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from orchestrator.guest.keys import SshKeys, ensure_keys


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def keys(cache: Path) -> SshKeys:
    return ensure_keys(cache)


def test_they_are_private(keys: SshKeys) -> None:
    assert {path.stat().st_mode & 0o777 for path in (keys.client, keys.host)} == {0o600}
    assert keys.client.parent.stat().st_mode & 0o777 == 0o700


def test_each_private_key_belongs_to_its_public_one(keys: SshKeys) -> None:
    for private, public in ((keys.client, keys.client_public), (keys.host, keys.host_public)):
        derived = subprocess.run(
            ["ssh-keygen", "-y", "-P", "", "-f", private], check=True, capture_output=True, text=True
        ).stdout
        assert derived.split()[:2] == public.split()[:2]
    assert keys.client_public != keys.host_public


def test_they_are_made_once(cache: Path, keys: SshKeys) -> None:
    before = keys.client.read_text(), keys.host.read_text()
    again = ensure_keys(cache)
    assert (again.client.read_text(), again.host.read_text()) == before
    assert {path.name for path in keys.client.parent.iterdir()} == {
        *("client", "client.pub", "host", "host.pub", ".lock")
    }


def test_a_pair_that_lost_a_half_is_made_anew(tmp_path: Path) -> None:
    keys = ensure_keys(tmp_path)
    host = keys.host.read_text()
    keys.client.with_suffix(".pub").unlink()
    again = ensure_keys(tmp_path)
    assert again.client_public.startswith("ssh-ed25519 ")
    assert again.host.read_text() == host


def test_openssh_finds_the_guest_in_known_hosts(keys: SshKeys, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(keys.known_hosts_line(40022))

    def finds(host: str) -> bool:
        argv = ["ssh-keygen", "-F", host, "-f", str(known)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return keys.host_public in done.stdout

    assert finds("[127.0.0.1]:40022")
    assert not finds("[127.0.0.1]:40023")
