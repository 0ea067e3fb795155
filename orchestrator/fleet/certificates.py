"""A CA of the fleet's own and the certificates that it signs, as `fleet init` makes them."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.errors import BadInputError
from orchestrator.fleet.config import CONFIG, Role

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

_VALID: Final = timedelta(days=3650)
# A host whose clock is behind shall not find them from the future.
_BEFORE: Final = timedelta(days=1)

ROLES: Final[tuple[Role, ...]] = ("head", "worker", "client")

_CONFIG_TEXT: Final = """\
# A fleet of hosts that do trials (docs/fleet.md). Paths are relative to this file.
version = 1

# Where the head listens, and the only address on which it does: fill in one that all other hosts reach.
head = "tls://127.0.0.1:8786"

# Where a worker listens, on the address from which it reaches the head, which calls it there; 0 is any.
# worker_port = 8788

# A host that has not been heard for so long is lost: what it runs is done elsewhere.
# silent = "5min"

# How often a trial that was lost is done again.
# retries = 2

# How long a run waits for a host, where there is none.
# wait = "30s"

# The largest folder of one trial that is taken from a host.
# largest_trial = "1GiB"

# Dask's dashboard, on loopback of the head's host only, and only if bokeh is installed there.
# dashboard_port = 8787

# Copy to each host this file, ca.pem and the two files of its own part, and no other. ca.key stays here.
[tls]
ca = "ca.pem"

[tls.head]
certificate = "head.pem"
key = "head.key"

[tls.worker]
certificate = "worker.pem"
key = "worker.key"

# Whoever has these may have programs run on all hosts, as the user of their workers.
[tls.client]
certificate = "client.pem"
key = "client.key"
"""


def make_fleet(folder: Path) -> list[Path]:
    """Write a CA, three certificates with their keys (0600), and fleet.toml. Raises BadInputError.

    Nothing that is there is replaced.
    """
    names = ["ca.pem", "ca.key", *(f"{role}.{end}" for role in ROLES for end in ("pem", "key")), CONFIG]
    for name in names:
        if (folder / name).exists():
            raise BadInputError(f"{folder / name} exists: nothing was written", hint="name another folder")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = named("CA of a fleet of orchestrator")
    now = datetime.now(UTC)

    def signed(
        name: x509.Name, key: EllipticCurvePrivateKey, extensions: list[tuple[x509.ExtensionType, bool]]
    ) -> x509.Certificate:
        from cryptography.hazmat.primitives import hashes

        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(ca)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BEFORE)
            .not_valid_after(now + _VALID)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
            )
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(ca_key, hashes.SHA256())

    root = signed(
        ca, ca_key, [(x509.BasicConstraints(ca=True, path_length=0), True), (_usage(signs=True), True)]
    )
    _write(folder / "ca.key", _pem_key(ca_key), 0o600)
    _write(folder / "ca.pem", _pem(root), 0o644)
    for role in ROLES:
        key = ec.generate_private_key(ec.SECP256R1())
        # A client's certificate is no server's: with it one cannot pass for a head or a worker.
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
        uses += [] if role == "client" else [ExtendedKeyUsageOID.SERVER_AUTH]
        certificate = signed(
            named(f"{role} of a fleet of orchestrator"),
            key,
            [
                (x509.BasicConstraints(ca=False, path_length=None), True),
                (_usage(signs=False), True),
                (x509.ExtendedKeyUsage(uses), False),
            ],
        )
        _write(folder / f"{role}.key", _pem_key(key), 0o600)
        _write(folder / f"{role}.pem", _pem(certificate), 0o644)
    _write(folder / CONFIG, _CONFIG_TEXT.encode(), 0o644)
    return [folder / name for name in names]


def _usage(*, signs: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _pem_key(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, data: bytes, mode: int) -> None:
    # Never for a moment readable by others: the mode is there before the contents.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
