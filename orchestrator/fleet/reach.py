"""Whether a head can be reached and takes our certificate: said at once, where Dask would try for ever."""

from __future__ import annotations

import socket
import ssl
from typing import Final

from orchestrator.errors import InfrastructureError
from orchestrator.fleet.config import Fleet, RoleCertificates, split_address

_SECONDS: Final = 10.0


def must_reach(fleet: Fleet, files: RoleCertificates | None) -> None:
    """Open a connection to the head and close it. Raises InfrastructureError that says what kept it."""
    address = fleet.text.head
    _, host, port = split_address(address)
    try:
        with socket.create_connection((host, port), timeout=_SECONDS) as plain:
            if files is not None:
                _handshake(plain, files, address)
    except ssl.SSLError as error:
        raise InfrastructureError(
            f"{address} does not take {files.certificate if files else 'a connection without TLS'}",
            details=_said(error),
            hint="both sides need certificates of the fleet's own CA: see orchestrator fleet init",
        ) from None
    except OSError as error:
        why = error.strerror or str(error)
        raise InfrastructureError(
            f"the head of the fleet cannot be reached at {address}: {why}",
            hint=f"does it run?   orchestrator fleet head --fleet {fleet.path}",
        ) from None


def _handshake(plain: socket.socket, files: RoleCertificates, address: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(files.ca))
    context.check_hostname = False  # the fleet's own CA signs nothing else, and hosts go by address
    context.load_cert_chain(files.certificate, files.key)
    try:
        tls = context.wrap_socket(plain)
    except ssl.SSLCertVerificationError as error:
        raise InfrastructureError(
            f"who listens at {address} is not of this fleet",
            details=error.verify_message,
            hint=f"is {files.ca} that of the head?",
        ) from None
    with tls:
        # In TLS 1.3 a server refuses a certificate after the client's handshake is over. Dask speaks first.
        if not tls.recv(1):
            raise ConnectionResetError("it closed the connection")


def _said(error: ssl.SSLError) -> str:
    return error.reason or str(error)
