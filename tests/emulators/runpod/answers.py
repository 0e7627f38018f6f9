"""The account's things as the API shows them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from .catalog import CPUS
from .scaling import Ready, started, starts_at, status
from .state import ACTIONS, Cpu, Endpoint, Named, Pod, Status, Volume, Worker

JobUrl = Callable[[Endpoint], str]


def timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod_row(pod: Pod, now: float, as_status: Status | None = None) -> dict[str, Any]:
    """`as_status` is for the answer to a create, which comes before anything runs."""
    shown = as_status or pod.status(now)
    running = shown == "RUNNING"
    row: dict[str, Any] = {
        "id": pod.id,
        "name": pod.name,
        **pod.container.model_dump(),
        "status": shown,
        "actions": ACTIONS[shown],
        "mounts": pod.mounts,
        "cloud": pod.cloud,
        "dataCenterId": pod.data_center,
        "cudaVersion": pod.cuda,
        "ssh": {"proxy": None, "direct": None},
        "template": None,
        "cost": float(round(pod.cost(now), 4)),
        "locked": pod.locked,
        "globalNetworking": {"enabled": pod.global_networking},
        "runtime": _runtime(pod, now) if running else None,
        "createdAt": timestamp(pod.created_at),
        "startedAt": timestamp(pod.booted_at + pod.boot.delay_s) if running else None,
    }
    if pod.gpu:
        row["gpu"] = pod.gpu.model_dump()
    if pod.cpu:
        row["cpu"] = _cpu_row(pod.cpu)
    return row


def _runtime(pod: Pod, now: float) -> dict[str, Any]:
    return {
        "uptime": int(now - pod.booted_at - pod.boot.delay_s),
        "ports": [_port_row(pod, *port.split("/")) for port in pod.container.ports],
    }


def _port_row(pod: Pod, private: str, kind: str) -> dict[str, Any]:
    """A TCP port gets a new public number with each boot; an HTTP port is only behind the proxy."""
    if kind == "http":
        return {"private": int(private), "public": None, "type": "http", "ip": None}
    public = 10000 + (int(private) * 7 + pod.boots * 131) % 50000
    return {"private": int(private), "public": public, "type": kind, "ip": "192.0.2.1"}


def _cpu_row(cpu: Cpu) -> dict[str, Any]:
    return {**cpu.model_dump(), "memory": int(CPUS[cpu.id].memory_per_vcpu * cpu.vcpuCount)}


def endpoint_row(endpoint: Endpoint, url: str) -> dict[str, Any]:
    """`url` is where the endpoint's requests go."""
    workers: dict[str, int] = {"min": endpoint.min, "max": endpoint.max}
    if endpoint.takes_idle_timeout:
        workers["idleTimeout"] = endpoint.idle_timeout
    row: dict[str, Any] = {
        "id": endpoint.id,
        "name": endpoint.name,
        "type": endpoint.type,
        "requestUrls": _request_urls(endpoint, url),
        **endpoint.container.model_dump(),
        "workers": workers,
        "scaling": endpoint.scaling,
        "dataCenterIds": endpoint.data_centers,
        "networkVolumes": endpoint.volumes,
        "timeout": endpoint.timeout,
        "flashboot": endpoint.flashboot,
        "createdAt": timestamp(endpoint.created_at),
    }
    if endpoint.gpu:
        row["gpu"] = endpoint.gpu.model_dump()
    if endpoint.cpu:
        row["cpu"] = [_cpu_row(cpu) for cpu in endpoint.cpu]
    return row


def _request_urls(endpoint: Endpoint, url: str) -> dict[str, str]:
    if endpoint.type == "LOAD_BALANCER":
        return {"base": url, "health": f"{url}/ping"}
    names = {"run": "run", "runSync": "runsync", "purgeQueue": "purge-queue", "health": "health"}
    of_jobs = {"status": "status", "stream": "stream", "cancel": "cancel", "retry": "retry"}
    urls = {name: f"{url}/{path}" for name, path in names.items()}
    return urls | {name: f"{url}/{path}/{{job_id}}" for name, path in of_jobs.items()}


def workers_answer(endpoint: Endpoint, now: float, ready: Ready) -> dict[str, Any]:
    """`GET /v2/serverless/{id}/workers`."""
    rows = [_worker_row(endpoint, worker, now, ready) for worker in endpoint.workers]
    counted = ("RUNNING", "IDLE", "INITIALIZING", "THROTTLED", "UNHEALTHY")
    summary = {name.lower(): sum(row["status"] == name for row in rows) for name in counted}
    return {"workers": rows, "summary": {**summary, "total": len(rows)}, "endpointVersion": endpoint.version}


def _worker_row(endpoint: Endpoint, worker: Worker, now: float, ready: Ready) -> dict[str, Any]:
    up = started(worker, now)
    begun = starts_at(worker)
    return {
        "id": worker.id,
        "status": status(worker, now, ready),
        "isStale": worker.version != endpoint.version,
        "version": worker.version,
        "gpuCount": endpoint.gpu.count if endpoint.gpu and worker.gpu else 0,
        "image": worker.container.image,
        "uptimeSeconds": int(now - begun) if up else None,
        "gpuTypeId": worker.gpu,
        "dataCenterId": worker.data_center,
        "startedAt": timestamp(begun) if up else None,
    }


def releases_answer(endpoint: Endpoint) -> dict[str, Any]:
    """`GET /v2/serverless/{id}/releases`."""
    total = len(endpoint.workers)
    latest = sum(worker.version == endpoint.version for worker in endpoint.workers)
    return {
        "endpointVersion": endpoint.version,
        "rollout": {
            "inProgress": latest < total,
            "workersOnLatest": latest,
            "workersTotal": total,
            "percentOnLatest": 100 * latest // total if total else 0,
        },
        "releases": [
            {
                "id": release.id,
                "version": release.version,
                "source": "MANUAL",
                "buildId": None,
                "createdByUserId": None,
                "workerCount": sum(worker.version == release.version for worker in endpoint.workers),
                "createdAt": timestamp(release.created_at),
                "diff": release.diff,
            }
            for release in reversed(endpoint.releases)
        ],
    }


def volume_row(volume: Volume) -> dict[str, Any]:
    return {
        "id": volume.id,
        "name": volume.name,
        "size": volume.size,
        "dataCenter": volume.data_center,
        "type": volume.type,
    }


def named_row(named: Named) -> dict[str, Any]:
    return {"id": named.id, "name": named.name}
