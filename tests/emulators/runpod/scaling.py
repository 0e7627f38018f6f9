"""Which workers an endpoint has: placement, idle time, rollouts of a new version, the cut of endpoints left idle."""

from __future__ import annotations

from collections.abc import Callable

from .catalog import DATA_CENTERS
from .state import Account, Endpoint, Worker

_IDLE_CUTS = ((7 * 86400.0, 0), (3 * 86400.0, 2))
"""Without requests for that long, in seconds, `workers.max` is cut to that number, and stays."""

Ready = Callable[[str], bool]


def settle(account: Account, endpoint: Endpoint, now: float, ready: Ready) -> None:
    """Bring the endpoint's workers to what its settings ask for. `ready` says whether a worker's server answers."""
    for worker in endpoint.workers:
        if worker.data_center is None:
            _place(account, endpoint, worker, now)
    fresh = [worker for worker in endpoint.workers if worker.version == endpoint.version]
    while len(fresh) < min(endpoint.min, endpoint.max):
        fresh.append(_added(account, endpoint, now))
    replaced = any(status(worker, now, ready) == "IDLE" for worker in fresh) or endpoint.min == 0
    endpoint.workers = [
        worker
        for worker in endpoint.workers
        if worker.busy
        or (worker.version == endpoint.version and not _surplus(endpoint, worker, fresh, now))
        or (worker.version != endpoint.version and not replaced)
    ]
    if len(endpoint.workers) > endpoint.max:
        busy_first = sorted(endpoint.workers, key=lambda worker: worker.busy == 0)
        endpoint.workers = busy_first[: max(endpoint.max, sum(worker.busy > 0 for worker in busy_first))]


def wake(account: Account, endpoint: Endpoint, now: float) -> Worker | None:
    """The worker that takes the next request: the least busy one, or a new one. None when there may be none."""
    placed = sorted((worker for worker in endpoint.workers if worker.data_center), key=lambda worker: worker.busy)
    per_worker = int(endpoint.scaling.get("requestCount", 4))
    if placed and (placed[0].busy < per_worker or len(endpoint.workers) >= endpoint.max):
        return placed[0]
    if len(endpoint.workers) < endpoint.max:
        worker = _added(account, endpoint, now)
        return worker if worker.data_center else None
    return placed[0] if placed else None


def status(worker: Worker, now: float, ready: Ready) -> str:
    """RUNNING while it works, IDLE when it could; THROTTLED without a GPU, UNHEALTHY when its container is broken."""
    if worker.data_center is None:
        return "THROTTLED"
    if not started(worker, now):
        return "INITIALIZING"
    if worker.boot.broken or worker.boot.exits:
        return "UNHEALTHY"
    if not ready(worker.id):
        return "INITIALIZING"
    return "RUNNING" if worker.busy else "IDLE"


def started(worker: Worker, now: float) -> bool:
    """Whether its container runs by now; the server in it may still load."""
    return worker.data_center is not None and now >= starts_at(worker)


def starts_at(worker: Worker) -> float:
    """When its container runs, once it has a place."""
    return worker.started_at + worker.boot.delay_s


def idle_for(endpoint: Endpoint, seconds: float) -> None:
    """What RunPod does to an endpoint that had no request for that long."""
    for limit, most in _IDLE_CUTS:
        if seconds >= limit:
            endpoint.max = min(endpoint.max, most)
            endpoint.min = min(endpoint.min, endpoint.max)
            return


def _surplus(endpoint: Endpoint, worker: Worker, fresh: list[Worker], now: float) -> bool:
    """Whether an idle worker has been so for its time, and the endpoint keeps enough without it."""
    asleep = now >= max(worker.used_at, starts_at(worker)) + endpoint.idle_timeout
    return asleep and fresh.index(worker) >= endpoint.min


def _added(account: Account, endpoint: Endpoint, now: float) -> Worker:
    container = endpoint.container.model_copy(deep=True)
    worker = Worker(id=account.new_id(), version=endpoint.version, container=container, started_at=now, used_at=now)
    worker.boot = account.boot_for(container.image, endpoint.name)
    endpoint.workers.append(worker)
    _place(account, endpoint, worker, now)
    return worker


def _place(account: Account, endpoint: Endpoint, worker: Worker, now: float) -> None:
    pinned = [account.volumes[id].data_center for id in endpoint.volumes if id in account.volumes]
    wanted = pinned or endpoint.data_centers
    if endpoint.gpu is None:
        worker.data_center, worker.started_at = (wanted or list(DATA_CENTERS))[0], now
        return
    rule = endpoint.gpu
    for gpu in rule.types():
        place = account.stock.place(gpu, wanted, rule.minCudaVersion, rule.allowedCudaVersions)
        if place is not None:
            worker.gpu, worker.data_center, worker.started_at = gpu, place.id, now
            return
