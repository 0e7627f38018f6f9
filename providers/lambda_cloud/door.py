"""The door of an instance, from outside (`data/door.py` is what answers): secrets in, log out.

Who holds the account's key opens it: the token is made from that key and the instance's label. The certificate of the
door is told from any other by its fingerprint, which a tag of the instance has, and so is asked of Lambda itself.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from providers.base import PlatformError
from providers.lambda_cloud.client import DOOR_TAG, LambdaInstance

PORT = 8001
_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Door:
    """An instance's door. `fingerprint` is the SHA-256 of its certificate, in hexadecimal."""

    address: str
    fingerprint: str
    token: str = field(repr=False)

    def put(self, path: str, values: Mapping[str, str]) -> None:
        """Hand over `/env`, with which the server starts, or `/keys`, which count from the next request on.

        Raises:
            PlatformError: it was not taken.
        """
        self._ask("PUT", path, json.dumps(dict(values)))

    def log(self, lines: int) -> list[str]:
        """The last lines that the server and its start have written.

        Raises:
            PlatformError: the door does not answer.
        """
        return self._ask("GET", f"/log?lines={lines}").splitlines()

    def _ask(self, method: str, path: str, body: str | None = None) -> str:
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(self.address, PORT, timeout=_TIMEOUT_S, context=trusting)
        try:
            connection.connect()
            self._judge(connection.sock)
            connection.request(method, path, body, {"Authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise PlatformError(f"the door of {self.address} does not answer: {type(error).__name__}") from error
        finally:
            connection.close()
        if answer.status >= http.client.BAD_REQUEST:
            raise PlatformError(f"the door of {self.address} answered {method} with HTTP {answer.status}: {text[:200]}")
        return text

    def _judge(self, connected: Any) -> None:
        """Refuse whoever is not the instance, before anything is said."""
        shown = connected.getpeercert(binary_form=True) or b""
        if not hmac.compare_digest(hashlib.sha256(shown).hexdigest(), self.fingerprint):
            raise PlatformError(f"what answers at {self.address} is not the instance: its certificate is another one")


def door_of(account_key: str, one: LambdaInstance) -> Door:
    """The door of an instance that has one.

    Raises:
        PlatformError: it has no address yet, or was not made by this project.
    """
    fingerprint = one.tag(DOOR_TAG)
    if not one.ip or not fingerprint:
        raise PlatformError(f"instance {one.id} has no {'door' if one.ip else 'address'}")
    return Door(one.ip, fingerprint, token_for(account_key, one.label))


def token_for(account_key: str, label: str) -> str:
    """What opens the door of the instance with that label."""
    return hmac.new(account_key.encode(), f"vllm-anywhere door of {label}".encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Lock:
    """What an instance is given for its door: a certificate with its key, and the hash of the token."""

    pem: str = field(repr=False)
    fingerprint: str
    token_sha256: str


def new_lock(account_key: str, label: str, now: datetime) -> Lock:
    """A lock that opens to `token_for(account_key, label)`."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    from serving.tls import new_authority

    own = new_authority("door", now=now)
    fingerprint = x509.load_pem_x509_certificate(own.cert_pem.encode()).fingerprint(hashes.SHA256()).hex()
    token = token_for(account_key, label)
    return Lock(f"{own.cert_pem}{own.key_pem}", fingerprint, hashlib.sha256(token.encode()).hexdigest())
