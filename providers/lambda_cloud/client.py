"""Lambda Cloud over HTTP: each answer is checked before it is believed.

API: https://docs-api.lambda.ai/api/cloud. It asks for at most one request a second, and one launch in twelve; a call
that is told to come later waits.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from providers.account import is_label
from providers.base import AuthError, CreateUncertain, NoCapacity, PlatformError
from providers.proxies import heeded_for

PLATFORM = "lambda"
URL = "https://cloud.lambda.ai/api/v1"
URL_VARIABLE = "VLLM_ANYWHERE_LAMBDA_URL"
KEY_VARIABLE = "LAMBDA_API_KEY"
KEYS_PAGE = "https://cloud.lambda.ai/api-keys/cloud-api"

LABEL_TAG = "vllm-anywhere:label"
MADE_TAG = "vllm-anywhere:made"
DOOR_TAG = "vllm-anywhere:door"
GONE = frozenset({"terminated", "preempted"})

_LAUNCH_PAUSE_S = 12.0
_TRIES = 6
_CAPACITY = "instance-operations/launch/insufficient-capacity"
_DUPLICATE = "global/duplicate"

M = TypeVar("M")


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Region(_Answer):
    """A region by Lambda's own name."""

    name: str


class Tag(_Answer):
    """One of an instance's tags."""

    key: str
    value: str


class InstanceType(_Answer):
    """What an instance type is called and costs."""

    name: str
    price_cents_per_hour: int

    @property
    def hourly_usd(self) -> Decimal:
        return Decimal(self.price_cents_per_hour) / 100


class Offered(_Answer):
    """A type, and the regions that have it now."""

    instance_type: InstanceType
    regions_with_capacity_available: tuple[Region, ...]

    @property
    def regions(self) -> tuple[str, ...]:
        return tuple(region.name for region in self.regions_with_capacity_available)


class LambdaInstance(_Answer):
    """One instance. The token of its JupyterLab is not read, so that it can't be shown."""

    id: str
    status: str
    """`booting`, `active`, `unhealthy`, `terminating`, `terminated` or `preempted`."""
    region: Region
    instance_type: InstanceType
    name: str | None = None
    ip: str | None = None
    tags: tuple[Tag, ...] | None = None

    def tag(self, key: str) -> str:
        return next((tag.value for tag in self.tags or () if tag.key == key), "")

    @property
    def label(self) -> str:
        name = self.name or ""
        return self.tag(LABEL_TAG) or (name if is_label(name) else "")


class Rule(_Answer):
    """One rule; of it only what it is for."""

    description: str = ""


class Ruleset(_Answer):
    """Firewall rules for instances of one region."""

    id: str
    name: str
    region: Region
    rules: tuple[Rule, ...]

    @property
    def label(self) -> str:
        """The rules say in their descriptions what they are for: a name may not be long enough."""
        return next((rule.description for rule in self.rules if is_label(rule.description)), "")


class SshKey(_Answer):
    """A key that may be put on instances."""

    name: str


_TYPES = TypeAdapter(dict[str, Offered])
_INSTANCES = TypeAdapter(tuple[LambdaInstance, ...])
_INSTANCE = TypeAdapter(LambdaInstance)
_RULESETS = TypeAdapter(tuple[Ruleset, ...])
_RULESET = TypeAdapter(Ruleset)
_KEYS = TypeAdapter(tuple[SshKey, ...])


class Lambda:
    """The API. `transport` and `wait` are the seams for tests."""

    def __init__(
        self,
        key: str,
        url: str = URL,
        *,
        timeout_s: float = 30.0,
        wait: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.key = key
        self._wait = wait
        self._http = httpx.Client(
            base_url=url,
            transport=transport,
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
            headers={"Authorization": f"Bearer {key}"},
            trust_env=heeded_for(url),
        )

    def types(self) -> dict[str, Offered]:
        """Every instance type by its name, with its price and the regions that have it."""
        return self._data(_TYPES, "GET", "/instance-types")

    def launch(self, label: str, body: Mapping[str, Any]) -> str:
        """Rent an instance; its id. Never repeated here, unless Lambda says that it did nothing.

        Raises:
            NoCapacity: the region has none of that type.
            CreateUncertain: the answer is lost; it may be rented.
            PlatformError: refused for a reason that another type won't cure.
        """
        page = self._create(label, "/instance-operations/launch", body, pause_s=_LAUNCH_PAUSE_S)
        ids = page.get("instance_ids")
        if not isinstance(ids, list) or len(ids) != 1 or not isinstance(ids[0], str):
            raise CreateUncertain(f"the answer to the launch of {label} names no instance", label)
        return ids[0]

    def instances(self) -> tuple[LambdaInstance, ...]:
        """Every instance of the account that is not gone.

        Raises:
            PlatformError: when the answer is no list of instances.
        """
        return tuple(one for one in self._data(_INSTANCES, "GET", "/instances") if one.status not in GONE)

    def labelled(self, label: str) -> list[LambdaInstance]:
        """Every instance with that label which is not on its way out."""
        return [one for one in self.instances() if one.label == label and one.status != "terminating"]

    def get(self, id: str) -> LambdaInstance | None:
        """One instance; None when it is gone."""
        found = self._found(_INSTANCE, f"/instances/{id}")
        return None if found is None or found.status in GONE else found

    def terminate(self, id: str) -> None:
        """Give an instance back. One that is gone is no error; whether it is gone is for `get` to say."""
        self._call("POST", "/instance-operations/terminate", {"instance_ids": [id]}, missing=True)

    def rulesets(self, label: str = "") -> list[Ruleset]:
        """Every firewall ruleset, or those with that label."""
        found = self._data(_RULESETS, "GET", "/firewall-rulesets")
        return [one for one in found if label in ("", one.label)]

    def create_ruleset(self, label: str, body: Mapping[str, Any]) -> Ruleset:
        """Make a ruleset. It costs nothing, and is not repeated here either."""
        page = self._create(label, "/firewall-rulesets", body)
        try:
            return _RULESET.validate_python(page)
        except ValidationError:
            raise CreateUncertain(f"the answer about the firewall rules of {label} can't be read", label) from None

    def delete_ruleset(self, id: str) -> None:
        """Delete a ruleset. One that is gone is no error."""
        self._call("DELETE", f"/firewall-rulesets/{id}", missing=True)

    def ruleset(self, id: str) -> Ruleset | None:
        """One ruleset; None when it is gone."""
        return self._found(_RULESET, f"/firewall-rulesets/{id}")

    def ssh_keys(self) -> frozenset[str]:
        """The names of the account's SSH keys."""
        return frozenset(one.name for one in self._data(_KEYS, "GET", "/ssh-keys"))

    def add_ssh_key(self, name: str, public_key: str) -> None:
        """Add a key. One of that name which is there already is no error."""
        try:
            self._call("POST", "/ssh-keys", {"name": name, "public_key": public_key})
        except Refused as error:
            if error.code != _DUPLICATE:
                raise

    def _create(self, label: str, path: str, body: Mapping[str, Any], pause_s: float = 1.0) -> dict[str, Any]:
        """The `data` of a call that makes something, and may have made it whatever becomes of the answer."""
        try:
            answer = self._sent("POST", path, body, pause_s)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise PlatformError(f"Lambda can't be reached: {type(error).__name__}. Nothing was made") from error
        except httpx.HTTPError as error:
            raise CreateUncertain(f"POST {path} for {label} ended in {type(error).__name__}", label) from error
        if answer.is_server_error:
            raise CreateUncertain(f"POST {path} for {label} ended in HTTP {answer.status_code}", label)
        self._refuse(answer)
        data = (_object(answer.text) or {}).get("data")
        if not isinstance(data, dict):
            raise CreateUncertain(f"the answer to POST {path} for {label} can't be read", label)
        return data

    def _found(self, shape: TypeAdapter[M], path: str) -> M | None:
        page = self._call("GET", path, missing=True)
        return None if page is None else _read(shape, page, path)

    def _data(self, shape: TypeAdapter[M], method: str, path: str) -> M:
        return _read(shape, self._call(method, path) or {}, path)

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, missing: bool = False
    ) -> dict[str, Any] | None:
        """The JSON object of a call that may be repeated; None for the API's own 404 where `missing` allows it."""
        try:
            answer = self._sent(method, path, body, 1.0)
        except httpx.HTTPError as error:
            raise PlatformError(f"Lambda did not answer {method} {path}: {type(error).__name__}") from error
        page = _object(answer.text)
        # A gateway in between has 404s of its own, without an error's code.
        if missing and answer.status_code == httpx.codes.NOT_FOUND.value and _error(page).get("code"):
            return None
        self._refuse(answer)
        if page is None:
            raise PlatformError(f"Lambda's answer to {method} {path} is no JSON object")
        return page

    def _sent(self, method: str, path: str, body: Mapping[str, Any] | None, pause_s: float) -> httpx.Response:
        """The answer, waited for as long as Lambda says that there are too many requests."""
        for attempt in range(_TRIES - 1):
            answer = self._http.request(method, path, json=body)
            if answer.status_code != httpx.codes.TOO_MANY_REQUESTS.value:
                return answer
            self._wait(pause_s * 2**attempt)
        return self._http.request(method, path, json=body)

    def _refuse(self, answer: httpx.Response) -> None:
        """Raise for an answer that is no success, in Lambda's words and without the key."""
        if answer.is_success:
            return
        error = _error(_object(answer.text))
        code = str(error.get("code") or "")
        said = " ".join(f"{error.get('message') or answer.text} {error.get('suggestion') or ''}".split())
        said = said.replace(self.key, "[secret]")[:300]
        if answer.status_code == httpx.codes.UNAUTHORIZED.value:
            raise AuthError(f"Lambda refuses the key in ${KEY_VARIABLE}: {said}")
        if code == _CAPACITY:
            raise NoCapacity(f"Lambda: {said}")
        where = f"{answer.request.method} {answer.request.url.path}"
        raise Refused(f"Lambda answered {where} with HTTP {answer.status_code}: {said}", code)


class Refused(PlatformError):
    """Lambda said no. `code` is the API's own, such as `global/quota-exceeded`."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def connect(timeout_s: float = 30.0, wait: Callable[[float], None] = time.sleep) -> Lambda:
    """The API at `$VLLM_ANYWHERE_LAMBDA_URL` with `$LAMBDA_API_KEY`.

    Raises:
        AuthError: without a key.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        raise AuthError(f"no key for Lambda: make one at {KEYS_PAGE} and `export {KEY_VARIABLE}=...`")
    return Lambda(key, os.environ.get(URL_VARIABLE) or URL, timeout_s=timeout_s, wait=wait)


def log_tail(server_id: str, lines: int) -> list[str]:
    """The last lines that the instance's server wrote."""
    from providers.lambda_cloud.door import door_of

    cloud = connect()
    one = cloud.get(server_id)
    return [] if one is None else door_of(cloud.key, one).log(lines)


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _error(page: Mapping[str, Any] | None) -> Mapping[str, Any]:
    error = (page or {}).get("error")
    return error if isinstance(error, Mapping) else {}


def _read(shape: TypeAdapter[M], page: Mapping[str, Any], path: str) -> M:
    try:
        return shape.validate_python(page.get("data"))
    except ValidationError as error:
        raise PlatformError(f"Lambda's answer to GET {path} can't be read") from error
