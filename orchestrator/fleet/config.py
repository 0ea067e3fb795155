"""fleet.toml: where the head of a fleet is, and by which certificates its parts know one another."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator

from orchestrator.errors import BadInputError, FileProblemsError, Problem
from orchestrator.host.machine import Frozen
from orchestrator.units import GIB, Duration, Size
from orchestrator.yaml_messages import Location, explain

Role: TypeAlias = Literal["head", "worker", "client"]

CONFIG: Final = "fleet.toml"
_ADDRESS: Final = re.compile(r"(tls|tcp)://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")
# Linux ends a connection whose peer is silent by probes, of which there are ten, a second apart at the least.
_LEAST_SILENCE_SECONDS: Final = 11


def split_address(text: str) -> tuple[str, str, int]:
    """Protocol, host and port of an address. Raises ValueError, also for a plain one beyond loopback."""
    found = _ADDRESS.fullmatch(text)
    if found is None or not 0 < int(found[3]) < 1 << 16:
        raise ValueError(f"{text[:80]!r} is no address; write it as tls://HOST:PORT")
    protocol, host, port = found[1], found[2].strip("[]"), int(found[3])
    if protocol == "tcp" and not _is_loopback(host):
        raise ValueError(
            f"{text} has neither authentication nor encryption, and {host} is not loopback; use tls:// with "
            "the certificates that `orchestrator fleet init` makes"
        )
    return protocol, host, port


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _checked(text: str) -> str:
    split_address(text)
    return text


class RoleFiles(Frozen):
    """What a part of the fleet shows to the others. Paths are relative to fleet.toml."""

    certificate: Path
    key: Path
    """Readable by its owner only."""


class TlsText(Frozen):
    """Certificates. A host needs those of its own part only, and never the key of the CA."""

    ca: Path
    """The certificate of the CA: whoever shows one that it has signed belongs to the fleet."""
    head: RoleFiles | None = None
    worker: RoleFiles | None = None
    client: RoleFiles | None = None


class FleetText(Frozen):
    """The whole file."""

    version: Literal[1]
    head: Annotated[str, AfterValidator(_checked)]
    """Where the head listens, and the only address on which it does."""
    tls: TlsText | None = Field(default=None, validate_default=True)
    worker_port: Annotated[int, Field(strict=True, ge=0, lt=1 << 16)] = 8788
    """Where a worker listens, on the address from which it reaches the head; 0 is any that is free."""
    dashboard_port: Annotated[int, Field(strict=True, gt=0, lt=1 << 16)] = 8787
    """Dask's dashboard, on loopback of the head's host, if bokeh is installed there."""
    silent: Annotated[Duration, Field(ge=_LEAST_SILENCE_SECONDS)] = 300.0
    """A host that has not been heard for so long is lost."""
    retries: Annotated[int, Field(strict=True, ge=0, le=100)] = 2
    """How often a trial that was lost is done again."""
    wait: Annotated[Duration, Field(ge=0)] = 30.0
    """How long a run waits for a host, where there is none."""
    largest_trial: Annotated[Size, Field(gt=0)] = 1 * GIB
    """The largest folder of a trial that is taken from a host, in bytes, as it is on disk there."""

    @field_validator("tls")
    @classmethod
    def _encrypted(cls, tls: TlsText | None, info: ValidationInfo) -> TlsText | None:
        head = info.data.get("head")
        if tls is None and head is not None and head.startswith("tls:"):
            raise ValueError(
                "tls:// takes certificates; add a table [tls], as `orchestrator fleet init` writes it"
            )
        return tls


@dataclass(frozen=True)
class RoleCertificates:
    """Files that are there."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Fleet:
    """fleet.toml as it was read, and where it lies."""

    path: Path
    text: FleetText

    def certificates(self, role: Role) -> RoleCertificates | None:
        """Of a part of the fleet; None for a head on loopback without TLS. Raises BadInputError."""
        if self.text.head.startswith("tcp:"):
            return None
        tls = self.text.tls
        files: RoleFiles | None = getattr(tls, role)
        if tls is None or files is None:
            raise BadInputError(
                f"{self.path} names no certificate of a {role}",
                hint=f"add a table [tls.{role}], as `orchestrator fleet init` writes it",
            )
        folder = self.path.parent
        found = RoleCertificates(folder / tls.ca, folder / files.certificate, folder / files.key)
        for path in (found.ca, found.certificate, found.key):
            _must_be_readable(path, role)
        if found.key.stat().st_mode & 0o077:
            raise BadInputError(f"{found.key} is a key that others may read", hint=f"chmod 600 {found.key}")
        return found


def load_fleet(path: Path) -> Fleet:
    """Read fleet.toml. Raises FileProblemsError with every fault."""
    try:
        written = path.read_bytes()
        text = written.decode()
    except OSError as error:
        raise BadInputError(
            f"{path}: {error.strerror}", hint="orchestrator fleet init DIR   writes one"
        ) from None
    except UnicodeDecodeError:
        raise BadInputError(f"{path} is no text") from None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at line ([0-9]+), column ([0-9]+)\)", str(error))
        line, column = (int(place[1]), int(place[2])) if place else (len(text.splitlines()) or 1, 1)
        wrong = str(error).partition(" (at ")[0]
        raise FileProblemsError([Problem(str(path), line, column, wrong, "it should be TOML")]) from None
    try:
        return Fleet(path, FleetText.model_validate(data))
    except ValidationError as error:
        faults = explain(error, FleetText, lambda at: _has(data, at), lambda at: str(_at(data, at)))
        raise FileProblemsError(
            [
                Problem(
                    str(path),
                    _line(text, fault.path),
                    1,
                    fault.wrong,
                    fault.right.replace(": ...`", " = ...`"),
                )
                for fault in faults
            ]
        ) from None


def _at(data: object, path: Location) -> object:
    for part in path:
        data = data[part] if isinstance(data, dict) else None
    return data


def _has(data: object, path: Location) -> bool:
    return isinstance(holder := _at(data, path[:-1]), dict) and path[-1] in holder if path else True


def _line(text: str, path: Location) -> int:
    """The line, from 1, on which a key stands; that of its table where it is missing; else the first."""
    lines, names = text.splitlines(), [str(part) for part in path]
    while names:
        table, key = "", re.escape(names[-1])
        for number, line in enumerate(lines, start=1):
            if header := re.match(r"\s*\[([^\[\]]+)\]", line):
                table = header[1].strip()
                if table == ".".join(names):
                    return number
            elif table == ".".join(names[:-1]) and re.match(rf'\s*"?{key}"?\s*=', line):
                return number
        names.pop()
    return 1


def _must_be_readable(path: Path, role: Role) -> None:
    try:
        with path.open("rb"):
            return
    except OSError as error:
        raise BadInputError(
            f"{path}: {error.strerror}",
            hint=f"a {role} shows a certificate: bring it from where `orchestrator fleet init` made it",
        ) from None
