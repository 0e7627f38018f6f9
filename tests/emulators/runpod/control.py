"""The control plane, REST v2: paths, shelves, lists in pages."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from ..http import Request, Response, json_response
from . import answers, rules
from .catalog import CPUS, DATA_CENTERS, GPUS, CatalogQuery, cpu_row, data_center_row, gpu_row
from .rules import Refused
from .state import Account, Endpoint, Named, Pod, Shown, Volume
from .world import World

S = TypeVar("S", bound=Shown)
_QUIET_S = 0.05

EndpointUrl = Callable[[Endpoint], str]


class Control:
    """Routes of `/v2`. What they raise as `Refused` is the caller's fault and becomes problem+json."""

    def __init__(self, world: World, endpoint_url: EndpointUrl) -> None:
        self._world = world
        self._endpoint_url = endpoint_url
        self._walks: dict[str, list[str]] = {}

    def answer(self, request: Request, body: Any) -> Response:
        _, _, family, *rest = request.path.split("/")
        with self._world.settled() as account:
            match request.method, family, rest:
                case "GET", "pods", [id, "logs"]:
                    return self._log(request, _found(account.pods, id).run)
                case _, "pods", _:
                    return self._pods(account, request, rest, body)
                case "GET", "serverless", [id, "workers", worker, "logs"]:
                    _found(account.endpoints, id)
                    return self._log(request, worker)
                case _, "serverless", _:
                    return self._endpoints(account, request, rest, body)
                case _, "network-volumes", _:
                    return self._volumes(account, request, rest, body)
                case _, "registries", _:
                    return self._registries(account, request, rest, body)
                case _, "account", ["secrets", *rest] if account.has_secrets_api:
                    return self._secrets(account, request, rest, body)
                case "GET", "catalog", [kind, *id]:
                    return _catalog(account, request, kind, next(iter(id), None))
                case _:
                    raise Refused(404, "not found")

    def _pods(self, account: Account, request: Request, rest: list[str], body: Any) -> Response:
        now = self._world.now()

        def row(pod: Pod) -> dict[str, Any]:
            return answers.pod_row(pod, now)

        match request.method, rest:
            case "GET", []:
                return self._page(request, account, account.pods, "pods", row)
            case "POST", []:
                pod = rules.new_pod(account, body, now)
                account.pods[pod.id] = pod
                return json_response(201, answers.pod_row(pod, now, "PROVISIONING"))
            case "GET", [id]:
                return json_response(200, row(_seen(account.pods, id)))
            case "PATCH", [id]:
                pod = _found(account.pods, id)
                rules.patch_pod(account, pod, body, now)
                return json_response(200, row(pod))
            case "DELETE", [id]:
                return _deleted(account, _found(account.pods, id))
            case "POST", [id, "action"]:
                return self._act(account, _found(account.pods, id), body["action"])
            case _:
                raise Refused(404, "not found")

    def _act(self, account: Account, pod: Pod, action: str) -> Response:
        now = self._world.now()
        if action not in answers.ACTIONS[pod.status(now)] or (pod.locked and action in {"stop", "restart"}):
            raise Refused(409, f"{action} is not valid for a pod that is {pod.status(now)}")
        match action:
            case "terminate":
                return _deleted(account, pod)
            case "stop":
                pod.stopped = True
            case _:
                pod.start(now, account.boot_for(pod.container.image, pod.name))
        return json_response(200, answers.pod_row(pod, now))

    def _endpoints(self, account: Account, request: Request, rest: list[str], body: Any) -> Response:
        now = self._world.now()

        def row(endpoint: Endpoint) -> dict[str, Any]:
            return answers.endpoint_row(endpoint, self._endpoint_url(endpoint))

        match request.method, rest:
            case "GET", []:
                return self._page(request, account, account.endpoints, "endpoints", row)
            case "POST", []:
                endpoint = rules.new_endpoint(account, body, now)
                account.endpoints[endpoint.id] = endpoint
                return json_response(201, row(endpoint))
            case "GET", [id]:
                return json_response(200, row(_seen(account.endpoints, id)))
            case "PATCH", [id]:
                rules.patch_endpoint(account, _found(account.endpoints, id), body, now)
                return json_response(200, row(account.endpoints[id]))
            case "DELETE", [id]:
                return _deleted(account, _found(account.endpoints, id))
            case "GET", [id, "workers"]:
                found = _found(account.endpoints, id)
                return json_response(200, answers.workers_answer(found, now, self._world.ready))
            case "GET", [id, "releases"]:
                return json_response(200, answers.releases_answer(_found(account.endpoints, id)))
            case _:
                raise Refused(404, "not found")

    def _volumes(self, account: Account, request: Request, rest: list[str], body: Any) -> Response:
        match request.method, rest:
            case "GET", []:
                return self._page(request, account, account.volumes, "networkVolumes", answers.volume_row)
            case "POST", []:
                if body["dataCenter"] not in DATA_CENTERS:
                    raise Refused(400, f"data center {body['dataCenter']} not found")
                if account.balance <= 0:
                    raise Refused(402, "insufficient balance")
                volume = Volume(
                    id=account.new_id(10),
                    name=body["name"],
                    created_at=self._world.now(),
                    hidden_lists=account.list_lag,
                    size=body["size"],
                    data_center=body["dataCenter"],
                    type=body.get("type", "STANDARD"),
                )
                account.volumes[volume.id] = volume
                return json_response(201, answers.volume_row(volume))
            case "GET", [id]:
                return json_response(200, answers.volume_row(_seen(account.volumes, id)))
            case "PATCH", [id]:
                volume = _found(account.volumes, id)
                if body.get("size", volume.size) < volume.size:
                    raise Refused(400, "network volumes can only grow")
                volume.name, volume.size = body.get("name", volume.name), body.get("size", volume.size)
                return json_response(200, answers.volume_row(volume))
            case "DELETE", [id]:
                volume = _found(account.volumes, id)
                if any(id == user for pod in account.pods.values() for user in _volumes_of(pod)):
                    raise Refused(400, "network volume is attached to a pod")
                return _deleted(account, volume)
            case _:
                raise Refused(404, "not found")

    def _registries(self, account: Account, request: Request, rest: list[str], body: Any) -> Response:
        if request.method == "DELETE" and any(
            [pod.container.registry] == rest for pod in account.pods.values() if pod.lingers is None
        ):
            raise Refused(400, "registry credential is in use by a pod")
        return self._named(account, account.registries, request, rest, body, "registries", "password")

    def _secrets(self, account: Account, request: Request, rest: list[str], body: Any) -> Response:
        """Younger than the vendor's document of August 2026: the answers' shape is a guess after the other shelves."""
        if request.method == "POST" and any(
            secret.name == body["name"] for secret in account.secrets.values() if secret.lingers is None
        ):
            raise Refused(400, "a secret of that name exists")
        return self._named(account, account.secrets, request, rest, body, "secrets", "value")

    def _named(
        self,
        account: Account,
        shelf: dict[str, Named],
        request: Request,
        rest: list[str],
        body: Any,
        name: str,
        hidden: str,
    ) -> Response:
        match request.method, rest:
            case "GET", []:
                return self._page(request, account, shelf, name, answers.named_row)
            case "POST", []:
                named = Named(
                    id=account.new_id(),
                    name=body["name"],
                    created_at=self._world.now(),
                    hidden_lists=account.list_lag,
                    value=body[hidden],
                )
                shelf[named.id] = named
                return json_response(201, answers.named_row(named))
            case "GET", [id]:
                return json_response(200, answers.named_row(_seen(shelf, id)))
            case "DELETE", [id]:
                return _deleted(account, _found(shelf, id))
            case _:
                raise Refused(404, "not found")

    def _page(
        self, request: Request, account: Account, shelf: Mapping[str, S], name: str, row: Callable[[S], dict[str, Any]]
    ) -> Response:
        """One page of a list. What a walk over the pages finds is settled at its first page."""
        walk, _, start = (request.param("cursor") or "").partition(".")
        if walk not in self._walks:
            if walk:
                raise Refused(400, "unknown cursor")
            walk, start = str(len(self._walks) + 1), "0"
            self._walks[walk] = [id for id, thing in shelf.items() if _listed(thing)]
        ids, begin = self._walks[walk], int(start)
        end = begin + account.page_size
        more = end < len(ids)
        paging = {"nextCursor": f"{walk}.{end}" if more else None, "hasNextPage": more}
        return json_response(200, {name: [row(shelf[id]) for id in ids[begin:end]], "pagination": paging})

    def _log(self, request: Request, container: str) -> Response:
        """The log as server-sent events: its last lines, then whatever comes. It ends when the caller hangs up."""
        tail = int(request.param("tail") or 100)

        def events() -> Iterator[bytes]:
            lines = self._world.engines.log(container, self._world.now())
            position = max(len(lines) - tail, 0)
            while True:
                for line in lines[position:]:
                    stamp = answers.timestamp(self._world.now())
                    event = {"ts": stamp, "source": "container", "line": line}
                    yield f"id: {stamp}\ndata: {json.dumps(event)}\n\n".encode()
                position = len(lines)
                if request.hung_up():
                    return
                time.sleep(_QUIET_S)
                lines = self._world.engines.log(container, self._world.now())

        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return Response(200, headers=headers, chunks=events())


def _found(shelf: Mapping[str, S], id: str) -> S:
    """The thing, or 404; also for what is deleted."""
    if id not in shelf or shelf[id].lingers is not None:
        raise Refused(404, "resource not found")
    return shelf[id]


def _seen(shelf: Mapping[str, S], id: str) -> S:
    """As a read finds it: what is deleted is still there for a while."""
    if id not in shelf:
        raise Refused(404, "resource not found")
    thing = shelf[id]
    if thing.lingers is not None:
        if thing.lingers == 0:
            raise Refused(404, "resource not found")
        thing.lingers -= 1
    return thing


def _listed(thing: Shown) -> bool:
    if thing.lingers is not None:
        return False
    thing.hidden_lists -= 1
    return thing.hidden_lists < 0


def _deleted(account: Account, thing: Shown) -> Response:
    if account.ignored_deletes:
        account.ignored_deletes -= 1
    else:
        thing.lingers = account.delete_lag
    return Response(204)


def _volumes_of(pod: Pod) -> list[str]:
    return [mount["volumeId"] for mount in pod.mounts.get("network", [])] if pod.lingers is None else []


def _catalog(account: Account, request: Request, kind: str, id: str | None) -> Response:
    match kind:
        case "gpus":
            query = CatalogQuery.of(request.query)
            if query.availability and not query.products:
                raise Refused(400, "include=AVAILABILITY requires product")
            rows = [gpu_row(gpu, account.stock, query) for gpu in GPUS.values()]
            if query.availability and (query.countries or query.min_cuda or query.cuda):
                rows = [row for row in rows if row["availability"] != "NONE"]
            return _rows("gpus", rows, id)
        case "cpus":
            return _rows("cpus", [cpu_row(cpu) for cpu in CPUS.values()], id)
        case "datacenters":
            regions = re.split(",", request.param("regions") or "")
            availability = "GPU_AVAILABILITY" in (request.param("include") or "")
            places = [place for place in DATA_CENTERS.values() if regions == [""] or place.region in regions]
            return _rows("dataCenters", [data_center_row(place, account.stock, availability) for place in places], id)
        case _:
            raise Refused(404, "not found")


def _rows(name: str, rows: list[dict[str, Any]], id: str | None) -> Response:
    if id is None:
        return json_response(200, {name: rows})
    for row in rows:
        if row["id"] == id:
            return json_response(200, row)
    raise Refused(404, "resource not found")
