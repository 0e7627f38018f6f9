"""`vllm-anywhere:index:Certificate`: TLS for a server that no platform's proxy stands before (`serving/tls.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

from pydantic import Field, SecretStr

from providers import base
from providers.native import Context, Created, Failure, Found, NativeResource, Properties
from serving import NAMESPACE


class CertificateInputs(Properties):
    """Which server it is for."""

    name: str = Field(description="The server's fixed name, as `serving.tls.server_name` makes it.")
    hosts: list[str] = Field(default=[], description="IP addresses and host names by which clients reach it.")
    authority_pem: str = Field(default="", description="A CA that there is already; empty makes a new one.")
    authority_key_pem: SecretStr = Field(default=SecretStr(""), description="That CA's key.")
    status: str = Field(default="valid", description="Leave it: refresh says `expiring` here, and `up` renews it.")


class CertificateOutputs(Properties):
    """The CA, which clients are given, and the server's certificate by it."""

    name: str = Field(description="The server's fixed name.")
    hosts: list[str] = Field(description="The addresses that it holds for, besides the name.")
    ca_pem: str = Field(description="What clients trust: `verify` of httpx, `--cacert` of curl.")
    ca_key_pem: SecretStr = Field(description="The CA's key, which stays in state: renewal needs no new `caPem`.")
    cert_pem: str = Field(description="The server's certificate.")
    key_pem: SecretStr = Field(description="The server's key.")
    expires_at: str = Field(description="When the server's certificate ends, in UTC (ISO 8601).")


class Certificate(NativeResource[CertificateInputs, CertificateOutputs]):
    """A CA of the deployment's own and its server's certificate.

    New hosts, and renewal, bring a new server certificate by the same CA, so clients keep the `caPem` that they have.
    """

    token: ClassVar[str] = f"{NAMESPACE}:index:Certificate"
    doc: ClassVar[str] = "A certificate authority of the deployment's own, and its server's certificate."
    inputs = CertificateInputs
    outputs = CertificateOutputs

    def check(self, inputs: Mapping[str, Any]) -> list[Failure]:
        from serving.tls import bad_hosts

        checked = (("name", [inputs["name"]] if "name" in inputs else []), ("hosts", inputs.get("hosts", [])))
        return [
            Failure(field, f"neither an IP address nor a host name: {', '.join(bad)}")
            for field, hosts in checked
            if (bad := bad_hosts(hosts))
        ]

    def preview(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return {field: inputs[field] for field in ("name", "hosts") if field in inputs}

    def create(self, context: Context, inputs: CertificateInputs) -> Created[CertificateOutputs]:
        return Created("certificate", _issue(inputs, None, context.now()))

    def read(
        self, context: Context, id: str, inputs: CertificateInputs | None, outputs: CertificateOutputs | None
    ) -> Found[CertificateInputs, CertificateOutputs] | None:
        if inputs is None or outputs is None:
            raise base.PlatformError(
                "a certificate can't be imported, since its keys are in state alone; make a new one"
            )
        from serving.tls import expiring

        late = expiring(datetime.fromisoformat(outputs.expires_at), now=context.now())
        return Found(inputs.model_copy(update={"status": "expiring" if late else "valid"}), outputs)

    def update(
        self, context: Context, id: str, outputs: CertificateOutputs, old: CertificateInputs, new: CertificateInputs
    ) -> Created[CertificateOutputs]:
        return Created(id, _issue(new, outputs, context.now()))

    def delete(self, context: Context, id: str, outputs: CertificateOutputs) -> None:
        return None


def _issue(inputs: CertificateInputs, kept: CertificateOutputs | None, now: datetime) -> CertificateOutputs:
    """A server certificate by the CA that is given or kept, unless one that is kept has to be renewed too."""
    # The cryptography package takes as long to import as pydantic; stacks without TLS of ours do without it.
    from serving.tls import Certified, expiring, expiry, issue, new_authority

    if inputs.authority_pem:
        authority = Certified(inputs.authority_pem, inputs.authority_key_pem.get_secret_value())
    elif kept is None or expiring(expiry(kept.ca_pem), now=now):
        authority = new_authority(inputs.name, now=now)
    else:
        authority = Certified(kept.ca_pem, kept.ca_key_pem.get_secret_value())
    server = issue(authority, inputs.name, inputs.hosts, now=now)
    return CertificateOutputs(
        name=inputs.name,
        hosts=inputs.hosts,
        ca_pem=authority.cert_pem,
        ca_key_pem=SecretStr(authority.key_pem),
        cert_pem=server.cert_pem,
        key_pem=SecretStr(server.key_pem),
        expires_at=expiry(server.cert_pem).isoformat(timespec="seconds"),
    )
