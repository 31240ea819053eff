"""How Kafka is reached: the settings in the words of its client library, and its errors in ours."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError

from spectrum.settings import Kafka, SettingsError

CLIENT_ID = "spectrum"
_log = logging.getLogger("kafka")
# A broker that is back is found soon.
RECONNECT_MILLISECONDS = 2_000

_CREDENTIALS = (
    "check SPECTRUM_KAFKA_USERNAME, SPECTRUM_KAFKA_MECHANISM, and the password in SPECTRUM_KAFKA_PASSWORD_FILE"
)
_REACH = "check that the brokers in SPECTRUM_BUS run and can be reached from here"
_TLS = "check SPECTRUM_KAFKA_TLS, and that SPECTRUM_KAFKA_CA_FILE holds who signed the brokers' certificates"
_REPLICAS = "bring the topic's other replicas back"
_CREATE = "run `spectrum topics create`"

_REMEDIES = {
    KafkaError._AUTHENTICATION: _CREDENTIALS,
    KafkaError.SASL_AUTHENTICATION_FAILED: _CREDENTIALS,
    KafkaError._SSL: _TLS,
    KafkaError._RESOLVE: "check the names of the brokers in SPECTRUM_BUS",
    KafkaError._TRANSPORT: _REACH,
    KafkaError._ALL_BROKERS_DOWN: _REACH,
    KafkaError._TIMED_OUT: _REACH,
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "let SPECTRUM's user describe and write the topic",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "let SPECTRUM's user do it on the cluster",
    KafkaError.UNKNOWN_TOPIC_OR_PART: _CREATE,
    KafkaError._UNKNOWN_TOPIC: _CREATE,
    KafkaError._UNKNOWN_PARTITION: "run `spectrum topics check`",
    KafkaError.MSG_SIZE_TOO_LARGE: "raise max.message.bytes of the topic",
    KafkaError.NOT_ENOUGH_REPLICAS: _REPLICAS,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND: _REPLICAS,
}

# What does not pass by itself: a new connection, with what the files say then, is the only way on.
_FOR_GOOD = frozenset({KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL})


def configuration(kafka: Kafka) -> dict[str, Any]:
    """For any client of the library. Raises SettingsError where a file can't be read."""
    return {
        "bootstrap.servers": str(kafka),
        "client.id": CLIENT_ID,
        "logger": _log,
        "log_level": 0,  # what matters comes as an error, too, and is told with a remedy
        "reconnect.backoff.max.ms": RECONNECT_MILLISECONDS,
        "security.protocol": f"{'sasl_' if kafka.username else ''}{'ssl' if kafka.tls else 'plaintext'}",
        **_secured(kafka),
        **_user(kafka),
    }


def _secured(kafka: Kafka) -> dict[str, str]:
    files = {
        "ssl.ca.location": ("KAFKA_CA_FILE", kafka.ca_file),
        "ssl.certificate.location": ("KAFKA_CERTIFICATE_FILE", kafka.certificate_file),
        "ssl.key.location": ("KAFKA_KEY_FILE", kafka.key_file),
    }
    for name, file in files.values():
        if file is not None:
            _text(name, file)
    return {option: str(file) for option, (_, file) in files.items() if file is not None}


def _user(kafka: Kafka) -> dict[str, str]:
    if kafka.username is None or kafka.password_file is None:
        return {}
    return {
        "sasl.mechanism": kafka.mechanism.value,
        "sasl.username": kafka.username,
        "sasl.password": _text("KAFKA_PASSWORD_FILE", kafka.password_file).rstrip("\r\n"),
    }


def _text(name: str, file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, ValueError) as error:
        raise SettingsError(f"SPECTRUM_{name}: {file} can't be read ({error}). Check its path and its mode.") from None


def explained(error: KafkaError, subject: str = "") -> str:
    """What is wrong, and what to do about it, in one sentence. `subject` is what was being dealt with, such as a topic."""
    said = error.str().rstrip(".")
    remedy = _REMEDIES.get(error.code()) or next(
        (remedy for code, remedy in _REMEDIES.items() if KafkaError(code).str() in said),  # an error about an error
        "see the logs of the brokers",
    )
    return f"{f'{subject}: ' if subject else ''}{said}: {remedy}"


def is_for_good(error: KafkaError) -> bool:
    """Whether the same connection can't come to anything, however long one waits."""
    return error.code() in _FOR_GOOD
