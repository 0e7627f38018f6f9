"""The peers of `benchmarks/offers.py`, each in a process of its own with the Python that has it.

`python offer_peers.py PEER ROWS NEEDS` reads the rows into the peer's own form, writes "ready", and then answers each
line of stdin with one of JSON: the names of the offers that it would take, cheapest first, if the line asks for them.
This file imports nothing of ours: the peers' packages and ours need not live together.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, str]]
Ask = Callable[[], list[str]]


def gpuhunt(rows: Rows, needs: Mapping[str, Any], *, by_name: bool = False) -> Ask:
    """`Catalog.query`, with the rows in memory as the answer of an online provider.

    It has no notion of a model, so fitting is memory and capability; or the names of the GPUs, which saves it looking
    up each row's capability, once somebody else has found them.
    """
    from gpuhunt import AcceleratorVendor, Catalog, CatalogItem

    items = [
        CatalogItem(
            provider="vastai",
            instance_name=row["sku"],
            location=row["country"],
            price=float(row["price"]),
            cpu=8,
            memory=32.0,
            gpu_vendor=AcceleratorVendor.NVIDIA,
            gpu_count=int(row["gpu_count"]),
            gpu_name=row["gpuhunt"],
            gpu_memory=float(row["memory_gb"]),
            spot=False,
            disk_size=None,
        )
        for row in rows
    ]

    class Market:
        NAME = "vastai"

        def get(self, query_filter: object = None, balance_resources: bool = True) -> list[CatalogItem]:
            return items

    catalog = Catalog(auto_reload=False)
    catalog.add_provider(Market())  # type: ignore[arg-type]
    fitting = {row["gpuhunt"] for row in rows if row["gpu"] in needs["gpus"]}
    which = {"gpu_name": sorted(fitting)} if by_name else {"min_compute_capability": tuple(needs["capability"])}

    def ask() -> list[str]:
        found = catalog.query(
            provider="vastai",
            min_gpu_count=1,
            max_gpu_count=1,
            min_gpu_memory=needs["memory_gb"],
            spot=False,
            **which,
        )
        # A query leaves each provider's items in the order of that provider.
        found.sort(key=lambda item: item.price)
        return [item.instance_name for item in found]

    return ask


def skypilot(rows: Rows, needs: Mapping[str, Any]) -> Ask:
    """`Optimizer.optimize` of a task that takes any of the GPUs that fit, with the rows as Vast.ai's catalogue.

    Its catalogue is where it looks for one, and it is told that the cloud is enabled: that would take an account.
    """
    from pathlib import Path

    import sky
    from sky import check, clouds, optimizer
    from sky.catalog import common

    def accelerator(row: Mapping[str, str]) -> str:
        return f"{row['gpuhunt']}-{row['memory_gb']}GB"

    def save(name: str, header: Sequence[str], lines: list[list[object]]) -> None:
        path = Path(common.get_catalog_path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *lines])

    columns = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,Region,GpuInfo,SpotPrice,HostingType"
    machines: list[list[object]] = []
    for row in rows:
        info = f"{{'Gpus': [{{'Name': '{accelerator(row)}'}}]}}"
        machines.append(
            [row["sku"], accelerator(row), row["gpu_count"], 8, 32, row["price"], row["country"], info, "", 1]
        )
    save("vast/vms.csv", columns.split(","), machines)
    save(
        "common/accelerators.csv",
        ["AcceleratorName", "Clouds"],
        [[one, "Vast"] for one in sorted(map(accelerator, rows))],
    )
    check.get_cached_enabled_clouds_or_refresh = lambda *_, **__: [clouds.Vast()]
    fitting = sorted({accelerator(row) for row in rows if row["gpu"] in needs["gpus"]})

    def ask() -> list[str]:
        with sky.Dag() as dag:
            task = sky.Task("serve", run="true")
            task.set_resources({sky.Resources(accelerators={name: 1}) for name in fitting})
        optimizer.Optimizer.optimize(dag, quiet=True)
        return [task.best_resources.instance_type]

    return ask


PEERS: Mapping[str, Callable[..., Ask]] = {
    "gpuhunt": gpuhunt,
    "gpuhunt, GPUs by name": lambda rows, needs: gpuhunt(rows, needs, by_name=True),
    "SkyPilot": skypilot,
}


def main() -> None:
    """Serve one peer on stdin and stdout."""
    peer, path, needs = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    # The peers print to stdout as they please.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with open(path, newline="", encoding="utf-8") as file:  # noqa: PTH123
        ask = PEERS[peer](list(csv.DictReader(file)), json.loads(needs))
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        names = ask()
        print(json.dumps(names if line.strip() == "names" else len(names)), file=answers, flush=True)


if __name__ == "__main__":
    main()
