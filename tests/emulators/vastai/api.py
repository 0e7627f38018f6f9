"""The control plane: search, rent, list, status, label, bid, destroy, logs, account, and the meters."""

from __future__ import annotations

import base64
import gzip
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..contract import contract
from ..http import Command, Emulator, Request, Response, json_response
from .jobs import Jobs
from .market import search
from .servers import Servers

Fate = Literal["serves", "stuck", "broken", "exits", "portless", "frozen", "offline", "dear", "wrong kind"]
"""What becomes of an instance on a machine: `stuck` loads for ever, `broken` can't start its container, `exits` ends
by itself, `portless` runs without an address, `dear` and `wrong kind` are billed otherwise than they were offered."""

THRESHOLDS: tuple[tuple[str, str, float], ...] = (
    ("POST", r"/api/v0/bundles/?", 6.0),
    ("PUT", r"/api/v0/asks/\d+/?", 4.5),
    ("GET", r"/api/v0/instances/\d+/?", 2.0),
    ("GET", r"/api/v1/instances/?", 1.0),
    ("PUT", r"/api/v0/instances/\d+/?", 1.0),
    ("PUT", r"/api/v0/instances/bid_price/\d+/?", 5.5),
    ("DELETE", r"/api/v0/instances/\d+/?", 3.0),
)
LOADED_GB = 18.0
"""What an instance downloads before it runs: image and weights."""
EXIT_LOG = "ValueError: To serve at least one request ... the estimated maximum model length is 4096."


@dataclass
class Instance:
    """One rented machine. `ports` maps once its server runs."""

    id: int
    offer: dict[str, Any]
    body: dict[str, Any] = field(repr=False)
    label: str
    born: float
    fate: Fate
    bid: float | None
    state: str | None = None
    port: int = 0
    run_s: float = 0.0
    counted: float = 0.0
    min_bid: float = 0.0
    end_date: float = 0.0


class VastEmulator(Emulator):
    """The marketplace on loopback. `now` is its clock, in seconds since the epoch.

    `load_s` is how long an instance loads, `lag_s` how long a new one is missing from every answer; `limits` turns the
    documented rate limits on. Without `servers`, instances that run have a port behind which there is nothing.
    """

    def __init__(
        self,
        offers: list[dict[str, Any]],
        *,
        key: str = "vast-key-for-tests",
        now: Callable[[], float] = time.time,
        load_s: float = 0.0,
        lag_s: float = 0.0,
        limits: bool = False,
        servers: Servers | None = None,
        port: int = 0,
    ) -> None:
        self.offers, self.key, self.now = offers, key, now
        self.load_s, self.lag_s, self.limits, self.servers = load_s, lag_s, limits, servers
        self.fates: dict[int, Fate] = {}
        self.instances: dict[int, Instance] = {}
        self.destroyed: list[int] = []
        self.vanishing = 0
        self.raised: dict[int, float] = {}
        self.twice = 0
        self.credit = 20.0
        self.searches_left: float = float("inf")
        self.listing: Any = None
        self.jobs = Jobs()
        self._lock = threading.RLock()
        self._next = 9_000_000
        self._last: dict[int, float] = {}
        self._asked_logs: set[int] = set()
        self._contract = contract("vastai-openapi.yaml")
        super().__init__(port)

    def close(self) -> None:
        super().close()
        if self.servers is not None:
            self.servers.close()

    def answer(self, request: Request) -> Response:
        with self._lock:
            if request.path.startswith("/logs/"):
                return self._log_file(request)
            if (limited := self._limited(request)) is not None:
                return limited
            if request.bearer != self.key and not re.fullmatch(r"/api/v0/bundles/?", request.path):
                return json_response(401, {"success": False, "error": "auth_error", "msg": "Invalid user key"})
            self._judge(request)
            self._advance()
            return self._routed(request)

    def _routed(self, request: Request) -> Response:
        path = request.path.rstrip("/")
        match request.method, path.split("/")[2:]:
            case "POST", ["v0", "bundles"] if self.searches_left < 1:
                return json_response(429, {"success": False, "error": "search_quota_exceeded", "msg": "daily quota"})
            case "POST", ["v0", "bundles"]:
                self.searches_left -= 1
                rows = [row for row in self.offers if not row["rented"]]
                return json_response(200, {"offers": search(rows, request.json())})
            case "PUT", ["v0", "asks", offer]:
                return self._rent(int(offer), request.json())
            case "GET", ["v0", "instances"]:
                return json_response(200, {"success": False, "error": "deprecated_endpoint"})
            case "GET", ["v1", "instances"]:
                return self._list(request)
            case "PUT", ["v0", "instances", "bid_price", id]:
                return self._bid(int(id), request.json())
            case "PUT", ["v0", "instances", "request_logs", id]:
                return json_response(200, {"success": True, "result_url": f"{self.url}/logs/{id}", "msg": "queued"})
            case method, ["v0", "instances", id]:
                return self._one(method, int(id), request)
            case method, ["v0", ("endptjobs" | "autojobs") as kind, *rest]:
                return self.jobs.answer(method, kind, rest, request)
            case "GET", ["v0", "users", "current"]:
                return json_response(200, {"id": 1, "balance": 0.0, "credit": self.credit})
            case _:
                return json_response(404, {"success": False, "error": "not_found", "msg": "no such endpoint"})

    def _rent(self, id: int, body: dict[str, Any]) -> Response:
        row = next((row for row in self.offers if row["id"] == id), None)
        if self.vanishing > 0 and row is not None:
            self.vanishing -= 1
            row["rented"] = True
        if row is None or row["rented"]:
            return _no_such_ask(id, body.get("cancel_unavail", False))
        command = [body.get("onstart", ""), *body.get("args", [])]
        if sum(map(len, command)) > 4096 or any(len(str(v)) > 256 for v in body["env"].values()):
            return json_response(400, {"success": False, "error": "invalid_args", "msg": "too long"})
        bid = body.get("price")
        row["rented"] = True
        # Somebody else's bid came in between search and rent.
        lowest = self.raised.get(id, row["min_bid"])
        for _ in range(2 if self.twice > 0 else 1):
            self._next += 1
            made = Instance(
                id=self._next,
                offer=row,
                body=body,
                label=body.get("label", ""),
                born=self.now(),
                fate=self.fates.get(row["machine_id"], "serves"),
                bid=bid,
                counted=self.now(),
                min_bid=lowest,
                end_date=self.now() + row["duration"],
            )
            self.instances[made.id] = made
        self.twice = max(0, self.twice - 1)
        if bid is not None and bid < lowest:
            made.state = "stopped"
            return json_response(
                200, {"success": False, "error": "bid_too_low", "msg": "bid too low", "new_contract": made.id}
            )
        return json_response(200, {"success": True, "new_contract": made.id, "instance_api_key": "never-log-this"})

    def _list(self, request: Request) -> Response:
        if self.listing is not None:
            return Response(200, self.listing.encode(), {"Content-Type": "application/json"})
        filters = json.loads(request.param("select_filters") or "{}")
        if set(filters) - {"label", "id", "actual_status", "gpu_name"}:
            return json_response(400, {"success": False, "error": "invalid_args", "msg": "not filterable"})
        rows = [self._shown(one) for one in sorted(self._visible(), key=lambda one: one.id)]
        rows = [row for row in rows if all(row[name] == bound["eq"] for name, bound in filters.items())]
        after = int(base64.b64decode(request.param("after_token") or "MA=="))
        limit = min(25, int(request.param("limit") or 25))
        rest = [row for row in rows if row["id"] > after]
        page = rest[:limit]
        token = base64.b64encode(str(page[-1]["id"]).encode()).decode() if len(rest) > limit else None
        return json_response(
            200,
            {
                "success": True,
                "instances_found": len(page),
                "total_instances": len(rows),
                "label_counts": {},
                "next_token": token,
                "instances": page,
            },
        )

    def _one(self, method: str, id: int, request: Request) -> Response:
        one = next((one for one in self._visible() if one.id == id), None)
        match method:
            case "GET":
                return json_response(200, {"instances": self._shown(one) if one else None})
            case _ if one is None:
                return json_response(404, {"success": False, "error": "no_such_instance", "msg": "not found"})
            case "DELETE":
                self._end(one)
                return json_response(200, {"success": True})
            case "PUT":
                sent = request.json()
                if "label" in sent:
                    one.label = sent["label"]
                if sent.get("state") == "running" and one.state == "stopped" and (one.bid or 9) >= one.min_bid:
                    one.state = None
                return json_response(200, {"success": True})
            case _:
                return json_response(405, {"success": False})

    def _bid(self, id: int, body: dict[str, Any]) -> Response:
        one = self.instances.get(id)
        if one is None:
            return json_response(404, {"success": False, "error": "no_such_instance", "msg": "not found"})
        one.bid = body["price"]
        if one.state == "stopped" and one.bid >= one.min_bid:
            one.state = None
        return json_response(200, {"success": True})

    def _log_file(self, request: Request) -> Response:
        """Logs lie at another host in reality, which must not be sent the key, and are not there at once."""
        if request.bearer:
            self.violations.append("the key was sent to where the logs lie")
        id = int(request.path.rsplit("/", 1)[-1])
        if id not in self._asked_logs:
            self._asked_logs.add(id)
            return Response(404)
        one = self.instances.get(id)
        text = EXIT_LOG if one is not None and one.fate == "exits" else "INFO starting vLLM"
        return Response(200, text.encode(), {"Content-Type": "text/plain"})

    def _visible(self) -> list[Instance]:
        return [one for one in self.instances.values() if self.now() - one.born >= self.lag_s]

    def _advance(self) -> None:
        """Move every instance to where it is by now, and count what it costs."""
        for one in self.instances.values():
            if one.state == "running":
                one.run_s += self.now() - one.counted
            one.counted = self.now()
            if self.now() >= one.end_date and one.state != "stopped":
                self._halt(one)
            age = self.now() - one.born
            if one.state in ("stopped", "offline", "unknown", "exited", "frozen"):
                continue
            if age < self.load_s or one.fate in ("stuck", "broken"):
                one.state = "created" if age < self.load_s / 2 or one.fate == "broken" else "loading"
            elif one.fate == "exits":
                one.state = "exited"
            elif one.fate in ("frozen", "offline"):
                one.state = one.fate
            elif one.state != "running":
                one.state = "running"
                one.port = 0 if one.fate == "portless" else self._serve(one)

    def _serve(self, one: Instance) -> int:
        if self.servers is None:
            return 40000 + one.id % 10000
        env = {name: value for name, value in one.body["env"].items() if not name.startswith("-p")}
        return self.servers.start(one.id, unpacked(one.body["args"][1]), joined(env))

    def _halt(self, one: Instance) -> None:
        one.state, one.port = "stopped", 0
        if self.servers is not None:
            self.servers.stop(one.id)

    def _end(self, one: Instance) -> None:
        if self.servers is not None:
            self.servers.stop(one.id)
        del self.instances[one.id]
        self.destroyed.append(one.id)
        one.offer["rented"] = False

    def _shown(self, one: Instance) -> dict[str, Any]:
        stopped = one.state == "stopped"
        state = "stopped" if stopped else "running"
        base = one.offer["dph_base"] if one.bid is None else one.bid
        running = one.state == "running" and one.port
        inside = next(name.split(":")[-1] for name in one.body["env"] if name.startswith("-p"))
        messages = {"broken": "Error: OCI runtime create failed: no such device"}
        return {
            "id": one.id,
            "label": one.label,
            "actual_status": "exited" if stopped else one.state,
            "intended_status": state,
            "cur_state": state,
            "next_state": state,
            "status_msg": messages.get(one.fate),
            # Seen with blanks around it.
            "public_ipaddr": f" {one.offer['public_ipaddr']}\n" if running else "",
            "ports": {f"{inside}/tcp": [{"HostIp": "0.0.0.0", "HostPort": str(one.port)}]} if running else None,
            "machine_id": one.offer["machine_id"],
            "host_id": one.offer["host_id"],
            "gpu_name": one.offer["gpu_name"],
            "gpu_ram": one.offer["gpu_ram"],
            "num_gpus": one.offer["num_gpus"],
            "geolocation": one.offer["geolocation"],
            "dph_base": base * (2 if one.fate == "dear" else 1),
            "min_bid": one.min_bid,
            "is_bid": (one.bid is not None) != (one.fate == "wrong kind"),
            "storage_cost": one.offer["storage_cost"],
            "inet_down_cost": one.offer["inet_down_cost"],
            "inet_up_cost": one.offer["inet_up_cost"],
            "disk_space": float(one.body.get("disk", 10)),
            "start_date": one.born,
            "end_date": one.end_date,
            "image_uuid": one.body["image"],
            "image_args": one.body.get("args", []),
            "image_runtype": one.body.get("runtype", "ssh"),
            "extra_env": [[name, value] for name, value in one.body["env"].items()],
        }

    def _limited(self, request: Request) -> Response | None:
        for number, (method, pattern, least) in enumerate(THRESHOLDS):
            if self.limits and request.method == method and re.fullmatch(pattern, request.path):
                last, self._last[number] = self._last.get(number, float("-inf")), self.now()
                if self.now() - last < least:
                    self.violations.append(f"{method} {request.path} after {self.now() - last:.2f} s")
                    return Response(429, b"API requests too frequent", {"Content-Type": "text/plain"})
        return None

    def _judge(self, request: Request) -> None:
        if self._contract is None or not self._contract.knows(request.method, request.path):
            return
        body = request.json()
        if isinstance(body, dict) and isinstance(body.get("env"), Mapping):
            # The contract has a text here; the guides and the vendor's own client send an object.
            body = {**body, "env": ""}
        if isinstance(body, dict) and body.get("type") == "on-demand":
            # The schema has `ondemand`; its own example and the vendor's client send this.
            body = {**body, "type": "ondemand"}
        found = self._contract.request_problems(request.method, request.path, request.query, body)
        self.violations += [f"{request.method} {request.path}: {text}" for text in found]

    def state(self) -> dict[str, Any]:
        with self._lock:
            self._advance()
            return {
                "instances": [
                    {
                        "id": one.id,
                        "label": one.label,
                        "state": one.state,
                        "machine_id": one.offer["machine_id"],
                        "bid": one.bid,
                        "usd": self._cost(one),
                    }
                    for one in self.instances.values()
                ],
                "destroyed": list(self.destroyed),
            }

    def _cost(self, one: Instance) -> float:
        """US dollars so far: GPU while running, storage from creation on, and what came in before it ran."""
        base = one.offer["dph_base"] if one.bid is None else one.bid
        kept = (self.now() - one.born) / 3600 * one.body.get("disk", 10) * one.offer["storage_cost"] / 720
        loaded = LOADED_GB * one.offer["inet_down_cost"] if one.run_s else 0.0
        return round(one.run_s / 3600 * base + kept + loaded, 6)

    def commands(self) -> Mapping[str, Command]:
        return {"outbid": self.outbid, "become": self.become, "expire": self.expire, "vanish": self.vanish}

    def outbid(self, id: int, min_bid: float) -> None:
        """Somebody bids more."""
        with self._lock:
            self.instances[id].min_bid = min_bid
            self._halt(self.instances[id])

    def become(self, id: int, state: str) -> None:
        """The instance shows another state: `offline`, `unknown`, `exited`, `frozen`, `stopped` or `gone`."""
        with self._lock:
            if state == "gone":
                self._end(self.instances[id])
            else:
                self._halt(self.instances[id])
                self.instances[id].state = state

    def expire(self, id: int) -> None:
        with self._lock:
            self.instances[id].end_date = self.now() - 1

    def vanish(self, count: int) -> None:
        """The next `count` offers that somebody rents have just been taken."""
        self.vanishing = count


def _no_such_ask(id: int, cancel: bool) -> Response:
    """The two forms that this answer has been seen in."""
    if id % 2 and cancel:
        msg = f"error 410/3907: no_such_ask Instance type {id} is no longer available."
        return json_response(410, {"success": False, "error": "no_such_ask", "msg": msg, "ask_id": id})
    msg = f"error 404/3603: no_such_ask Instance type by id {id} is not available."
    return json_response(404, {"success": False, "error": "invalid_args", "msg": msg, "ask_id": id})


def joined(env: Mapping[str, str]) -> dict[str, str]:
    """Variables that were sent in pieces (`NAME_0`, `NAME_1`) as the start script puts them together."""
    whole: dict[str, str] = {}
    for name, value in env.items():
        base, _, piece = name.rpartition("_")
        key = base if piece.isdigit() else name
        whole[key] = whole.get(key, "") + value
    return whole


def unpacked(script: str) -> str:
    """The start script, out of its `base64 -d|gunzip`."""
    found = re.search(r"echo (\S+)\|base64", script)
    return gzip.decompress(base64.b64decode(found[1])).decode() if found else script
