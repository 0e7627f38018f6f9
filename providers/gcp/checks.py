"""What has to be so before `up` can work, asked of Google one by one; and what carries our label there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from providers.base import PlatformError
from providers.gcp.client import Google
from providers.gcp.machines import region_of, zones_with
from providers.gcp.options import IMAGE
from providers.gcp.quotas import quota_findings
from serving.gpus import gpu

APIS = ("compute.googleapis.com", "secretmanager.googleapis.com", "iam.googleapis.com", "logging.googleapis.com")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what, whether it is as it should be, and what was seen or what to do."""

    name: str
    ok: bool
    text: str


@dataclass(frozen=True)
class Labelled:
    """A thing with our label that may be billed: its kind, its id, the stack's own name there, and its status."""

    kind: str
    id: str
    slug: str
    status: str


def checks(google: Google, *, region: str, card: str = "T4", spot: bool = False, image: str = IMAGE) -> Iterator[Check]:
    """Project, billing, APIs, GPU in the region's zones, quotas, image. Each is asked, whatever the others said."""
    if not google.project:
        yield Check("project", False, "none is set: GOOGLE_PROJECT")
        return
    yield _asked("project", lambda: _project(google))
    yield _asked("billing", lambda: _billing(google))
    for api in APIS:
        yield _asked(api, lambda api=api: _api(google, api))
    yield _asked("zones", lambda: _zones(google, region, card))
    yield _asked("quotas", lambda: _quotas(google, region, card, spot))
    yield _asked("image", lambda: _image(google, image))


def labelled(google: Google) -> list[Labelled]:
    """Every VM and address of the project that was made by this project's stacks.

    Raises:
        PlatformError: a list is not complete; then nothing may be concluded from it.
    """
    found: list[Labelled] = []
    for kind, list_of in (("instances", "instance"), ("addresses", "address")):
        path = f"projects/{google.project}/aggregated/{kind}"
        for _, scoped in google.pages(path, filter="labels.managed-by=vllm-anywhere", returnPartialSuccess="false"):
            for one in scoped.get(kind) or []:
                id = str(one["selfLink"]).partition("/compute/v1/")[2]
                slug = str((one.get("labels") or {}).get("vllm-anywhere", ""))
                found.append(Labelled(list_of, id, slug, str(one.get("status", ""))))
    return found


def _asked(name: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except PlatformError as error:
        return Check(name, False, str(error))


def _project(google: Google) -> Check:
    google.get("compute", f"projects/{google.project}")
    return Check("project", True, google.project)


def _billing(google: Google) -> Check:
    on = bool(google.get("billing", f"projects/{google.project}/billingInfo").get("billingEnabled"))
    fix = "no active billing account: https://console.cloud.google.com/billing/linkedaccount"
    return Check("billing", on, "enabled" if on else fix)


def _api(google: Google, api: str) -> Check:
    on = google.get("serviceusage", f"projects/{google.project}/services/{api}").get("state") == "ENABLED"
    return Check(api, on, "enabled" if on else f"`gcloud services enable {api}`")


def _zones(google: Google, region: str, card: str) -> Check:
    name = gpu(card).platform_names["gcp"][0]
    filter = f"name={name}"
    scopes = google.pages(f"projects/{google.project}/aggregated/acceleratorTypes", filter=filter)
    have = sorted(scope.rpartition("/")[2] for scope, found in scopes if found.get("acceleratorTypes"))
    here = [zone for zone in have if region_of(zone) == region]
    if not here:
        return Check("zones", False, f"no {card} in {region}; there is in {', '.join(have) or 'no zone at all'}")
    known = set(zones_with(card, region))
    news = f"; not in our table: {', '.join(sorted(set(here) - known))}" if set(here) - known else ""
    return Check("zones", True, f"{card} in {', '.join(here)}{news}")


def _quotas(google: Google, region: str, card: str, spot: bool) -> Check:
    found = quota_findings(google.quotas(), gpu(card), region, 1, spot)
    return Check(
        "quotas", not any(one.fatal for one in found), "; ".join(one.text for one in found) or "enough for one"
    )


def _image(google: Google, image: str) -> Check:
    return Check("image", True, str(google.get("compute", image).get("name", image)))
