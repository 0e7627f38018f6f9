"""Google's refusals as Pulumi shows them (texts from public issues, named in the cases), and what is made of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.gcp.errors import advice, refusal

CASES = [
    (
        "Error waiting for instance to create: The zone 'projects/p/zones/us-central1-b' does not have enough "
        "resources available to fulfill the request.  Try a different zone, or try again later.",
        "stockout",
    ),
    (  # kubernetes/k8s.io#9834
        "Error waiting for instance to create: A n1-standard-4 VM instance with 1 nvidia-tesla-t4 accelerator(s) is "
        "currently unavailable in the us-central1-b zone. Consider trying your request in the us-central1-a, "
        "us-central1-f zone(s), which currently has capacity to accommodate your request.",
        "stockout",
    ),
    ("Quota 'NVIDIA_T4_GPUS' exceeded.  Limit: 0.0 in region europe-west4.", "quota_region"),
    ("Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 0.0 globally.", "quota_global"),
    (
        "Error waiting for instance to create: Quota 'PREEMPTIBLE_NVIDIA_T4_GPUS' exceeded.\n"
        "\tmetric name = compute.googleapis.com/preemptible_nvidia_t4_gpus\n\tlimit name = X\n\tlimit = 1\n"
        "\tdimensions = map[region:europe-west1]\n",
        "quota_region",
    ),
    (
        "googleapi: Error 403: Compute Engine API has not been used in project 123 before or it is disabled. Enable it "
        "by visiting https://console.developers.google.com/apis/api/compute.googleapis.com/overview?project=123",
        "api_disabled",
    ),
    (
        "googleapi: Error 403: This API method requires billing to be enabled on project #123, billingDisabled",
        "billing_disabled",
    ),
    (
        "googleapi: Error 403: Required 'compute.instances.create' permission for 'projects/p/zones/z/instances/n'",
        "permission",
    ),
    ("googleapi: Error 409: The resource 'projects/p/zones/z/instances/n' already exists, alreadyExists", "exists"),
    (
        "googleapi: Error 400: Instances with guest accelerators do not support live migration., badRequest",
        "live_migration",
    ),
    (
        "The resource 'projects/p/zones/europe-west6-a/acceleratorTypes/nvidia-tesla-t4' was not found, notFound",
        "no_such_gpu",
    ),
    (
        "Changing the machine_type, min_cpu_platform, service_account, or enable_display on a started instance "
        "requires stopping it. To acknowledge this, please set allow_stopping_for_update = true in your config.",
        "stop_required",
    ),
    ("Failed to retrieve project, pid: , err: project: required field is not set", "no_project"),
    (
        "Error waiting for instance to create: timeout while waiting for state to become 'DONE' (last state: "
        "'RUNNING', timeout: 20m0s)",
        "timeout",
    ),
    ("The resource 'projects/x/global/images/family/ubuntu-gone' was not found, notFound", "image_missing"),
]


@pytest.mark.parametrize(("text", "kind"), CASES, ids=[kind for _, kind in CASES])
def test_a_refusal_is_told_by_its_text(text: str, kind: str) -> None:
    found = refusal(text)
    assert found is not None
    assert found.kind == kind
    assert found.advice


def test_a_stockout_names_the_zones_that_google_says_have_capacity() -> None:
    found = refusal(CASES[1][0])
    assert found is not None
    assert '["us-central1-a", "us-central1-f"]' in found.advice


def test_a_quota_names_its_metric_and_its_region() -> None:
    found = refusal(CASES[2][0])
    assert found is not None
    assert "The quota NVIDIA_T4_GPUS in europe-west4 is" in found.advice
    spot = refusal(CASES[4][0])
    assert spot is not None
    assert "PREEMPTIBLE_NVIDIA_T4_GPUS" in spot.advice


def test_only_what_depends_on_the_zone_is_worth_another_zone() -> None:
    kinds = {kind for text, kind in CASES if (found := refusal(text)) and found.another_zone}
    assert kinds == {"stockout", "no_such_gpu"}


def test_advice_says_what_it_costs_now() -> None:
    for text, kind in CASES:
        told = advice(text)
        assert "bill" in told, text
        assert "`" in told or "https://" in told, text
        assert ("was not made" in told) is (text.startswith("Error waiting") and kind != "timeout"), text
    assert advice("hello") == ""


def test_a_permission_is_named_with_a_role_that_has_it() -> None:
    text = "googleapi: Error 403: Required 'iam.serviceAccounts.create' permission for 'projects/p', forbidden"
    told = advice(text)
    for words in (
        "lack the permission iam.serviceAccounts.create",
        "--role=roles/iam.serviceAccountAdmin",
        "doctor gcp",
    ):
        assert words in told
    assert "doctor gcp" in advice("googleapi: Error 403: The caller does not have permission, forbidden")


def test_what_exists_already_is_imported_by_its_id() -> None:
    assert "server projects/p/zones/z/instances/n --parent" in advice(CASES[8][0])


def test_an_api_that_is_off_names_itself() -> None:
    found = refusal(CASES[5][0])
    assert found is not None
    assert "gcloud services enable compute.googleapis.com" in found.advice


@given(st.text(alphabet="abcdefghij \n:'", max_size=200))
def test_what_is_not_known_is_not_guessed(text: str) -> None:
    assert refusal(text) is None
