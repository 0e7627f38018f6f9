"""TLS without a domain: each deployment has a certificate authority (CA) of its own, which its clients are given.

What it protects: keys, prompts and answers on their way, and clients from talking to anybody else's server.
What it does not: anything from the host itself, which can read its guests' memory and environment.

A certificate has to say for which address it holds, and on some platforms the address is known only after the
server is rented. The ways that were weighed:

- The server makes its own certificate once it knows its address: the CA's key would have to travel to it.
- A wildcard for a public service that turns addresses into names (sslip.io): every client works as it is, and every
  connection hangs on somebody else's DNS.
- Issue in the very step that rents, for the address that the offer shows. Every client works as it is, as long as the
  platform then gives that address.
- A name that is the same wherever the server runs, and clients that check who signed instead of the address.

Chosen: `issue` is given the addresses that are known by then (a static IP, a host name, an offer's address), and always
adds the fixed name of `server_name`. Where the address fits, `ca.pem` is all that a client needs:

    httpx.Client(verify=ssl.create_default_context(cafile="ca.pem"))
    curl --cacert ca.pem https://203.0.113.7:41234/health

Where it does not, `context(ca_pem, any_address=True)` leaves the comparison of addresses out. That loses nothing: the
CA signs for this deployment alone, so whoever shows a certificate of it is this deployment. curl compares the fixed
name instead:

    curl --cacert ca.pem --connect-to NAME:443:203.0.113.7:41234 https://NAME/health

For the same reason `ca.pem` belongs into the one client that talks to the deployment, not into a system's trust store.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=825)
"""The longest that Apple's systems take (https://support.apple.com/en-us/103769)."""
RENEW_BEFORE = timedelta(days=30)

_CLOCK_SKEW = timedelta(hours=1)
_HOST_NAME = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?|localhost")


@dataclass(frozen=True)
class Certified:
    """A certificate and its private key, both PEM. The key is left out of `repr`."""

    cert_pem: str
    key_pem: str = field(repr=False)


def server_name(label: str) -> str:
    """The fixed name of a deployment's server, whatever `label` has in it: `qwen-prod-1f2e3d4c.vllm-anywhere.internal`.

    `.internal` is reserved for private use and never resolves on the internet.
    """
    words = re.sub(r"[^a-z0-9]+", "-", label.lower())[:48].strip("-")
    return f"{words}-{hashlib.sha256(label.encode()).hexdigest()[:8]}.vllm-anywhere.internal".lstrip("-")


def bad_hosts(hosts: Sequence[str]) -> list[str]:
    """Those that are neither an IP address nor a host name in lower case, with or without a leading `*.`."""
    return [host for host in hosts if _address(host) is None and not (_HOST_NAME.fullmatch(host) and len(host) < 254)]


def new_authority(name: str, *, now: datetime) -> Certified:
    """A CA that may sign server certificates and no further CA. P-256, valid for ten years from `now` (aware)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"CA of {name}"[:64])
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    builder = _builder(subject, subject, key.public_key(), now, AUTHORITY_LIFE).add_extension(
        constraints, critical=True
    )
    return _signed(builder.add_extension(_usage(signs_certificates=True), critical=True), key, key)


def issue(authority: Certified, name: str, hosts: Sequence[str], *, now: datetime) -> Certified:
    """A certificate for the server called `name` at `hosts`, with a new key, by that CA.

    Valid for 825 days from `now` (aware), or as long as the CA if that is shorter.

    Raises:
        ValueError: a host is neither an IP address nor a host name, or the CA has expired.
    """
    if bad := bad_hosts([name, *hosts]):
        raise ValueError(f"neither an IP address nor a host name: {', '.join(bad)}")
    signer = x509.load_pem_x509_certificate(authority.cert_pem.encode())
    life = min(SERVER_LIFE, signer.not_valid_after_utc - now)
    if life <= timedelta():
        raise ValueError(f"the certificate authority expired at {signer.not_valid_after_utc.isoformat()}")
    signing_key = serialization.load_pem_private_key(authority.key_pem.encode(), None)
    if not isinstance(signing_key, ec.EllipticCurvePrivateKey):
        raise TypeError("the certificate authority's key is not an elliptic-curve key")
    key = ec.generate_private_key(ec.SECP256R1())
    constraints = x509.BasicConstraints(ca=False, path_length=None)
    signer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key())
    builder = (
        _builder(_name(name[:64]), signer.subject, key.public_key(), now, life)
        .add_extension(constraints, critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(each) for each in dict.fromkeys([name, *hosts])]), False)
        .add_extension(signer_key, critical=False)
    )
    return _signed(builder, key, signing_key)


def expiry(cert_pem: str) -> datetime:
    """When a certificate ends, in UTC."""
    return x509.load_pem_x509_certificate(cert_pem.encode()).not_valid_after_utc


def expiring(expires_at: datetime, *, now: datetime) -> bool:
    """Whether it is time to renew: within 30 days of the end, or past it."""
    return expires_at - now < RENEW_BEFORE


def context(ca_pem: str, *, any_address: bool = False) -> ssl.SSLContext:
    """For a client of this deployment, which trusts its CA and no other.

    `any_address` accepts it wherever it runs; the chain to the CA is checked all the same.
    """
    made = ssl.create_default_context(cadata=ca_pem)
    made.check_hostname = not any_address
    return made


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + life - _CLOCK_SKEW)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _signed(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, signing_key: ec.EllipticCurvePrivateKey
) -> Certified:
    certificate = builder.sign(signing_key, hashes.SHA256())
    return Certified(
        cert_pem=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key_pem=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(host: str) -> x509.GeneralName:
    address = _address(host)
    return x509.DNSName(host) if address is None else x509.IPAddress(address)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
