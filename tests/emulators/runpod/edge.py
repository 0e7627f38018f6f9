"""The hosts that lead to containers: a pod's proxy, and a load-balancing endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace

import httpx

from ..http import Request, Response, json_response
from ..vllm_stand_in import GUARDED, LLAMA
from .command import Serving
from .engines import Engine
from .state import Container
from .world import World

PROXY_LIMIT_S = 100.0
_LB_LIMIT_S = 120.0

# llama.cpp hangs up on idle connections, so none is kept.
_HTTP = httpx.Client(timeout=120, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))


def pod_proxy(world: World, pod_id: str, port: int, path: str, request: Request) -> Response:
    """`https://{pod}-{port}.proxy.runpod.net`: public, 502 until the container listens there."""
    with world.settled() as account:
        pod = account.pods.get(pod_id)
        if pod is None or pod.lingers is not None or port not in pod.container.http_ports():
            return _page(404, "not found")
        run = pod.run
    engine = world.engines.ready(run)
    if engine is None or not _listens(engine, port):
        return _page(502, "bad gateway")
    return forwarded(engine, path, request, request.bearer)


def load_balancer(world: World, endpoint_id: str, path: str, request: Request) -> Response:
    """`https://{endpoint}.api.runpod.ai`: no queue, no repeats; 400 when no worker comes in time."""
    with world.settled() as account:
        endpoint = account.endpoints.get(endpoint_id)
        if endpoint is None or endpoint.lingers is not None or endpoint.type != "LOAD_BALANCER":
            return _page(404, "endpoint not found")
        bearer = request.bearer if account.lb_forwards_bearer else ""
    if not _health_path_works(endpoint.container):
        world.advance(_LB_LIMIT_S)
        return _page(400, "timed out waiting for a worker")
    with ExitStack() as reserved:
        found = reserved.enter_context(world.worker(endpoint_id, _LB_LIMIT_S))
        if found is None:
            return _page(400, "timed out waiting for a worker")
        worker, engine = found
        if not _listens(engine, _lb_port(worker.container)):
            return _page(502, "bad gateway")
        answer = held(forwarded(engine, path, request, bearer), reserved)
        return replace(answer, headers={**answer.headers, "X-Runpod-Worker-Id": worker.id})


def forwarded(engine: Engine, path: str, request: Request, bearer: str) -> Response:
    """The server's own answer. What vLLM would refuse for its key is refused here; llama.cpp has a key of its own."""
    assert isinstance(engine.command, Serving)
    for door in engine.command.doors:
        refusal, bearer = door.judge(request, path)
        if refusal is not None:
            return refusal
    if engine.command.key and GUARDED.match(path) and bearer != engine.command.key:
        return json_response(401, {"error": "Unauthorized"})
    if path not in LLAMA:
        # vLLM has more routes; of those it matters only whether they were reached.
        return Response(200, b"reached", {"Content-Type": "text/plain"})
    query = request.target.partition("?")[2]
    asked = _HTTP.build_request(
        request.method,
        f"{engine.address}{path}{'?' + query if query else ''}",
        headers={
            "Authorization": f"Bearer {engine.key}",
            "Content-Type": request.headers.get("content-type", "application/json"),
        },
        content=request.body,
    )
    try:
        answer = _HTTP.send(asked, stream=True)
    except httpx.HTTPError:
        return _page(502, "bad gateway")
    kind = answer.headers.get("content-type", "application/octet-stream")
    if kind.startswith("text/event-stream"):
        return Response(answer.status_code, headers={"Content-Type": kind}, chunks=_chunks(answer))
    with closing(answer):
        return Response(answer.status_code, answer.read(), {"Content-Type": kind})


def _chunks(answer: httpx.Response) -> Iterator[bytes]:
    with closing(answer):
        yield from answer.iter_bytes()


def held(answer: Response, reserved: ExitStack) -> Response:
    """The answer, with what is reserved for it kept until the last of it is sent."""
    if answer.chunks is None:
        return answer
    chunks, keep = answer.chunks, reserved.pop_all()

    def until_sent() -> Iterator[bytes]:
        with keep:
            yield from chunks

    return replace(answer, chunks=until_sent())


def _listens(engine: Engine, port: int) -> bool:
    return isinstance(engine.command, Serving) and engine.command.public and engine.command.port == port


def _lb_port(container: Container) -> int:
    """The port that traffic goes to: PORT, which has to be listed; 0 leads nowhere."""
    port = int(container.env.get("PORT") or 80)
    return port if port in container.http_ports() else 0


def _health_path_works(container: Container) -> bool:
    """Whether vLLM has that path; a worker whose health check fails never gets traffic."""
    return container.env.get("HEALTH_CHECK_PATH", "/ping") in {"/ping", "/health", "/v1/models"}


def _page(status: int, text: str) -> Response:
    """What an edge says is a page, not JSON."""
    return Response(status, f"<html><title>{status}</title>{text}</html>".encode(), {"Content-Type": "text/html"})
