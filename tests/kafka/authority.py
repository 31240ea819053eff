"""A certificate authority for tests, and a broker that lets nobody in without TLS, a password, and rights."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from spectrum.settings import Kafka
from spectrum.transports.kafka.connection import configuration
from tests.kafka.broker import HOST
from tests.kafka.conftest import settings_of
from tests.kafka.shared import MakeBroker

ADMIN, RELAY, WORKER = "admin", "relay", "worker"
PASSWORDS = {ADMIN: "admin-secret", RELAY: "relay-secret", WORKER: "worker-secret"}
_DAY = timedelta(days=1)
_MODULE = "org.apache.kafka.common.security.scram.ScramLoginModule required"


class Authority:
    """Signs certificates for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        certificate = self._sign(self.name, self.key, x509.BasicConstraints(ca=True, path_length=0))
        self.file = folder / "ca.pem"
        self.file.write_bytes(_pem(certificate))

    def server(self) -> Path:
        """Key and certificate of a broker, in one file."""
        key = ec.generate_private_key(ec.SECP256R1())
        addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))])
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
        form = serialization.PrivateFormat.PKCS8
        private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        file = self.folder / "broker.pem"
        file.write_bytes(private + _pem(self._sign(name, key, addresses)))
        return file

    def _sign(self, name: x509.Name, key: Any, extension: x509.ExtensionType) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(self.name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).add_extension(extension, critical=False)
        return builder.not_valid_before(now - _DAY).not_valid_after(now + _DAY).sign(self.key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass
class Guarded:
    """A broker with TLS, SCRAM and access control."""

    address: str
    authority: Authority
    folder: Path

    def settings(self, user: str, password: str | None = None, **rest: Any) -> Kafka:
        """As `user` would set them."""
        file = self.folder / f"{user}.password"
        file.write_text(f"{password or PASSWORDS[user]}\n")
        given = {"kafka_ca_file": self.authority.file, "kafka_username": user, "kafka_password_file": file} | rest
        return settings_of(self.address, kafka_tls=True, **given)

    def allow(
        self, name: str, *operations: AclOperation, user: str = RELAY, kind: ResourceType = ResourceType.TOPIC
    ) -> None:
        """Let the user do this with the topic of that name, or with what else has it."""
        who = (f"User:{user}", "*")
        rules = [
            AclBinding(kind, name, ResourcePatternType.LITERAL, *who, operation, AclPermissionType.ALLOW)
            for operation in operations
        ]
        admin = AdminClient(configuration(self.settings(ADMIN)))
        for made in admin.create_acls(rules).values():
            made.result(20)


def guarded(make_broker: MakeBroker, folder: Path) -> Guarded:
    authority = Authority(folder)
    scram = "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config"
    broker = make_broker(
        listeners=("SASL_SSL",),
        properties={
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
            scram: f'{_MODULE} username="{ADMIN}" password="{PASSWORDS[ADMIN]}";',
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(authority.server()),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(authority.file),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:{ADMIN};User:ANONYMOUS",
        },
        formatting=[
            word
            for user, password in PASSWORDS.items()
            for word in ("--add-scram", f"SCRAM-SHA-512=[name={user},password={password}]")
        ],
    )
    return Guarded(broker.address, authority, folder)
