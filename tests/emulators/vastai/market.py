"""Offers, and the search among them as the API documents it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "verified": {"eq": True},
    "external": {"eq": False},
    "rentable": {"eq": True},
}
_CONTROL = frozenset({"type", "order", "limit", "allocated_storage"})


def offer_row(id: int, **changes: Any) -> dict[str, Any]:
    """An offer in a European data centre; its machine is `id + 50000`."""
    return {
        "id": id,
        "ask_contract_id": id,
        "machine_id": id + 50000,
        "host_id": 7,
        "gpu_name": "RTX 4090",
        "num_gpus": 1,
        "gpu_ram": 24564,
        "compute_cap": 890,
        "cuda_max_good": 13.0,
        "cpu_arch": "amd64",
        "disk_space": 500.5,
        "inet_down": 900.0,
        "inet_up": 700.0,
        "dph_base": 0.3,
        "storage_cost": 0.2,
        "inet_down_cost": 0.005,
        "inet_up_cost": 0.01,
        "min_bid": 0.12,
        "reliability2": 0.99,
        "verification": "verified",
        "hosting_type": 1,
        "geolocation": "Sofia, BG",
        "public_ipaddr": "127.0.0.1",
        "static_ip": True,
        "direct_port_count": 20,
        "duration": 30 * 86400.0,
        "rentable": True,
        "rented": False,
        "external": False,
        "is_bid": False,
        **changes,
    }


def search(rows: Iterable[Mapping[str, Any]], query: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The offers that pass, priced with the asked storage, in order."""
    filters = {**DEFAULTS, **{name: bound for name, bound in query.items() if name not in _CONTROL}}
    storage = float(query.get("allocated_storage", 8))
    priced = [{**row, "dph_total": row["dph_base"] + storage * row["storage_cost"] / 720} for row in rows]
    # Reported, not documented (dstackai/gpuhunt#142): a bound on the driver alone hides data-centre GPUs.
    if "cuda_max_good" in filters and "compute_cap" not in filters:
        priced = [row for row in priced if row["compute_cap"] < 900]
    found = [row for row in priced if all(_passes(row, name, bound) for name, bound in filters.items())]
    for column, direction in reversed(query.get("order", [])):
        found.sort(key=lambda row: _column(row, column) or 0, reverse=direction == "desc")
    return found[: int(query.get("limit", 64))]


def _passes(row: Mapping[str, Any], name: str, bound: Mapping[str, Any]) -> bool:
    value = _column(row, name)
    return all(_compare(value, op, wanted) for op, wanted in bound.items())


def _column(row: Mapping[str, Any], name: str) -> Any:
    match name:
        case "verified":
            return row.get("verification") == "verified"
        case "datacenter":
            return row.get("hosting_type") == 1
        case "geolocation":
            return (row.get("geolocation") or "")[-2:]
        case "reliability":
            return row.get("reliability2")
        case _:
            return row.get(name)


def _compare(value: Any, op: str, wanted: Any) -> bool:
    if value is None:
        return op in ("neq", "notin")
    # Numbers may come as text: the vendor's own client sends them so.
    if isinstance(wanted, str) and isinstance(value, int | float) and not isinstance(value, bool):
        wanted = float(wanted)
    match op:
        case "eq":
            return value == wanted
        case "neq":
            return value != wanted
        case "gt":
            return value > wanted
        case "gte":
            return value >= wanted
        case "lt":
            return value < wanted
        case "lte":
            return value <= wanted
        case "in":
            return value in wanted
        case "notin":
            return value not in wanted
        case _:
            raise ValueError(f"no operator {op}")
