"""The job plane of queue endpoints: jobs that wait for a worker, and the OpenAI route, cut off after 100 s."""

from __future__ import annotations

import json
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from ..http import Request, Response, json_response, problem
from . import scaling
from .command import Serving
from .edge import PROXY_LIMIT_S, forwarded, held
from .engines import Engine
from .state import Account, Endpoint
from .world import World

_RUNSYNC_LIMIT_S = 90.0
_POLL_S = 0.05
_OVER = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})


@dataclass
class Job:
    """One job. `output` is what `status` answers, `chunks` what `stream` has not handed out yet."""

    id: str
    endpoint: str
    input: Any
    status: str = "IN_QUEUE"
    worker: str = ""
    output: Any = None
    error: str = ""
    created_at: float = field(default_factory=time.monotonic)
    started_at: float = 0.0
    ended_at: float = 0.0
    chunks: list[Any] = field(default_factory=list[Any])
    done: threading.Event = field(default_factory=threading.Event)

    def row(self) -> dict[str, Any]:
        row: dict[str, Any] = {"id": self.id, "status": self.status}
        if self.started_at:
            row |= {"delayTime": int(1000 * (self.started_at - self.created_at)), "workerId": self.worker}
        if self.status in _OVER and self.started_at:
            row["executionTime"] = int(1000 * (self.ended_at - self.started_at))
        if self.output is not None:
            row["output"] = self.output
        if self.error:
            row["error"] = self.error
        return row

    def end(self, status: str, output: Any = None, error: str = "") -> None:
        if self.status not in _OVER:
            self.status, self.output, self.error, self.ended_at = status, output, error, time.monotonic()
        self.done.set()


class Jobs:
    """`{job plane}/{endpoint}/...`"""

    def __init__(self, world: World) -> None:
        self._world = world
        self._jobs: dict[str, Job] = {}

    def answer(self, request: Request, endpoint_id: str, rest: str) -> Response:
        with self._world.settled() as account:
            endpoint = account.endpoints.get(endpoint_id)
            if endpoint is None or endpoint.lingers is not None:
                return problem(404, "endpoint not found")
            if rest == "health" and request.method == "GET":
                return json_response(200, self._health(endpoint))
            if endpoint.type != "QUEUE":
                return problem(404, "this endpoint has no queue")
        name, _, job_id = rest.partition("/")
        match request.method, name:
            case "POST", "run":
                return json_response(200, self._queued(account, endpoint, request).row())
            case "POST", "runsync":
                job = self._queued(account, endpoint, request)
                job.done.wait(_RUNSYNC_LIMIT_S)
                return json_response(200, job.row())
            case (("GET" | "POST"), ("status" | "stream" | "cancel" | "retry")) if job_id in self._jobs:
                return self._about(self._jobs[job_id], name)
            case "POST", "purge-queue":
                waiting = [job for job in self._of(endpoint) if job.status == "IN_QUEUE"]
                for job in waiting:
                    job.end("CANCELLED")
                return json_response(200, {"removed": len(waiting), "status": "completed"})
            case _, "openai":
                return self._openai(endpoint, request, "/" + job_id)
            case _:
                return problem(404, "job not found")

    def _of(self, endpoint: Endpoint) -> list[Job]:
        return [job for job in self._jobs.values() if job.endpoint == endpoint.id]

    def _health(self, endpoint: Endpoint) -> dict[str, Any]:
        """The six counters; a worker that crashes again and again counts as unhealthy."""
        now = self._world.now()
        states = [scaling.status(worker, now, self._world.ready) for worker in endpoint.workers]
        jobs = [job.status for job in self._of(endpoint)]
        return {
            "jobs": {
                "completed": jobs.count("COMPLETED"),
                "failed": jobs.count("FAILED"),
                "inProgress": jobs.count("IN_PROGRESS"),
                "inQueue": jobs.count("IN_QUEUE"),
                "retried": 0,
            },
            "workers": {
                "idle": states.count("IDLE"),
                "initializing": states.count("INITIALIZING"),
                "ready": states.count("IDLE"),
                "running": states.count("RUNNING"),
                "throttled": states.count("THROTTLED"),
                "unhealthy": states.count("UNHEALTHY"),
            },
        }

    def _queued(self, account: Account, endpoint: Endpoint, request: Request) -> Job:
        job = Job(f"{account.new_id(16)}-e1", endpoint.id, (request.json() or {}).get("input"))
        self._jobs[job.id] = job
        threading.Thread(target=self._work, args=(endpoint.id, job), daemon=True).start()
        return job

    def _work(self, endpoint_id: str, job: Job) -> None:
        """Wait for a worker that asks the queue for work, and let it do the job. Without one the job stays."""
        while not job.done.is_set() and not self._world.closed.wait(_POLL_S):
            with self._world.free_worker(endpoint_id) as found:
                if found is None or not _takes_jobs(found[1]):
                    continue
                job.status, job.worker, job.started_at = "IN_PROGRESS", found[0].id, time.monotonic()
                route, body = _openai_call(job.input)
                answer = forwarded(found[1], route, _request(route, body), "")
            output = json.loads(answer.body)
            if answer.status >= 400:
                job.end("FAILED", error=json.dumps(output))
            else:
                job.chunks = [{"output": output}]
                job.end("COMPLETED", [output])

    def _about(self, job: Job, what: str) -> Response:
        if what == "cancel":
            job.end("CANCELLED")
        if what == "stream":
            chunks, job.chunks = job.chunks, []
            return json_response(200, {"status": job.status, "stream": chunks})
        return json_response(200, job.row())

    def _openai(self, endpoint: Endpoint, request: Request, path: str) -> Response:
        with ExitStack() as reserved:
            found = reserved.enter_context(self._world.worker(endpoint.id, PROXY_LIMIT_S))
            if found is None:
                return _CUT_OFF
            if not _takes_jobs(found[1]):
                self._world.advance(PROXY_LIMIT_S)
                return _CUT_OFF
            return held(forwarded(found[1], path, request, ""), reserved)


_CUT_OFF = Response(524, b"<html><title>524</title>a timeout occurred</html>", {"Content-Type": "text/html"})


def _takes_jobs(engine: Engine) -> bool:
    """A plain vLLM image never asks the queue for work."""
    return isinstance(engine.command, Serving) and engine.command.queue_worker


def _openai_call(given: Any) -> tuple[str, dict[str, Any]]:
    """worker-vllm's two inputs: an OpenAI route with its body, or a prompt or messages with sampling parameters."""
    given = given or {}
    if "openai_route" in given:
        return given["openai_route"], {**given.get("openai_input", {}), "stream": False}
    messages = given.get("messages") or [{"role": "user", "content": given.get("prompt", "")}]
    return "/v1/chat/completions", {**given.get("sampling_params", {}), "messages": messages}


def _request(route: str, body: dict[str, Any]) -> Request:
    if route.endswith("/models"):
        return Request("GET", route, {}, {}, b"", route)
    return Request("POST", route, {}, {}, json.dumps(body).encode(), route)
