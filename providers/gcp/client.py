"""Google's APIs over plain HTTPS, for what Pulumi's provider does not do: logs, quotas, checks, what is left over.

No google-cloud client: their protobuf files clash with pulumi's own in the process of our provider.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
from pydantic import TypeAdapter

from providers.base import AuthError, PlatformError
from providers.gcp.auth import Identity, identity
from providers.gcp.errors import refusal
from providers.gcp.quotas import Quota, Quotas

ENDPOINTS: Mapping[str, tuple[str, str]] = {
    "compute": ("GOOGLE_COMPUTE_CUSTOM_ENDPOINT", "https://compute.googleapis.com/compute/v1/"),
    "serviceusage": ("GOOGLE_SERVICE_USAGE_CUSTOM_ENDPOINT", "https://serviceusage.googleapis.com/v1/"),
    "billing": ("GOOGLE_CLOUD_BILLING_CUSTOM_ENDPOINT", "https://cloudbilling.googleapis.com/v1/"),
    "resourcemanager": ("GOOGLE_RESOURCE_MANAGER_CUSTOM_ENDPOINT", "https://cloudresourcemanager.googleapis.com/v1/"),
    "secretmanager": ("GOOGLE_SECRET_MANAGER_CUSTOM_ENDPOINT", "https://secretmanager.googleapis.com/v1/"),
}
"""Service -> the variable by which Pulumi's provider is sent elsewhere too, and where it is."""
_OBJECT = TypeAdapter(dict[str, Any])
_INSTANCE = re.compile(r"projects/[^/]+/zones/[^/]+/instances/[^/]+")
_GROUP = re.compile(r"projects/[^/]+/regions/[^/]+/instanceGroupManagers/[^/]+")
# `[   12.3] serve.sh[812]: text`, with or without the kernel's clock, the date and the host before it.
_OURS = re.compile(
    r"(?:^|[\s\]])(?:serve\.sh|gateway\.sh|startup-script|google_metadata_script_runner|docker)\[\d+\]: (.*)$"
)


class Google:
    """The APIs for one identity."""

    def __init__(
        self,
        who: Identity,
        *,
        timeout_s: float = 20.0,
        transport: httpx.BaseTransport | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.project = who.project
        self._urls = {name: environ.get(variable) or url for name, (variable, url) in ENDPOINTS.items()}
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {who.token}"},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 5.0)),
            transport=transport,
        )

    def call(self, method: str, service: str, path: str, body: Any = None, **params: str) -> dict[str, Any]:
        """One call's answer.

        Raises:
            AuthError: Google refuses the token.
            PlatformError: Google refuses or does not answer; the text has what it means and the next command.
        """
        try:
            answer = self._http.request(
                method, f"{self._urls[service].rstrip('/')}/{path}", json=body, params=params or None
            )
            if answer.is_success:
                return _OBJECT.validate_json(answer.content)
            text = _message(answer)
        except (httpx.HTTPError, ValueError) as error:
            raise PlatformError(f"Google did not answer about {path}: {type(error).__name__}") from None
        if answer.status_code == 401:
            raise AuthError("Google refuses the token: `gcloud auth application-default login` makes a new one")
        raise Refused(f"googleapi: Error {answer.status_code}: {text}", answer.status_code)

    def get(self, service: str, path: str, **params: str) -> dict[str, Any]:
        return self.call("GET", service, path, **params)

    def pages(self, path: str, key: str = "items", service: str = "compute", **params: str) -> Iterator[Any]:
        """Every item of a list, page by page."""
        token = ""
        while True:
            answer = self.get(service, path, **params, **({"pageToken": token} if token else {}))
            items = answer.get(key, [])
            yield from items.items() if isinstance(items, dict) else items
            token = str(answer.get("nextPageToken") or "")
            if not token:
                return

    def serial(self, instance: str) -> list[str]:
        """The lines of a VM's serial port; Google keeps the last MB."""
        answer = self.get("compute", f"{instance}/serialPort", port="1")
        return str(answer.get("contents") or "").splitlines()

    def instances_of(self, group: str) -> list[str]:
        """The VMs of a group, as `projects/P/zones/Z/instances/N`."""
        answer = self.call("POST", "compute", f"{group}/listManagedInstances")
        found = [str(one.get("instance") or "") for one in answer.get("managedInstances") or []]
        return [match[0] for url in found if (match := _INSTANCE.search(url))]

    def group_errors(self, group: str) -> list[str]:
        """What kept a group from making its VM, newest first."""
        answer = self.get("compute", f"{group}/listErrors")
        errors = [one.get("error") or {} for one in answer.get("items") or []]
        return [f"{one.get('code', '')}: {one.get('message', '')}" for one in errors]

    def gpu_zones(self) -> dict[str, frozenset[str]]:
        """Google's name of each GPU -> the zones that have it."""
        path = f"projects/{self.project}/aggregated/acceleratorTypes"
        found: dict[str, set[str]] = {}
        for scope, here in self.pages(path, fields="items/*/acceleratorTypes/name,nextPageToken"):
            for one in here.get("acceleratorTypes") or []:
                found.setdefault(str(one["name"]), set()).add(scope.rpartition("/")[2])
        return {name: frozenset(zones) for name, zones in found.items()}

    def quotas(self) -> Quotas:
        """The quotas of the project and of all its regions."""
        regions = {str(one["name"]): _quotas(one) for one in self.pages(f"projects/{self.project}/regions")}
        return Quotas(_quotas(self.get("compute", f"projects/{self.project}")), regions)


class Refused(PlatformError):
    """Google said no. `text` is what it said, `status` the HTTP status."""

    def __init__(self, text: str, status: int) -> None:
        known = refusal(text)
        super().__init__(f"{text}\n{known.advice}" if known else text)
        self.text = text
        self.status = status


def connect(timeout_s: float = 20.0) -> Google:
    """A client by the credentials of the environment.

    Raises:
        AuthError: there are none that work.
    """
    return Google(identity(timeout_s=timeout_s), timeout_s=timeout_s)


def project_of(timeout_s: float) -> Google:
    """A client with a project; raises `AuthError` where there are no credentials or no project."""
    google = connect(timeout_s)
    if not google.project:
        raise AuthError("no project is set: GOOGLE_PROJECT")
    return google


def log_tail(server_id: str, lines: int) -> list[str]:
    """The last lines of a VM, or of a group's VM and what kept the group from making one."""
    return tail_of(connect(), server_id, lines)


def tail_of(google: Google, server_id: str, lines: int) -> list[str]:
    """`log_tail`, of a given client."""
    if _GROUP.fullmatch(server_id):
        said = [f"group: {text}" for text in google.group_errors(server_id)[:3]]
        for instance in google.instances_of(server_id):
            said += [f"{instance.rpartition('/')[2]}:", *server_lines(google.serial(instance), lines)]
        return said[-lines:]
    if not _INSTANCE.fullmatch(server_id):
        raise PlatformError(f"{server_id} is no VM of Google's")
    return server_lines(google.serial(server_id), lines)


def server_lines(console: Sequence[str], lines: int) -> list[str]:
    """What the server and its start wrote to the console, without the kernel's lines; everything if that is nothing."""
    ours = [match[1] for line in console if (match := _OURS.search(line))]
    return [line for line in (ours or console) if line.strip()][-lines:]


def _quotas(answer: Mapping[str, Any]) -> dict[str, Quota]:
    return {
        str(one["metric"]): Quota(float(one.get("limit", 0)), float(one.get("usage", 0)))
        for one in answer.get("quotas") or []
    }


def _message(answer: httpx.Response) -> str:
    error = _OBJECT.validate_json(answer.content).get("error")
    said = error.get("message") if isinstance(error, dict) else None
    return str(said or error or "")[:500]
