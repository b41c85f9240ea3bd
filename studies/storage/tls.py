"""TLS of the gRPC proxy: one file holds a key and its certificate, and who has it is let in.

Server and clients show each other the same certificate, and accept no other. There are no names
and no authorities to look after: copy the file to whoever may use the storage, and nobody else.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta
from datetime import timezone
import os
from pathlib import Path
from typing import TYPE_CHECKING

from studies.storage.kinds import StorageError


if TYPE_CHECKING:
    import grpc

_NAME = "optuna-autoresearch"  # in the certificate, whatever machine serves
_DAYS = 3650


@dataclass(frozen=True)
class Identity:
    """What a server or a client shows and accepts.

    Attributes:
        key: The private key, PEM.
        certificate: Its certificate, signed by itself, PEM.
    """

    key: bytes
    certificate: bytes

    def of_server(self) -> grpc.ServerCredentials:
        """Return a server's credentials, which refuse every client without the key."""
        import grpc

        return grpc.ssl_server_credentials(
            [(self.key, self.certificate)],
            root_certificates=self.certificate,
            require_client_auth=True,
        )

    def channel(self, target: str) -> grpc.Channel:
        """Open a client's channel to a server with the same key."""
        import grpc

        credentials = grpc.ssl_channel_credentials(self.certificate, self.key, self.certificate)
        options = [
            ("grpc.ssl_target_name_override", _NAME),
            ("grpc.max_receive_message_length", -1),  # as Optuna's client
        ]
        return grpc.secure_channel(target, credentials, options=options)


def read_identity(file: Path) -> Identity:
    """Read what :func:`make_identity` wrote.

    Raises:
        StorageError: If it is something else, or others may read it.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        others = file.stat().st_mode & 0o077
        content = file.read_bytes()
    except OSError as error:
        raise StorageError(f"{file} must be a readable file, but: {error.strerror}.") from None
    if others:
        raise StorageError(f"{file} holds a key and must be its owner's alone: chmod 600 {file}.")
    key, mark, rest = content.partition(b"-----BEGIN CERTIFICATE-----")
    try:
        serialization.load_pem_private_key(key, password=None)
        x509.load_pem_x509_certificate(mark + rest)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise StorageError(
            f"{file} must hold a key and its certificate, but doesn't; delete it, and serve-storage"
            " --tls makes a new one."
        ) from None
    return Identity(key, mark + rest)


def make_identity(file: Path) -> None:
    """Write a new key and its certificate, for nobody but the owner to read.

    Raises:
        StorageError: If the file is there already, or can't be written.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _NAME)])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks differ
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(_NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    written = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(written)
    except OSError as error:
        raise StorageError(f"{file} must be a new file, but: {error.strerror}.") from None
