"""Vast.ai over HTTP: eight calls, each paced to the documented limits, each answer checked before it is believed.

Most of it is plain REST and not `vastai-sdk` (1.9.1). The SDK repeats every call that ends in 429 or 5xx, the rent
call among them, which can rent twice; its list and its status need fields that the API leaves out; and it can't search
without a key, which a price preview does. `sdk.py` has the calls for which it is used.

Limits: https://docs.vast.ai/api-reference/rate-limits-and-errors, intervals per endpoint.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from providers.base import AuthError, CreateUncertain, NoCapacity, PlatformError
from providers.proxies import heeded_for
from providers.vastai.instances import VastInstance

URL = "https://console.vast.ai"
URL_VARIABLE = "VLLM_ANYWHERE_VASTAI_URL"
KEY_VARIABLE = "VAST_API_KEY"

Operation = Literal["search", "rent", "get", "list", "change", "bid", "destroy", "account", "serverless"]

SPACING_S: Mapping[Operation, float] = {
    "search": 6.0,
    "rent": 4.5,
    "get": 2.0,
    "list": 1.0,
    "change": 1.0,
    "bid": 5.5,
    "destroy": 3.0,
    "account": 1.0,
    "serverless": 4.0,
}
"""Least seconds between two calls of a kind."""

TOO_FREQUENT_TRIES = 6
LONGEST_RETRY_AFTER_S = 60.0
_PAGE = 25
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)


class TooFrequent(PlatformError):
    """429: nothing was done."""


class LowBid(NoCapacity):
    """The bid does not win: a stopped instance exists under `id`, and its disk bills until it is destroyed."""

    def __init__(self, message: str, id: str) -> None:
        super().__init__(message)
        self.id = id


@dataclass
class Pacer:
    """Keeps calls of a kind apart. `wait` may raise to end it all; `slots` may be shared by several clients."""

    clock: Callable[[], float]
    wait: Callable[[float], None]
    slots: dict[Operation, float] = field(default_factory=dict[Operation, float])

    def turn(self, operation: Operation) -> None:
        """Wait until the next call of that kind is due."""
        with _TAKING:
            now = self.clock()
            slot = max(now, self.slots.get(operation, float("-inf")) + SPACING_S[operation])
            self.slots[operation] = slot
        if slot > now:
            self.wait(slot - now)


_TAKING = threading.Lock()
_SLOTS: dict[Operation, float] = {}
"""The slots of this process: the limits hold for the account, however many resources are made at once."""


class Vast:
    """The API. `key` may be empty for a search. `transport`, `clock` and `wait` are the
    seams for tests; clients that share `slots` share the limits."""

    def __init__(
        self,
        key: str,
        url: str = URL,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
        slots: dict[Operation, float] | None = None,
        transport: httpx.BaseTransport | None = None,
        timeout: httpx.Timeout = _TIMEOUT,
    ) -> None:
        self.key, self.url, self.timeout = key, url.rstrip("/"), timeout
        self.pacer = Pacer(clock, wait, {} if slots is None else slots)
        self._http = httpx.Client(
            base_url=self.url,
            transport=transport,
            timeout=timeout,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            trust_env=heeded_for(url),
        )

    def search(self, query: Mapping[str, Any]) -> list[Any]:
        """Offers as they are answered, unread.

        Raises:
            PlatformError: no answer, or none that is a list of offers.
        """
        found = self._json(self._call("search", "POST", "/api/v0/bundles/", query)).get("offers")
        if not isinstance(found, list):
            raise PlatformError("Vast.ai's search answered without a list of offers; nothing is rented")
        return found

    def rent(self, offer: int, body: Mapping[str, Any]) -> str:
        """Rent an offer; the id of the instance. Never repeated here.

        Raises:
            NoCapacity: somebody else has it.
            LowBid: nothing runs, but a stopped instance exists.
            TooFrequent: nothing was done.
            CreateUncertain: the answer is lost; it may be rented.
            PlatformError: refused for a reason that another offer won't cure.
        """
        label = str(body.get("label", ""))
        self.pacer.turn("rent")
        try:
            answer = self._http.put(f"/api/v0/asks/{offer}/", json=dict(body))
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise PlatformError(f"Vast.ai can't be reached: {error}. Nothing is rented") from error
        except httpx.HTTPError as error:
            raise CreateUncertain(f"the call that rents offer {offer} ended in {_name(error)}", label) from error
        return rented(offer, label, answer.status_code, self._scrubbed(answer.text, body))

    def labelled(self, label: str) -> list[VastInstance]:
        """Every instance with that label, in any state.

        Raises:
            PlatformError: when the list is not certain to be complete.
        """
        return [one for one in self.instances({"label": {"eq": label}}) if one.label == label]

    def instances(self, filters: Mapping[str, Any] | None = None) -> list[VastInstance]:
        """Every instance of the account that passes the filters. Only a complete, well-formed list is returned.

        An empty text, an error inside a 200 and a list that ends too soon have all been taken for "none" elsewhere,
        and instances rented over and over (https://github.com/skypilot-org/skypilot/issues/10517).
        """
        found: dict[int, VastInstance] = {}
        begun: set[str] = set()
        token = ""
        while True:
            address = f"/api/v1/instances/?limit={_PAGE}&select_filters={quote(json.dumps(filters or {}))}"
            if token:
                address += f"&after_token={quote(token)}"
                begun.add(token)
            page = self._json(self._call("list", "GET", address))
            rows, total = page.get("instances"), page.get("total_instances")
            if page.get("success") is False or not isinstance(rows, list):
                raise PlatformError(f"Vast.ai's list of instances is not one: {_why(page)}")
            try:
                found.update({one.number: one for one in map(VastInstance.model_validate, rows)})
            except ValidationError as error:
                raise PlatformError("Vast.ai's list of instances holds something that is not an instance") from error
            token = str(page.get("next_token") or "")
            if not token:
                break
            if token in begun or not rows:
                raise PlatformError("Vast.ai's list of instances does not go on where it ended")
        if isinstance(total, int) and total > len(found):
            raise PlatformError(f"Vast.ai lists {len(found)} of {total} instances")
        return list(found.values())

    def get(self, id: str) -> VastInstance | None:
        """One instance; None when it is gone.

        Raises:
            PlatformError: when the answer says neither.
        """
        answer = self._call("get", "GET", f"/api/v0/instances/{id}/", missing=True)
        if answer is None:
            return None
        page = self._json(answer)
        if "instances" not in page or page.get("success") is False:
            raise PlatformError(f"Vast.ai does not say whether instance {id} exists: {_why(page)}")
        if page["instances"] is None:
            return None
        try:
            return VastInstance.model_validate(page["instances"])
        except ValidationError as error:
            raise PlatformError(f"Vast.ai's answer about instance {id} can't be read") from error

    def destroy(self, id: str) -> None:
        """Destroy an instance. One that is gone is no error; whether it is gone is for `get` to say."""
        answer = self._call("destroy", "DELETE", f"/api/v0/instances/{id}/", missing=True)
        if answer is not None and answer.content and (page := self._json(answer)).get("success") is False:
            raise PlatformError(f"Vast.ai did not destroy instance {id}: {_why(page)}")

    def start(self, id: str) -> None:
        """Ask for a stopped instance to run again; with a bid it does once the bid wins."""
        page = self._json(self._call("change", "PUT", f"/api/v0/instances/{id}/", {"state": "running"}))
        if page.get("success") is False:
            raise PlatformError(f"Vast.ai did not start instance {id}: {_why(page)}")

    def credit(self) -> Decimal:
        """The account's balance in US dollars."""
        user = self._json(self._call("account", "GET", "/api/v0/users/current/"))
        for name in ("credit", "balance"):
            if isinstance(user.get(name), int | Decimal):
                return Decimal(user[name])
        raise PlatformError("Vast.ai's answer about the account has no balance")

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, missing: bool = False) -> Any:
        """One call of the serverless API; its JSON, or None when `missing` allows for 404."""
        answer = self._call("serverless", method, path, body, missing=missing)
        return None if answer is None else self._json(answer)

    def make(self, path: str, body: Mapping[str, Any], label: str) -> str:
        """Create a serverless endpoint or workergroup; its id. Never repeated here.

        Raises:
            CreateUncertain: the answer is lost; it may exist.
            PlatformError: refused.
        """
        self.pacer.turn("serverless")
        try:
            answer = self._http.post(path, json=dict(body))
            if answer.is_server_error:
                raise CreateUncertain(f"POST {path} ended in HTTP {answer.status_code}", label)
            checked = self._checked(answer, "POST", missing=False)
        except httpx.HTTPError as error:
            raise CreateUncertain(f"POST {path} ended in {_name(error)}", label) from error
        try:
            page = json.loads(checked.text) if checked is not None else None
        except ValueError:
            page = None
        made = (page.get("result") or page.get("id")) if isinstance(page, dict) else None
        if isinstance(made, int):
            return str(made)
        if isinstance(page, dict) and page.get("success") is False:
            raise PlatformError(f"Vast.ai refuses POST {path}: {_why(page)}. Nothing was created")
        raise CreateUncertain(f"the answer to POST {path} names nothing that was made", label)

    def patiently(self, operation: Operation, call: Callable[[], Any]) -> Any:
        """`call` in its turn, and again for as long as it raises `TooFrequent`, a few times over."""
        for attempt in range(TOO_FREQUENT_TRIES - 1):
            self.pacer.turn(operation)
            try:
                return call()
            except TooFrequent:
                self.pacer.wait(SPACING_S[operation] * 2**attempt)
        self.pacer.turn(operation)
        return call()

    def _call(
        self,
        operation: Operation,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        missing: bool = False,
    ) -> Any:
        """One call that may be repeated; None for 404 where `missing` allows it."""

        def once() -> httpx.Response | None:
            try:
                answer = self._http.request(method, path, json=None if body is None else dict(body))
            except httpx.HTTPError as error:
                raise PlatformError(
                    f"Vast.ai did not answer {method} {path.partition('?')[0]}: {_name(error)}"
                ) from error
            return self._checked(answer, method, missing)

        return self.patiently(operation, once)

    def _checked(self, answer: httpx.Response, method: str, missing: bool) -> httpx.Response | None:
        if answer.is_success:
            return answer
        text = self._scrubbed(answer.text, {})
        where = f"{method} {answer.request.url.path}"
        if answer.status_code == 429:
            if "search_quota_exceeded" in text:
                raise PlatformError("Vast.ai's daily search quota is used up; it is renewed at midnight UTC")
            self.pacer.wait(_retry_after(answer))
            raise TooFrequent(f"Vast.ai: too many requests at {where}; try again in a minute")
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise AuthError(f"Vast.ai refuses the key in ${KEY_VARIABLE}: {_said(text)}. Nothing was changed")
        # Only the API's own 404 says that a thing is gone: a gateway in between has others.
        if missing and answer.status_code == 404 and _is_object(answer.text):
            return None
        raise PlatformError(f"Vast.ai answered {where} with HTTP {answer.status_code}: {_said(text)}")

    def _json(self, answer: httpx.Response) -> dict[str, Any]:
        try:
            value = json.loads(answer.text, parse_float=Decimal)
        except ValueError as error:
            raise PlatformError(f"Vast.ai's answer to {answer.request.url.path} is not JSON") from error
        if not isinstance(value, dict):
            raise PlatformError(f"Vast.ai's answer to {answer.request.url.path} is not an object")
        return value

    def _scrubbed(self, text: str, body: Mapping[str, Any]) -> str:
        """A text without the account's key and without the values of the container's environment."""
        environment = body.get("env")
        values = environment.values() if isinstance(environment, Mapping) else ()
        for secret in (self.key, *(str(value) for value in values)):
            if len(secret) >= _SECRET_LENGTH:
                text = text.replace(secret, "[secret]").replace(json.dumps(secret)[1:-1], "[secret]")
        return text


_SECRET_LENGTH = 8


def rented(offer: int, label: str, status: int, text: str) -> str:
    """The id in an answer to the rent call.

    Raises:
        NoCapacity, LowBid, TooFrequent, AuthError, CreateUncertain, PlatformError: as `Vast.rent` says.
    """
    if status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.REQUEST_TIMEOUT.value:
        raise CreateUncertain(f"the call that rents offer {offer} ended in HTTP {status}", label)
    if status == 429:
        raise TooFrequent("Vast.ai: too many requests to rent; try again in a minute")
    try:
        page = json.loads(text)
    except ValueError:
        page = None
    if not isinstance(page, dict):
        if status < httpx.codes.BAD_REQUEST:
            raise CreateUncertain(f"the answer to renting offer {offer} can't be read", label)
        page = {"msg": _short(text)}
    # The code has been seen in `error` with 410 and inside `msg` with 404.
    if "no_such_ask" in f"{page.get('error')} {page.get('msg')}":
        raise NoCapacity(f"offer {offer} was taken by somebody else")
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise AuthError(f"Vast.ai refuses to rent with the key in ${KEY_VARIABLE}: {_why(page)}. Nothing is rented")
    id = page.get("new_contract")
    if page.get("success") is True and isinstance(id, int):
        return str(id)
    if isinstance(id, int):
        raise LowBid(f"the bid for offer {offer} does not win: {_why(page)}", str(id))
    if status < httpx.codes.BAD_REQUEST and page.get("success") is not False:
        raise CreateUncertain(f"the answer to renting offer {offer} names no instance", label)
    raise PlatformError(f"Vast.ai refuses to rent offer {offer}: {_why(page)}. Nothing is rented")


def connect(
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
    *,
    keyless: bool = False,
    timeout: httpx.Timeout = _TIMEOUT,
) -> Vast:
    """The API at `$VLLM_ANYWHERE_VASTAI_URL` with `$VAST_API_KEY`.

    Raises:
        AuthError: without a key, unless `keyless`.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key and not keyless:
        raise AuthError(
            f"no key for Vast.ai: make one at https://cloud.vast.ai/manage-keys/ and `export {KEY_VARIABLE}=...`. "
            "Nothing was changed"
        )
    return Vast(key, os.environ.get(URL_VARIABLE) or URL, clock=clock, wait=wait, slots=_SLOTS, timeout=timeout)


def log_tail(server_id: str, lines: int) -> list[str]:
    """The last lines that the container wrote."""
    from providers.vastai.sdk import Sdk

    return Sdk(connect()).log_tail(server_id, lines)


def _retry_after(answer: httpx.Response) -> float:
    try:
        return min(float(answer.headers.get("Retry-After", 0)), LONGEST_RETRY_AFTER_S)
    except ValueError:
        return 0.0


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _said(text: str) -> str:
    """An error's own words, as JSON or plain."""
    return _why(json.loads(text)) if _is_object(text) else _short(text)


def _why(page: Mapping[str, Any]) -> str:
    said = [str(page[name]) for name in ("error", "msg", "detail") if page.get(name)]
    return _short(": ".join(said)) or "no reason given"


def _short(text: str) -> str:
    return " ".join(text.split())[:300]


def _name(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip()
