"""What is looked at before `up`, and what is found by label; Google's answers are emulated."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from providers.base import PlatformError
from providers.gcp.auth import Identity
from providers.gcp.checks import APIS, Check, checks, labelled
from providers.gcp.client import Google

T4_ZONES = ("europe-west4-a", "europe-west4-b", "us-central1-a")


def answers(**changes: tuple[int, Any]) -> dict[str, tuple[int, Any]]:
    """Answers by the last part of the path, of a project in which everything is as it should be."""
    enough = [{"metric": metric, "limit": 1, "usage": 0} for metric in ("GPUS_ALL_REGIONS", "NVIDIA_T4_GPUS")]
    return {
        "shop": (200, {"quotas": enough[:1]}),
        "regions": (200, {"items": [{"name": "europe-west4", "quotas": enough[1:]}]}),
        "billingInfo": (200, {"billingEnabled": True}),
        "acceleratorTypes": (200, {"items": {f"zones/{zone}": {"acceleratorTypes": [{}]} for zone in T4_ZONES}}),
        "ubuntu-accelerator-2404-amd64-with-nvidia-580": (200, {"name": "ubuntu-580-v20260225"}),
        **{api: (200, {"state": "ENABLED"}) for api in APIS},
        **changes,
    }


def looked(region: str = "europe-west4", **changes: tuple[int, Any]) -> dict[str, Check]:
    table = answers(**changes)

    def respond(request: httpx.Request) -> httpx.Response:
        status, body = table[request.url.path.rsplit("/", 1)[1]]
        return httpx.Response(status, json=body)

    google = Google(Identity("token", "shop"), transport=httpx.MockTransport(respond), environ={})
    return {check.name: check for check in checks(google, region=region)}


def test_a_project_in_order_passes_every_check() -> None:
    found = looked()
    assert [check.name for check in found.values() if not check.ok] == []
    assert set(found) == {"project", "billing", *APIS, "zones", "quotas", "image"}
    assert found["zones"].text == "T4 in europe-west4-a, europe-west4-b"
    assert found["image"].text == "ubuntu-580-v20260225"


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("billing", {"billingInfo": (200, {"billingEnabled": False})}, "no active billing account"),
        (APIS[1], {APIS[1]: (200, {"state": "DISABLED"})}, f"gcloud services enable {APIS[1]}"),
        ("quotas", {"shop": (200, {"quotas": [{"metric": "GPUS_ALL_REGIONS", "limit": 0}]})}, "GPUS_ALL_REGIONS is 0"),
        ("zones", {"acceleratorTypes": (200, {"items": {}})}, "no T4 in europe-west4"),
        (
            "image",
            {"ubuntu-accelerator-2404-amd64-with-nvidia-580": (404, {"error": {"message": "images/x' was not found"}})},
            "gcloud compute images list",
        ),
    ],
)
def test_what_is_wrong_says_what_to_do_and_hides_no_other_check(name: str, changes: dict[str, Any], words: str) -> None:
    found = looked(**changes)
    assert [check.name for check in found.values() if not check.ok] == [name]
    assert words in found[name].text


def test_a_region_without_the_gpu_names_the_zones_that_have_it() -> None:
    assert "us-central1-a" in looked(region="europe-west6")["zones"].text


def listing(*answers: tuple[int, Any]) -> Google:
    left = list(answers)
    return Google(
        Identity("token", "shop"),
        transport=httpx.MockTransport(lambda request: httpx.Response(left[0][0], json=left.pop(0)[1])),
        environ={},
    )


def scope(kind: str, *names: str) -> dict[str, Any]:
    link = "https://www.googleapis.com/compute/v1/projects/shop/zones/z"
    made = [
        {"selfLink": f"{link}/{kind}/{name}", "labels": {"vllm-anywhere": "va-t4"}, "status": "RUNNING"}
        for name in names
    ]
    return {"zones/z": {kind: made}, "zones/empty": {"warning": {"code": "NO_RESULTS_ON_PAGE"}}}


def test_what_carries_the_label_is_found_on_every_page() -> None:
    google = listing(
        (200, {"items": scope("instances", "a"), "nextPageToken": "2"}),
        (200, {"items": scope("instances", "b")}),
        (200, {"items": scope("addresses", "c")}),
    )
    found = labelled(google)
    assert [(one.kind, one.id.rpartition("/")[2], one.slug) for one in found] == [
        ("instance", "a", "va-t4"),
        ("instance", "b", "va-t4"),
        ("address", "c", "va-t4"),
    ]


def test_a_list_that_breaks_off_never_counts_as_complete() -> None:
    google = listing((200, {"items": scope("instances", "a"), "nextPageToken": "2"}), (503, {"error": {}}))
    with pytest.raises(PlatformError):
        labelled(google)
