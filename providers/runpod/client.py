"""RunPod's REST v2 over httpx: one request in, one answer or one error out. Decides nothing but what an error means.

How the answers are told apart:

    400 "no longer any instances"   NoCapacity: try the next GPU or data centre
    401, 403                        AuthError: the key is refused, or lacks the permission
    402                             the balance is too low
    404                             None, or gone
    429                             waited for as `Retry-After` says, a few times over: the call was not carried out
    other 4xx                       Refused: the request itself is wrong
    5xx, no answer, no JSON         of a create: CreateUncertain, since it may have been carried out; else PlatformError
"""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from providers.base import AuthError, CreateUncertain, NoCapacity, PlatformError
from providers.proxies import heeded_for
from providers.runpod.answers import Answer, Endpoint, GpuType, Named, NetworkVolume, Pod, Worker
from serving import VERSION

if TYPE_CHECKING:
    import httpx

KEY_VARIABLE = "RUNPOD_API_KEY"

_TIMEOUT_S = 30.0
_MOST_BUSY = 4
_PATCH_PAUSES_S = (1.0, 3.0)
_LONGEST_RETRY_AFTER_S = 120.0
_MOST_PAGES = 200
_LAG_S = 2.0
_SOLD_OUT = ("no longer any instances", "no instances available", "no available instances", "out of capacity")
_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD")

A = TypeVar("A", bound=Answer)
L = TypeVar("L", Pod, Endpoint, NetworkVolume, Named)


class Refused(PlatformError):
    """RunPod understood the request and won't do it; `status` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Forbidden(AuthError):
    """The key is valid, but may not do this: it lacks a permission, or the account has no access to a GPU pool."""


@dataclass(frozen=True)
class Urls:
    """Where RunPod is. `{id}` and `{port}` are filled in.

    Attributes:
        api: the control plane.
        jobs: the job plane, which serves queue endpoints.
        proxy: the host that leads to a pod's HTTP port.
        balancer: the host of a load-balancing endpoint.
    """

    api: str = "https://api.runpod.io"
    jobs: str = "https://api.runpod.ai/v2"
    proxy: str = "https://{id}-{port}.proxy.runpod.net"
    balancer: str = "https://{id}.api.runpod.ai"


def urls_from(environment: Mapping[str, str]) -> Urls:
    """RunPod's own addresses, or those that `VLLM_ANYWHERE_RUNPOD_{API,JOBS,PROXY,BALANCER}_URL` name."""
    given = {name: environment.get(f"VLLM_ANYWHERE_RUNPOD_{name.upper()}_URL") for name in Urls.__annotations__}
    return Urls(**{name: url.rstrip("/") for name, url in given.items() if url})


class RunPod:
    """The control plane. `transport` is the seam for tests; `pause(seconds)` waits while RunPod asks for patience."""

    def __init__(
        self,
        key: str,
        urls: Urls | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        pause: Callable[[float], object] = time.sleep,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        import httpx

        self.urls = urls or Urls()
        self._key = key
        self._pause = pause
        self._http = httpx.Client(
            base_url=self.urls.api,
            transport=transport,
            verify=trust() if transport is None else True,
            timeout=httpx.Timeout(timeout_s, connect=min(10.0, timeout_s)),
            # Without a User-Agent of its own a client may meet Cloudflare's error 1010 instead of the API.
            headers={"Authorization": f"Bearer {key}", "User-Agent": f"vllm-anywhere/{VERSION}"},
            trust_env=heeded_for(self.urls.api),
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def create(self, path: str, body: Mapping[str, Any], kind: type[A], label: str) -> A:
        """`POST` a new thing whose body carries `label`.

        Raises:
            CreateUncertain: when it may exist all the same.
            NoCapacity, AuthError, Refused, PlatformError: when it does not.
        """
        import httpx

        try:
            response = self._send("POST", path, body)
        except httpx.ConnectError as error:
            raise PlatformError(f"RunPod can't be reached ({error}); nothing was created") from error
        except httpx.TransportError as error:
            raise CreateUncertain(f"no answer to creating {label} ({type(error).__name__})", label) from error
        if response.status_code >= 500:
            raise CreateUncertain(f"creating {label} was answered with HTTP {response.status_code}", label)
        if response.is_error:
            raise self._error(response, body, f"creating {label}", nothing_created=True)
        try:
            return kind.model_validate(_json(response))
        except (ValueError, ValidationError) as error:
            raise CreateUncertain(f"the answer to creating {label} can't be read", label) from error

    def get(self, path: str, kind: type[A]) -> A | None:
        """One thing; None when RunPod says that there is none."""
        response = self._ask("GET", path)
        return None if response.status_code == 404 else self._read(response, kind, path)

    def all(self, path: str, name: str, kind: type[A], query: Mapping[str, str] | None = None) -> list[A]:
        """Every thing of a list, over all its pages.

        Raises:
            PlatformError: when the list is not complete and well-formed, which is never the same as an empty one.
        """
        found: dict[str, A] = {}
        for page in self._pages(path, query or {}):
            rows = page.get(name)
            if not isinstance(rows, list):
                raise PlatformError(f"RunPod's answer to GET {path} has no list `{name}`; it can't be relied on")
            try:
                things = [kind.model_validate(row) for row in rows]  # pyright: ignore[reportUnknownVariableType]
            except ValidationError as error:
                raise PlatformError(f"RunPod's list of {name} can't be read: {_where(error)}") from error
            found.update({getattr(thing, "id"): thing for thing in things})  # noqa: B009
        return list(found.values())

    def labelled(self, path: str, name: str, kind: type[L], label: str) -> list[L]:
        """Everything of a list that carries a label. Lists lag behind creates, so "none" has to be said twice.

        Raises:
            PlatformError: as `all`.
        """
        found = [thing for thing in self.all(path, name, kind) if thing.label == label]
        if not found:
            self._pause(_LAG_S)
            found = [thing for thing in self.all(path, name, kind) if thing.label == label]
        return found

    def patch(self, path: str, body: Mapping[str, Any], kind: type[A]) -> A:
        """Change one thing in place. Repeating it does no harm, so that a failure of RunPod's is tried again."""
        response = self._ask("PATCH", path, body)
        for pause in _PATCH_PAUSES_S:
            if response.status_code < 500:
                break
            self._pause(pause)
            response = self._ask("PATCH", path, body)
        return self._read(response, kind, path, body)

    def act(self, path: str, action: str) -> None:
        """A pod's `start`, `stop` or `restart`."""
        response = self._ask("POST", f"{path}/action", {"action": action})
        if response.is_error:
            raise self._error(response, {}, f"POST {path}/action ({action})")

    def delete(self, path: str) -> None:
        """Delete one thing; one that is gone already is no error."""
        response = self._ask("DELETE", path)
        if response.is_error and response.status_code != 404:
            raise self._error(response, {}, f"DELETE {path}")

    def gpu_types(self, product: str = "", **filters: str) -> list[GpuType]:
        """The catalogue; with `product` (POD or SERVERLESS) also the stock, under the API's own filters."""
        query = {"include": "AVAILABILITY", "product": product, **filters} if product else {}
        return self.all("/v2/catalog/gpus", "gpus", GpuType, query)

    def log_lines(self, path: str, tail: int) -> list[str]:
        """The last lines of a log stream, which RunPod never ends: read until it has been quiet for a moment."""
        import httpx

        lines: list[str] = []
        timeout = httpx.Timeout(_TIMEOUT_S, read=3.0)
        try:
            with self._http.stream("GET", path, params={"tail": str(tail)}, timeout=timeout) as response:
                if response.is_error:
                    response.read()
                    raise self._error(response, {}, f"GET {path}")
                for line in response.iter_lines():
                    if line.startswith("data:"):
                        lines.append(_log_line(line.removeprefix("data:").strip()))
                    if len(lines) >= tail:
                        break
        except httpx.ReadTimeout:
            pass
        except httpx.TransportError as error:
            if not lines:
                raise PlatformError(f"RunPod's log can't be read ({type(error).__name__})") from error
        return lines

    def _pages(self, path: str, query: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        cursor = ""
        seen: set[str] = set()
        for _ in range(_MOST_PAGES):
            response = self._ask("GET", path, query={**query, **({"cursor": cursor} if cursor else {})})
            if response.is_error:
                raise self._error(response, {}, f"GET {path}")
            try:
                page = _json(response)
            except ValueError as error:
                raise PlatformError(f"RunPod's answer to GET {path} is no JSON; it can't be relied on") from error
            if not isinstance(page, dict):
                raise PlatformError(f"RunPod's answer to GET {path} is no object; it can't be relied on")
            yield page
            paging: Mapping[str, Any] = page.get("pagination") or {}
            cursor = str(paging.get("nextCursor") or "")
            if not cursor or paging.get("hasNextPage") is False:
                return
            if cursor in seen:
                break
            seen.add(cursor)
        raise PlatformError(f"RunPod's list at {path} does not end; it can't be relied on")

    def _read(self, response: httpx.Response, kind: type[A], path: str, sent: Mapping[str, Any] | None = None) -> A:
        if response.is_error:
            raise self._error(response, sent or {}, f"{response.request.method} {path}")
        try:
            return kind.model_validate(_json(response))
        except ValidationError as error:
            raise PlatformError(f"RunPod's answer about {path} can't be read: {_where(error)}") from error
        except ValueError as error:
            raise PlatformError(f"RunPod's answer about {path} is no JSON") from error

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, query: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """A request that may be repeated safely."""
        import httpx

        try:
            return self._send(method, path, body, query)
        except httpx.TransportError as error:
            raise PlatformError(f"no answer from RunPod to {method} {path} ({type(error).__name__})") from error

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, query: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """One request, again when RunPod says that it was too busy to carry it out."""
        for _ in range(_MOST_BUSY - 1):
            response = self._http.request(method, path, json=body, params=query or None)
            if response.status_code != 429:
                return response
            self._pause(_retry_after(response))
        return self._http.request(method, path, json=body, params=query or None)

    def _error(
        self, response: httpx.Response, body: Mapping[str, Any], what: str, *, nothing_created: bool = False
    ) -> PlatformError:
        status = response.status_code
        detail = redacted(_detail(response), (self._key, *_secrets_in(body)))
        end = ". Nothing was created, nothing is billed for it" if nothing_created else ""
        match status:
            case 400 if any(words in detail.lower() for words in _SOLD_OUT):
                return NoCapacity(detail)
            case 401:
                return AuthError(f"RunPod refused the key in {KEY_VARIABLE} (HTTP 401 {detail}){end}. {_NEW_KEY}")
            case 402:
                return Refused(
                    f"{what}: RunPod says that the balance is too low (HTTP 402 {detail}){end}. "
                    "Add credit at https://console.runpod.io/user/billing, then `pulumi up`",
                    status,
                )
            case 403:
                return Forbidden(
                    f"{what}: the key in {KEY_VARIABLE} may not do that (HTTP 403 {detail}){end}. Give it read and "
                    "write access at https://console.runpod.io/user/settings, or choose a GPU that the account may use"
                )
            case 429:
                return PlatformError(
                    f"{what}: RunPod's rate limit holds (HTTP 429 {detail}){end}. Wait {_retry_after(response):.0f} s, "
                    "then run the same command again"
                )
            case 413:
                return Refused(
                    f"{what}: the request is larger than RunPod takes (HTTP 413 {detail}){end}. "
                    "Shorten `vllm-anywhere:engine.extra_args`",
                    status,
                )
            case _ if status >= 500:
                return PlatformError(f"{what}: RunPod failed (HTTP {status} {detail}); the same command tries again")
            case _:
                return Refused(f"{what}: RunPod refused (HTTP {status} {detail}){end}", status)


_NEW_KEY = f"Make one at https://console.runpod.io/user/settings and `export {KEY_VARIABLE}=...`"


def key_from(environment: Mapping[str, str]) -> str:
    """The account's API key.

    Raises:
        AuthError: when there is none.
    """
    key = environment.get(KEY_VARIABLE, "").strip()
    if not key:
        raise AuthError(f"{KEY_VARIABLE} is not set, and RunPod does nothing without it. {_NEW_KEY}")
    return key


@cache
def trust() -> ssl.SSLContext:
    """The public CAs. Reading them takes 40 ms, and every step of a deployment has a client of its own."""
    import httpx

    return httpx.create_ssl_context()


def connect(pause: Callable[[float], object] = time.sleep, *, timeout_s: float = _TIMEOUT_S) -> RunPod:
    """The account whose key is in the environment.

    Raises:
        AuthError: when there is no key.
    """
    return RunPod(key_from(os.environ), urls_from(os.environ), pause=pause, timeout_s=timeout_s)


def log_tail(server_id: str, lines: int) -> list[str]:
    """The last lines of a pod, or of the workers of an endpoint."""
    return tail_of(connect(), server_id, lines)


def tail_of(cloud: RunPod, server_id: str, lines: int) -> list[str]:
    """`log_tail`, of a given account."""
    if cloud.get(f"/v2/pods/{server_id}", Pod) is not None:
        return cloud.log_lines(f"/v2/pods/{server_id}/logs", lines)
    if cloud.get(f"/v2/serverless/{server_id}", Endpoint) is None:
        return []
    said: list[str] = []
    for worker in cloud.all(f"/v2/serverless/{server_id}/workers", "workers", Worker):
        log = cloud.log_lines(f"/v2/serverless/{server_id}/workers/{worker.id}/logs", lines)
        said += [f"worker {worker.id} ({worker.status.lower()}):", *log]
    return said


def redacted(text: str, secrets: Sequence[str]) -> str:
    """`text` without any of the secrets, the longest first."""
    for secret in sorted({s for s in secrets if len(s) > 3}, key=len, reverse=True):
        text = text.replace(secret, "[secret]")
    return text


def _secrets_in(body: Mapping[str, Any]) -> list[str]:
    """The values of a request that an error must not repeat."""
    env: Mapping[str, str] = body.get("env") or {}
    own = {**env, **{name: text for name, text in body.items() if isinstance(text, str)}}
    return [
        text for name, text in own.items() if name == "value" or any(word in name.upper() for word in _SECRET_WORDS)
    ]


def _json(response: httpx.Response) -> Any:
    return json.loads(response.content, parse_float=Decimal)


def _detail(response: httpx.Response) -> str:
    """What RunPod says is wrong, in one line: its problem+json, or the body's beginning."""
    try:
        problem = _json(response)
        listed = "; ".join(str(item) for item in problem.get("errors") or ())
        text = str(problem.get("detail") or problem.get("message") or problem.get("error") or problem.get("title"))
    except (ValueError, AttributeError, TypeError):
        text, listed = response.text, ""
    return " ".join(f"{text}: {listed}".split() if listed else text.split())[:500]


def _where(error: ValidationError) -> str:
    """Where an answer is wrong; its values may be secret and are not repeated."""
    found = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(step) for step in found['loc']) or 'the whole'}: {found['msg']}"


def _retry_after(response: httpx.Response) -> float:
    """Seconds that RunPod asks us to wait; a date, or nothing, counts as 5."""
    try:
        seconds = float(response.headers.get("Retry-After", "5"))
    except ValueError:
        seconds = 5.0
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_S)


def _log_line(data: str) -> str:
    try:
        return str(json.loads(data)["line"])
    except (ValueError, KeyError, TypeError):
        return data
