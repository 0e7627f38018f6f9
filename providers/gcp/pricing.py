"""What Google rents and at which price: live from the Billing Catalog with an API key, else the dated snapshot.

The catalogue is read page by page and may take longer than a preview waits, so what matters of it is kept for a day in
the user's cache folder. `refresh` reads it whole.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

from pydantic import TypeAdapter

from providers.base import AuthError, PlatformError
from providers.gcp import catalog
from providers.gcp.auth import present
from providers.gcp.quotas import Quotas
from providers.market import LIVE_BUDGET_S, Market, ask, offline, prices
from providers.model_shape import model_shape
from serving.models import Model
from serving.offers import Offer
from serving.prices import with_user_prices
from serving.snapshot import snapshot_offers
from serving.spec import DeploymentSpec, SpecError

URL_VARIABLE = "VLLM_ANYWHERE_GCP_BILLING_URL"
KEY_VARIABLE = "GOOGLE_CLOUD_API_KEY"
"""An API key for the Cloud Billing API: prices are public, and it can do nothing else."""
PAGE = 5000

_FOUND = TypeAdapter(list[catalog.Found])


@dataclass(frozen=True)
class GcpMarket(Market):
    """The offers, and what Google says of the project, as far as it was asked and has answered.

    Attributes:
        model: the shape of the spec's model; None when nothing describes it.
        quotas: what `project` may use.
        zones: Google's name of each GPU -> the zones that have it.
        project: the environment's project; "" where nobody was asked.
    """

    model: Model | None = None
    quotas: Quotas = field(default_factory=Quotas)
    zones: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    project: str = ""


def query(spec: DeploymentSpec, budget_s: float = LIVE_BUDGET_S) -> GcpMarket:
    """The market for a spec, and what Google says of the project where there are credentials; in `budget_s` seconds."""
    quotas, zones, project = Quotas(), dict[str, frozenset[str]](), ""
    try:
        model = model_shape(spec.model)
    except SpecError:
        model = None

    def look() -> None:
        nonlocal quotas, zones, project
        from providers.gcp.client import project_of

        try:
            google = project_of(budget_s)
            project = google.project
            quotas = google.quotas()
            zones = google.gpu_zones()
        except PlatformError:
            return

    reading = threading.Thread(target=look, daemon=True)
    if not offline() and present():
        reading.start()
    begun = time.monotonic()
    market = ask({"gcp": live}, spec, budget_s=budget_s)["gcp"]
    if reading.ident is not None:
        reading.join(max(0.0, budget_s - (time.monotonic() - begun)))
    return GcpMarket(market.offers, (*market.notes, *_missing()), model, quotas, zones, project)


def _missing() -> list[str]:
    """What the package needs and isn't here. Its own error names no command of ours, and no hook sees it."""
    if present():
        return []
    return [
        "No Google credentials are in this environment. Pulumi's package for Google fails without, in `preview` too: "
        "`gcloud auth application-default login`, or GOOGLE_CREDENTIALS with a service account's key file; and the "
        "project's id in GOOGLE_PROJECT."
    ]


def live(spec: DeploymentSpec, seconds: float) -> Iterable[Offer]:
    """The offers at today's list prices.

    Raises:
        PlatformError: no API key is set, or the catalogue can't be read in that time.
    """
    today = datetime.now(UTC).date()
    found = _kept(today)
    if found is None:
        found = refresh(seconds)
    return offers_at(found, spec.hardware.gpu_count, today)


def offers_at(found: Iterable[catalog.Found], gpu_count: int, day: date) -> tuple[Offer, ...]:
    """The dated offers with the catalogue's prices in place of theirs."""
    merged = with_user_prices([price for price in prices() if price.platform == "gcp"], catalog.prices_of(found, day))
    return catalog.as_live(snapshot_offers(merged, "gcp", gpu_count))


def refresh(seconds: float = 300.0, clock: Callable[[], float] = time.monotonic) -> list[catalog.Found]:
    """Reads the whole catalogue and keeps what matters of it for the day.

    Raises:
        AuthError: no API key is set.
        PlatformError: Google refuses it, or the time is up.
    """
    import httpx

    key = os.environ.get(KEY_VARIABLE)
    if not key:
        raise AuthError(f"no API key in ${KEY_VARIABLE}")
    url = f"{os.environ.get(URL_VARIABLE, 'https://cloudbilling.googleapis.com').rstrip('/')}"
    until = clock() + seconds
    found: list[catalog.Found] = []
    page = ""
    with httpx.Client(headers={"x-goog-api-key": key}) as http:
        while True:
            left = until - clock()
            if left <= 0:
                raise PlatformError(f"the Billing Catalog could not be read to its end in {seconds:g} s")
            try:
                answer = http.get(
                    f"{url}/v1/services/{catalog.SERVICE}/skus",
                    params={"pageSize": PAGE, "currencyCode": "USD", **({"pageToken": page} if page else {})},
                    timeout=left,
                ).raise_for_status()
                body = answer.json()
                skus = TypeAdapter(list[catalog.Sku]).validate_python(body.get("skus", []))
                page = str(body.get("nextPageToken") or "")
            except httpx.HTTPStatusError as error:
                raise PlatformError(f"the Billing Catalog answered HTTP {error.response.status_code}") from None
            except (httpx.HTTPError, ValueError, AttributeError) as error:
                raise PlatformError(f"the Billing Catalog can't be read: {type(error).__name__}") from None
            found += catalog.found_in(skus)
            if not page:
                break
    if not found:
        raise PlatformError("the Billing Catalog has none of the SKUs that are looked for")
    _keep(found, datetime.now(UTC).date())
    return found


def _file(day: date) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "vllm-anywhere" / f"gcp-prices-{day}.json"


def _kept(day: date) -> list[catalog.Found] | None:
    try:
        return _FOUND.validate_json(_file(day).read_bytes())
    except (OSError, ValueError):
        return None


def _keep(found: list[catalog.Found], day: date) -> None:
    """A cache that can't be written is done without."""
    file = _file(day)
    new = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(_FOUND.dump_json(found))
        new.replace(file)
    except OSError:
        return
