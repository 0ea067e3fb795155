"""Versions of what is installed: without the faults that were known when this was written.

pip-audit, of which docs/security.md has the command, needs a database that is not to be had everywhere.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]

# The first release in which all of these are mended.
MENDED = {
    "ansible-core": ("2.18.1", "CVE-2024-11079"),
    "cryptography": ("44.0.1", "CVE-2024-12797"),
    "jinja2": ("3.1.6", "CVE-2025-27516, CVE-2024-56326, CVE-2024-56201"),
    "lxml": ("4.9.1", "CVE-2022-2309"),
    "paramiko": ("3.4", "CVE-2023-48795"),
    "psutil": ("5.6.7", "CVE-2019-18874"),
    "pyarrow": ("14.0.1", "CVE-2023-47248"),
    "pydantic": ("2.4.0", "CVE-2024-3772"),
    "pyyaml": ("5.4", "CVE-2020-14343"),
    "scipy": ("1.10.0", "CVE-2023-25399"),
}


def asked() -> dict[str, Requirement]:
    """Direct dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = [Requirement(one) for one in project["dependencies"]]
    return {canonicalize_name(one.name): one for one in found}


def locked() -> dict[str, Version]:
    """What ./bootstrap installs."""
    lines = (line.partition(" ")[0] for line in (ROOT / "requirements.lock").read_text().splitlines())
    pairs = (line.partition("==") for line in lines if "==" in line)
    return {canonicalize_name(name): Version(version) for name, _, version in pairs}


def floor(requirement: Requirement) -> Version:
    return max(Version(one.version) for one in requirement.specifier if one.operator == ">=")


@pytest.mark.parametrize("name", sorted(MENDED))
def test_neither_the_lock_nor_a_floor_allows_what_is_known_to_be_faulty(name: str) -> None:
    version, faults = MENDED[name]
    assert locked()[name] >= Version(version), faults
    if name in asked():
        assert floor(asked()[name]) >= Version(version), faults


def test_the_lock_has_all_that_is_asked_for() -> None:
    versions = locked()
    for name, requirement in asked().items():
        assert requirement.specifier.contains(versions[name]), requirement
