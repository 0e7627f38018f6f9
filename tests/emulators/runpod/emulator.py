"""The emulated RunPod as one server: which host a request is for, the key, the contract, and the test's own levers."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..contract import Contract, contract
from ..http import Command, Emulator, Request, Response, json_response, problem, without_secrets
from . import edge, scaling
from .control import Control
from .jobs import Jobs
from .rules import Refused
from .state import Account, Boot, Endpoint, Named
from .world import World

CONTRACT = "runpod-v2-openapi.json"
KEY = "rpa_EMULATED"
_LARGEST_BODY = 102400
_RATE = {
    "RateLimit": '"minute";r=59;t=60, "hour";r=2999;t=3600, "day";r=49999;t=86400',
    "RateLimit-Policy": '"minute";q=60;w=60, "hour";q=3000;w=3600, "day";q=50000;w=86400',
}
_SECRET_REFERENCE = re.compile(r"\{\{\s*RUNPOD_SECRET_\w+\s*\}\}")
_OPTIONS = frozenset(
    {
        "list_lag",
        "delete_lag",
        "ignored_deletes",
        "page_size",
        "fb_suffix",
        "lb_forwards_bearer",
        "has_secrets_api",
        "caller_keys",
        "forbidden_pools",
        "surcharge",
        "balance",
    }
)


class RunPodEmulator(Emulator):
    """RunPod on loopback. `account` may be looked at and changed in tests; take it with `world.settled()`.

    `state_file` keeps the account over restarts of the emulator; what runs then runs again.
    """

    def __init__(self, port: int = 0, *, key: str = KEY, state_file: Path | None = None) -> None:
        super().__init__(port)
        self._state_file = state_file
        self.world = World(_loaded(state_file, key))
        self._contract: Contract | None = contract(CONTRACT)
        self._plane = Control(self.world, self._endpoint_url)
        self._jobs = Jobs(self.world)

    @property
    def account(self) -> Account:
        return self.world.account

    @property
    def key(self) -> str:
        return self.account.key

    @property
    def judged(self) -> bool:
        """Whether requests and answers are held against the vendor's contract."""
        return self._contract is not None

    @property
    def job_url(self) -> str:
        """Base of the job plane, in place of `https://api.runpod.ai/v2`."""
        return f"{self.url}/jobs"

    def proxy_url(self, pod: str = "{id}", port: int | str = "{port}") -> str:
        """In place of `https://{pod}-{port}.proxy.runpod.net`; a template without arguments."""
        return f"{self.url}/proxy/{pod}/{port}"

    def balancer_url(self, endpoint: str = "{id}") -> str:
        """In place of `https://{endpoint}.api.runpod.ai`; a template without arguments."""
        return f"{self.url}/lb/{endpoint}"

    def env(self) -> dict[str, str]:
        """Environment that sends the adapter and the `runpod` package here."""
        return {
            "RUNPOD_API_KEY": self.key,
            "RUNPOD_ENDPOINT_BASE_URL": self.job_url,
            "VLLM_ANYWHERE_RUNPOD_API_URL": self.url,
            "VLLM_ANYWHERE_RUNPOD_JOBS_URL": self.job_url,
            "VLLM_ANYWHERE_RUNPOD_PROXY_URL": self.proxy_url(),
            "VLLM_ANYWHERE_RUNPOD_BALANCER_URL": self.balancer_url(),
        }

    def close(self) -> None:
        super().close()
        self.world.close()

    def answer(self, request: Request) -> Response:
        host, path = _destination(request)
        match host:
            case "proxy", str(pod), str(port):
                return edge.pod_proxy(self.world, pod, int(port), path, request)
            case _ if request.bearer not in {self.key, *self.account.caller_keys}:
                detail = "missing bearer token" if not request.bearer else "invalid bearer token"
                return self._checked(request, path, problem(401, detail))
            case "lb", str(endpoint):
                return edge.load_balancer(self.world, endpoint, path, request)
            case "jobs", *_:
                endpoint, _, rest = path.removeprefix("/").partition("/")
                return self._jobs.answer(request, endpoint, rest)
            case _ if request.bearer != self.key:
                return self._checked(request, path, problem(403, "access denied"))
            case _ if (request.method, path) == ("POST", "/graphql"):
                return self._myself()
            case _:
                return self._checked(request, path, self._controlled(request, path))

    def _myself(self) -> Response:
        """What GraphQL, which is being retired, still has and REST v2 has not; whatever is asked, this is answered."""
        with self.world.settled() as account:
            myself = {"clientBalance": float(account.balance), "currentSpendPerHr": float(self.world.total())}
        return json_response(200, {"data": {"myself": myself}})

    def _controlled(self, request: Request, path: str) -> Response:
        try:
            answer = self._plane.answer(request, self._valid_body(request, path))
        except Refused as refused:
            answer = problem(refused.status, refused.detail, _RATE, refused.errors)
        finally:
            self._save()
        return Response(answer.status, answer.body, {**answer.headers, **_RATE}, answer.chunks)

    def _valid_body(self, request: Request, path: str) -> Any:
        """The body, judged by the contract where that is there."""
        if len(request.body) > _LARGEST_BODY:
            raise Refused(413, f"the body is larger than {_LARGEST_BODY} bytes")
        try:
            body = request.json()
        except ValueError:
            raise Refused(400, "the body is no JSON") from None
        if self._contract is None or self._beyond_the_contract(path):
            return body
        allowed = self._contract.allowed(path)
        if not allowed:
            raise Refused(404, "not found")
        if request.method not in allowed:
            raise Refused(405, "The requested method is not allowed for this path.")
        problems = self._contract.request_problems(request.method, path, request.query, body)
        if problems:
            self.violations += [f"request {request.method} {path}: {text}" for text in problems]
            raise Refused(422, "Request validation failed.", problems)
        return body

    def _checked(self, request: Request, path: str, answer: Response) -> Response:
        """The answer as it is; what the contract has against it is a violation."""
        if self._contract and path.startswith("/v2/") and not self._beyond_the_contract(path):
            kind = answer.headers.get("Content-Type", "")
            problems = self._contract.response_problems(request.method, path, answer.status, kind, answer.body)
            self.violations += [f"answer {answer.status} to {request.method} {path}: {text}" for text in problems]
        return answer

    def _beyond_the_contract(self, path: str) -> bool:
        return self.account.has_secrets_api and path.startswith("/v2/account/secrets")

    def _endpoint_url(self, endpoint: Endpoint) -> str:
        balanced = endpoint.type == "LOAD_BALANCER"
        return self.balancer_url(endpoint.id) if balanced else f"{self.job_url}/{endpoint.id}"

    def _save(self) -> None:
        if self._state_file is not None:
            with self.world.settled() as account:
                temporary = self._state_file.with_suffix(".tmp")
                temporary.touch(mode=0o600)
                temporary.write_text(account.model_dump_json())
                temporary.replace(self._state_file)

    def redacted(self, body: Any) -> Any:
        """Secrets out; references to RunPod's secrets are none and stay."""
        masked = without_secrets(body)
        if isinstance(body, dict) and isinstance(body.get("env"), dict):
            references = {k: v for k, v in body["env"].items() if _SECRET_REFERENCE.fullmatch(str(v))}
            masked = {**masked, "env": {**masked["env"], **references}}
        return {**masked, "value": "[secret]"} if isinstance(masked, dict) and "value" in masked else masked

    def state(self) -> dict[str, Any]:
        """What exists, by kind, with status and USD an hour; and the account's total."""
        now, spending = self.world.now(), self.world.spending()
        with self.world.settled() as account:
            rows = {
                "pods": [
                    {"id": pod.id, "name": pod.name, "status": pod.status(now), "env": sorted(pod.container.env)}
                    for pod in account.pods.values()
                    if pod.lingers is None
                ],
                "endpoints": [
                    {
                        "id": endpoint.id,
                        "name": endpoint.name,
                        "version": endpoint.version,
                        "workers": {worker.id: worker.version for worker in endpoint.workers},
                        "max": endpoint.max,
                        "env": sorted(endpoint.container.env),
                    }
                    for endpoint in account.endpoints.values()
                    if endpoint.lingers is None
                ],
            }
            for name, shelf in (
                ("volumes", account.volumes),
                ("registries", account.registries),
                ("secrets", account.secrets),
            ):
                rows[name] = [{"id": id, "name": thing.name} for id, thing in shelf.items() if thing.lingers is None]
            return {
                **rows,
                "hourly_usd": spending,
                "total_hourly_usd": f"{self.world.total():f}",
                "spent_usd": f"{account.spent:.6f}",
            }

    def commands(self) -> Mapping[str, Command]:
        return {
            "delete": self.delete,
            "idle": self.idle,
            "advance": self.advance,
            "stock": self.stock,
            "boot": self.boot,
            "secret": self.secret,
            "options": self.options,
        }

    def delete(self, id: str) -> None:
        """Somebody deletes it in the console: gone at once, from lists too."""
        with self.world.settled() as account:
            found = [thing for thing in account.everything() if thing.id == id and thing.lingers is None]
            if not found:
                raise ValueError(f"nothing has the id {id}")
            found[0].lingers = 0
        self._save()

    def idle(self, days: float) -> None:
        """All endpoints have had no request for that many days."""
        with self.world.settled() as account:
            for endpoint in account.endpoints.values():
                scaling.idle_for(endpoint, days * 86400)
        self._save()

    def advance(self, seconds: float) -> None:
        """Put the clock forward."""
        self.world.advance(seconds)
        self._save()

    def stock(self, gpu: str, level: str, data_center: str | None = None) -> None:
        """Availability of a GPU type: NONE, LOW, MEDIUM or HIGH; everywhere, or in one data center."""
        with self.world.settled() as account:
            account.stock.set(gpu, level, data_center)
        self._save()

    def boot(self, **script: Any) -> None:
        """How containers that match start from now on; fields as in `Boot`."""
        with self.world.settled() as account:
            account.boots.append(Boot.model_validate(script))
        self._save()

    def secret(self, name: str, value: str) -> None:
        """A secret as the console makes it, for `{{ RUNPOD_SECRET_name }}`."""
        with self.world.settled() as account:
            id = account.new_id()
            account.secrets[id] = Named(id=id, name=name, value=value, created_at=self.world.now())
        self._save()

    def options(self, **changes: Any) -> None:
        """Settings of the account by name, `Account` says which."""
        if unknown := changes.keys() - _OPTIONS:
            raise ValueError(f"no option {', '.join(sorted(unknown))}; there are {', '.join(sorted(_OPTIONS))}")
        with self.world.settled() as account:
            for name, value in changes.items():
                setattr(account, name, Decimal(str(value)) if name in {"balance", "surcharge"} else value)
        self._save()


def _destination(request: Request) -> tuple[tuple[str, ...], str]:
    """Which of RunPod's hosts a request is for, by its Host header or by the path's beginning; and the path there."""
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    if found := re.fullmatch(r"(\w+)-(\d+)\.proxy\.runpod\.net", host):
        return ("proxy", found[1], found[2]), request.path
    if host == "api.runpod.ai":
        return ("jobs",), request.path.removeprefix("/v2")
    if found := re.fullmatch(r"(\w+)\.api\.runpod\.ai", host):
        return ("lb", found[1]), request.path
    if found := re.fullmatch(r"/proxy/(\w+)/(\d+)(/.*)?", request.path):
        return ("proxy", found[1], found[2]), found[3] or "/"
    if found := re.fullmatch(r"/lb/(\w+)(/.*)?", request.path):
        return ("lb", found[1]), found[2] or "/"
    if found := re.fullmatch(r"/jobs(/.*)", request.path):
        return ("jobs",), found[1]
    return ("api",), request.path


def _loaded(file: Path | None, key: str) -> Account:
    if file is not None and file.exists():
        return Account.model_validate_json(file.read_text())
    return Account(key=key, accrued_at=time.time())
