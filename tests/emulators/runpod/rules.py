"""RunPod's rules for pods and endpoints: what it refuses with which status, and the defaults that it fills in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .catalog import CPUS, DATA_CENTERS, GPUS, POOLS, DataCenter
from .state import Account, Container, Cpu, Endpoint, EndpointGpu, Gpu, Pod

NO_CAPACITY = (
    "There are no longer any instances available with the requested specifications. Please refresh and try again."
)
CONTAINER = frozenset({"image", "args", "disk", "env", "ports", "registry"})
_MOST_HTTP_PORTS = 10
_MOST_POOLS = 3


class Refused(Exception):
    """A request that is answered with an error; `errors` are the single violations of the contract."""

    def __init__(self, status: int, detail: str, errors: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors


def container_of(account: Account, body: Mapping[str, Any], before: Container | None = None) -> Container:
    """The container with what the body sets; `env` and `ports` are replaced as a whole."""
    given = {name: body[name] for name in CONTAINER & body.keys()}
    registry = given.get("registry")
    if registry and (registry not in account.registries or account.registries[registry].lingers is not None):
        raise Refused(404, "registry not found")
    if "templateId" in body:
        raise Refused(404, "template not found")
    container = (before or Container()).model_copy(update=given, deep=True)
    if len(container.http_ports()) > _MOST_HTTP_PORTS:
        raise Refused(400, f"at most {_MOST_HTTP_PORTS} http ports may be exposed")
    return container


def new_pod(account: Account, body: Mapping[str, Any], now: float) -> Pod:
    """A pod on the first host that has what was asked for."""
    gpu, cpu, mounts = body.get("gpu"), body.get("cpu"), body.get("mounts", {})
    if (gpu is None) == (cpu is None):
        raise Refused(400, "exactly one of gpu or cpu must be set")
    if cpu and "persistent" in mounts:
        raise Refused(400, "mounts.persistent is invalid when cpu is set")
    container = container_of(account, body)
    wanted = _pinned(account, body.get("dataCenterIds", []), mounts)
    if account.balance <= 0:
        raise Refused(402, "insufficient balance")
    host = _gpu_host(account, gpu, wanted) if gpu else _cpu_host(cpu, wanted)
    return Pod(
        id=account.new_id(),
        name=body["name"],
        created_at=now,
        booted_at=now,
        hidden_lists=account.list_lag,
        container=container,
        gpu=Gpu(id=gpu["id"], count=gpu.get("count", 1)) if gpu else None,
        cpu=Cpu(**cpu) if cpu else None,
        cloud=body.get("cloud", "SECURE"),
        data_center=host.id,
        cuda=host.cuda if gpu else None,
        mounts=mounts,
        global_networking=body.get("globalNetworking", False),
        boot=account.boot_for(container.image, body["name"]),
        surcharge=account.surcharge,
    )


def _pinned(account: Account, data_centers: list[str], mounts: Mapping[str, Any]) -> list[str]:
    """Where the pod may be: a network volume ties it to its own data center."""
    network = mounts.get("network", [])
    if network and "persistent" in mounts:
        raise Refused(400, "mounts.persistent and mounts.network are mutually exclusive")
    if not network:
        return data_centers
    volume = account.volumes.get(network[0]["volumeId"])
    if volume is None or volume.lingers is not None:
        raise Refused(404, "network volume not found")
    if data_centers and volume.data_center not in data_centers:
        raise Refused(400, f"network volume {volume.id} is in {volume.data_center}")
    return [volume.data_center]


def _gpu_host(account: Account, gpu: Mapping[str, Any], wanted: list[str]) -> DataCenter:
    _one_cuda_rule(gpu.get("minCudaVersion"), gpu.get("allowedCudaVersions", []))
    kind = GPUS.get(gpu["id"])
    if kind is None:
        raise Refused(400, f"gpu type {gpu['id']} not found")
    if kind.pool in account.forbidden_pools:
        raise Refused(403, f"no access to {kind.pool}")
    host = account.stock.place(kind.id, wanted, gpu.get("minCudaVersion"), gpu.get("allowedCudaVersions", []))
    if host is None or gpu.get("count", 1) > 8:
        raise Refused(400, NO_CAPACITY)
    return host


def _cpu_host(cpu: Mapping[str, Any] | None, wanted: list[str]) -> DataCenter:
    if cpu is None or cpu["id"] not in CPUS:
        raise Refused(400, "cpu type not found")
    host = DATA_CENTERS.get((wanted or list(DATA_CENTERS))[0])
    if host is None:
        raise Refused(400, NO_CAPACITY)
    return host


def _one_cuda_rule(floor: str | None, exact: list[str]) -> None:
    if floor and exact:
        raise Refused(400, "allowedCudaVersions and minCudaVersion are mutually exclusive")


def patch_pod(account: Account, pod: Pod, body: Mapping[str, Any], now: float) -> None:
    """Change a pod in place. A changed container starts anew; a locked pod only unlocks."""
    if pod.locked and (body.keys() - {"locked", "name"} or body.get("locked") is not False):
        raise Refused(409, "pod is locked")
    mounts = body.get("mounts", {})
    if mounts and mounts.keys() != pod.mounts.keys():
        raise Refused(400, "the kind of a mount is fixed at create")
    if "network" in mounts and [m["volumeId"] for m in mounts["network"]] != [
        m["volumeId"] for m in pod.mounts["network"]
    ]:
        raise Refused(400, "the volume of a network mount is immutable")
    container = container_of(account, body, pod.container)
    restarts = container != pod.container or bool(mounts)
    pod.container, pod.mounts = container, mounts or pod.mounts
    pod.name, pod.locked = body.get("name", pod.name), body.get("locked", pod.locked)
    pod.global_networking = body.get("globalNetworking", pod.global_networking)
    if restarts and not pod.stopped:
        pod.start(now, account.boot_for(container.image, pod.name))


def new_endpoint(account: Account, body: Mapping[str, Any], now: float) -> Endpoint:
    """An endpoint with the API's own defaults: timeout 0, FlashBoot off, idle timeout 10 s, three workers at most."""
    if ("gpu" in body) == ("cpu" in body):
        raise Refused(400, "exactly one of gpu or cpu must be set")
    if account.balance <= 0:
        raise Refused(402, "insufficient balance")
    container = container_of(account, body)
    if body["type"] == "LOAD_BALANCER":
        port = str(min(container.http_ports(), default=80))
        container.env = {"PORT": port, "PORT_HEALTH": port, **container.env}
    endpoint = Endpoint(
        id=account.new_id(),
        name=body["name"],
        created_at=now,
        hidden_lists=account.list_lag,
        type=body["type"],
        container=container,
        cpu=[Cpu(**cpu) for cpu in body.get("cpu", [])],
        scaling=body["scaling"],
    )
    _set(account, endpoint, body)
    return endpoint


def patch_endpoint(account: Account, endpoint: Endpoint, body: Mapping[str, Any], now: float) -> None:
    """Change an endpoint in place; a changed container is a new version, which rolls over the workers."""
    if ("gpu" in body and endpoint.cpu) or ("cpu" in body and endpoint.gpu):
        raise Refused(400, "the compute family of an endpoint cannot be changed")
    # Its workers stay the very same: requests are under way on them.
    changed = endpoint.model_copy()
    changed.container = container_of(account, body, endpoint.container)
    _set(account, changed, body)
    diff = [
        {"field": name, "old": getattr(endpoint.container, name), "new": getattr(changed.container, name)}
        for name in sorted(CONTAINER)
        if getattr(endpoint.container, name) != getattr(changed.container, name)
    ]
    if diff:
        changed.release(account.new_id(), now, diff)
    account.endpoints[endpoint.id] = changed


def _set(account: Account, endpoint: Endpoint, body: Mapping[str, Any]) -> None:
    workers = body.get("workers", {})
    endpoint.scaling = body.get("scaling", endpoint.scaling)
    if endpoint.type == "LOAD_BALANCER" and endpoint.scaling["type"] != "REQUEST_COUNT":
        raise Refused(422, "load-balancing endpoints scale on requestCount")
    if "idleTimeout" in workers and not endpoint.takes_idle_timeout:
        raise Refused(422, "workers.idleTimeout is not applicable to queue endpoints that scale on requestCount")
    endpoint.idle_timeout = workers.get("idleTimeout", endpoint.idle_timeout)
    endpoint.min, endpoint.max = workers.get("min", endpoint.min), workers.get("max", endpoint.max)
    if endpoint.min > endpoint.max:
        raise Refused(400, "workers.min must not exceed workers.max")
    if "gpu" in body:
        endpoint.gpu = _endpoint_gpu(account, endpoint.gpu or EndpointGpu(), body["gpu"])
    for id in body.get("networkVolumes", []):
        if id not in account.volumes or account.volumes[id].lingers is not None:
            raise Refused(404, "network volume not found")
    endpoint.volumes = body.get("networkVolumes", endpoint.volumes)
    endpoint.data_centers = body.get("dataCenterIds", endpoint.data_centers)
    endpoint.timeout = body.get("timeout", endpoint.timeout)
    endpoint.flashboot = body.get("flashboot", endpoint.flashboot)
    if "name" in body:
        # Seen on endpoints that were made by older APIs; REST v2 does not document it.
        suffix = "-fb" if account.fb_suffix and endpoint.flashboot != "OFF" else ""
        endpoint.name = body["name"].removesuffix("-fb") + suffix


def _endpoint_gpu(account: Account, before: EndpointGpu, given: Mapping[str, Any]) -> EndpointGpu:
    """Pools and exclusions are one selection: new pools without exclusions clear them."""
    update = dict(given)
    if "pools" in given:
        update.setdefault("excludedTypes", [])
    if given.get("minCudaVersion") == "":
        update["minCudaVersion"] = None
    gpu = before.model_copy(update=update)
    _one_cuda_rule(gpu.minCudaVersion, gpu.allowedCudaVersions)
    if unknown := set(gpu.pools) - POOLS:
        raise Refused(400, f"unknown gpu pool {', '.join(sorted(unknown))}")
    if forbidden := set(gpu.pools) & set(account.forbidden_pools):
        raise Refused(403, f"no access to {', '.join(sorted(forbidden))}")
    if len(gpu.pools) > _MOST_POOLS:
        raise Refused(400, f"at most {_MOST_POOLS} gpu pools")
    if outside := [id for id in gpu.excludedTypes if id not in GPUS or GPUS[id].pool not in gpu.pools]:
        raise Refused(400, f"excludedTypes outside the pools: {', '.join(outside)}")
    if not gpu.types():
        raise Refused(400, "excludedTypes leave no gpu type")
    return gpu
