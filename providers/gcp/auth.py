"""A token for Google's APIs from the same places in which Pulumi's provider looks.

google-auth does it; it is imported when a token is asked for. Its transport here is httpx, which everything else uses.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from providers.base import AuthError
from providers.extras import install

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
TOKEN_VARIABLE = "GOOGLE_OAUTH_ACCESS_TOKEN"
KEY_VARIABLES = ("GOOGLE_CREDENTIALS", "GOOGLE_CLOUD_KEYFILE_JSON", "GCLOUD_KEYFILE_JSON")
"""A service account's key, as JSON or as a path of it."""
PROJECT_VARIABLES = ("GOOGLE_PROJECT", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT")

_PRODUCT = Path("/sys/class/dmi/id/product_name")

_HOW = (
    "`gcloud auth application-default login`, or set GOOGLE_CREDENTIALS to a service account's key file, then "
    "GOOGLE_PROJECT to the project"
)


@dataclass(frozen=True)
class Identity:
    """Who asks: a bearer token, and the project that the credentials come with ("" if they don't say)."""

    token: str
    project: str = ""

    def __repr__(self) -> str:
        return f"Identity(project={self.project!r})"


def identity(environ: Mapping[str, str] = os.environ, timeout_s: float = 10.0) -> Identity:
    """The token and the project.

    Raises:
        AuthError: there are no credentials, Google refuses them, or google-auth is missing.
    """
    project = next((environ[name] for name in PROJECT_VARIABLES if environ.get(name)), "")
    if token := environ.get(TOKEN_VARIABLE):
        return Identity(token, project)
    if not present(environ):
        # google-auth would ask a metadata server that isn't there, for some seconds.
        raise AuthError(f"no Google credentials: {_HOW}")
    try:
        import google.auth
        from google.auth import exceptions
    except ImportError:
        raise AuthError(f"google-auth is missing: {install('gcp')}") from None
    try:
        given = next((environ[name] for name in KEY_VARIABLES if environ.get(name)), "")
        credentials, theirs = _load(google.auth, given)
        credentials.refresh(_transport(timeout_s))
    except (exceptions.GoogleAuthError, OSError, ValueError) as error:
        # Its text may repeat what a file holds.
        raise AuthError(f"no usable Google credentials ({type(error).__name__}): {_HOW}") from None
    if not credentials.token:
        raise AuthError(f"the Google credentials give no token: {_HOW}")
    return Identity(str(credentials.token), project or str(theirs or ""))


def present(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether there are credentials to try: in the environment, of gcloud's, or those of a VM of Google's."""
    if any(environ.get(name) for name in (TOKEN_VARIABLE, *KEY_VARIABLES, "GOOGLE_APPLICATION_CREDENTIALS")):
        return True
    folder = Path(environ.get("CLOUDSDK_CONFIG") or Path.home() / ".config" / "gcloud")
    if (folder / "application_default_credentials.json").is_file():
        return True
    try:
        return _PRODUCT.read_text(encoding="utf-8").startswith("Google")
    except OSError:
        return False


def _load(auth: Any, given: str) -> tuple[Any, Any]:
    if not given:
        return auth.default(scopes=[SCOPE])
    from google.oauth2 import credentials, service_account

    text = given if given.lstrip().startswith("{") else Path(given).expanduser().read_text(encoding="utf-8")
    found = TypeAdapter(dict[str, Any]).validate_json(text)
    if found.get("type") == "authorized_user":
        return credentials.Credentials.from_authorized_user_info(found, scopes=[SCOPE]), None
    return service_account.Credentials.from_service_account_info(found, scopes=[SCOPE]), found.get("project_id")


def _transport(timeout_s: float) -> Any:
    """google-auth's transport protocol over httpx."""
    import httpx
    from google.auth import exceptions

    @dataclass(frozen=True)
    class Answer:
        status: int
        headers: Mapping[str, str]
        data: bytes

    def send(
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> Answer:
        try:
            found = httpx.request(method, url, content=body, headers=headers, timeout=timeout or timeout_s)
        except httpx.HTTPError as error:
            raise exceptions.TransportError(type(error).__name__) from None
        return Answer(found.status_code, found.headers, found.content)

    return send
