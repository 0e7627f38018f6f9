"""Where platforms have machines, what a wanted region means on each of them, and whether data stays in the EEA.

`data/places.csv` holds one row a place, with its source: RunPod's data centres, the regions of GCP, Modal and Lambda
Cloud, and every country for Vast.ai, which names places by country code and whose rows also say which part of the
world a country is in. `within` is the platform's own broader region (`eu-west` within Modal's `eu`); `area` is the
smallest group that surely holds a place that spans countries.

What a word of `placement.regions` means, in any case of letters:

- A group. `eu` is the 27 member states; `eea` adds Iceland, Liechtenstein and Norway, where the GDPR is law too
  (https://www.efta.int/eea); `europe` is the continent. The United Kingdom and Switzerland are in `europe` alone: data
  may go there under adequacy decisions, which the Commission can withdraw, so neither counts for `placement.gdpr`.
  Territories with country codes of their own, such as Guadeloupe, belong to no group but their continent.
- A country code, on every platform. Modal's `sa`, `me` and `af` are also codes (Saudi Arabia, Montenegro,
  Afghanistan) and mean the countries; `south-america`, `middle-east` and `africa` mean those regions.
- A platform's own name or a zone of GCP: that place on that platform. So `eu` also takes Modal's `eu`, which Modal
  describes as the EEA: it has nothing narrower that stays in the EU.
- Any of these names with `*`: `europe-*`, `EU-*`. A pattern goes by name alone, and names mislead: `europe-*` takes
  London and Zurich, RunPod's `EUR-*` is Iceland and Norway, and its US-DE-1 is Delaware.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, lru_cache

from serving import NAMESPACE
from serving.offers import Offer
from serving.spec import Problem
from serving.tables import rows as rows_of

KEY = f"{NAMESPACE}:placement.regions"

# A group -> the wider groups that hold all of it.
_WIDER = {
    "eu": ("eea", "europe"),
    "eea": ("europe",),
    "europe": (),
    "asia": ("ap",),
    "oceania": ("ap",),
    "ap": (),
    "north-america": (),
    "central-america": (),
    "south-america": (),
    "middle-east": (),
    "africa": (),
}
_ISO = {"UK": "GB", "EL": "GR"}  # the names that the EU itself uses
_TITLES = {"runpod": "RunPod", "vastai": "Vast.ai", "gcp": "Google Cloud", "modal": "Modal", "lambda": "Lambda"}
# One machine of a marketplace stands where it stands; all else stands where the create call says.
_MARKETPLACES = frozenset({"vastai"})
# Pinning costs half as much again (https://modal.com/docs/guide/region-selection), so what is pinned is another offer.
_ANYWHERE = frozenset({"modal"})
_VOUCHED = {
    # https://docs.runpod.io/pods/overview
    "runpod": "RunPod runs Secure Cloud in tier 3 and 4 data centres",
    "vastai": "Vast.ai lists the host as a data centre's, in this country",
    "gcp": "a region of Google Cloud",
    "modal": "Modal keeps containers in the region they are pinned to",
    "lambda": "a region of Lambda Cloud",
}
# https://modal.com/docs/guide/region-selection: the default, and what its restrictions say of large payloads.
_MODAL_ROUTES = "requests pass through Virginia unless `routing_region` is `eu-west`, and those over 2 MiB always do"
_ZONE = re.compile(r"(.+\d)-(?:[a-z]|ai\d+[a-z])")
_GEOLOCATION = re.compile(r".*, ?([a-z]{2})")
_CACHED = 16_384


@dataclass(frozen=True, slots=True)
class Place:
    """One place that a platform lets people choose.

    Attributes:
        region: the platform's own name: a data centre id, a region, a country code.
        country: ISO 3166 alpha-2, "" when the place spans several.
        name: town, state or country, for people.
        url: where the platform, or who asked it, says so.
    """

    platform: str
    region: str
    country: str
    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Residence:
    """Where an offer would hold the data, and whether `placement.gdpr` lets it.

    Attributes:
        where: the place for people, with the platform's own name.
        evidence: what that rests on; "" when nothing does.
        why_not: why it is refused; "" when it is allowed.
    """

    allowed: bool
    where: str
    evidence: str
    why_not: str


def title(platform: str) -> str:
    """A platform's name for people."""
    return _TITLES.get(platform, platform)


def all_places(platform: str = "") -> tuple[Place, ...]:
    """Every place of one platform, or of all, in the file's order."""
    return tuple(row.place for row in _rows() if platform in ("", row.place.platform))


def place(platform: str, region: str) -> Place | None:
    """The place that `platform` calls `region`: GCP zones and Vast.ai's "Sweden, SE" are understood too."""
    row = _find(platform, region)
    return row.place if row else None


def in_eea(country: str) -> bool:
    """Whether a country (ISO 3166 alpha-2) is in the EU or is Iceland, Liechtenstein or Norway."""
    return "eea" in _words_of_country(country)


def regions_on(platform: str, wanted: Sequence[str]) -> tuple[str, ...]:
    """The platform's own names for the wanted places, in order of preference.

    A region inside another one that is already listed is left out, and a zone stands for its region. () when nothing
    is wanted, and also when the platform has no place there.
    """
    return _regions_on(platform, tuple(wanted))


@lru_cache(_CACHED)
def _regions_on(platform: str, wanted: tuple[str, ...]) -> tuple[str, ...]:
    chosen: dict[str, None] = {}
    for word in wanted:
        for row in _meant(platform, word):
            if row.within not in chosen:
                chosen.setdefault(row.place.region)
    return tuple(chosen)


def preference(platform: str, region: str, country: str, wanted: Sequence[str]) -> int | None:
    """The index into `wanted` of the first word that an offer there satisfies; None when there is none.

    Nothing wanted is satisfied by anything (0). An offer without region and country is rented wherever the create
    call says, so it satisfies what its platform has a place for; but Modal's is the one that runs anywhere, and
    satisfies nothing. A region that the file doesn't know counts by `country` alone.
    """
    return _preference(platform, region, country, tuple(wanted))


@lru_cache(_CACHED)
def _preference(platform: str, region: str, country: str, wanted: tuple[str, ...]) -> int | None:
    if not wanted:
        return 0
    return next((i for i, word in enumerate(wanted) if _satisfies(platform, region, country, word)), None)


def known(word: str) -> bool:
    """Whether a word of `placement.regions` means a place on any platform."""
    return any(_meant(platform, word) for platform in _platforms())


def suggestions(word: str) -> list[str]:
    """At most three words that work, nearest first: `Germany` gives `de`, `europe-west44` gives `europe-west4`."""
    wanted = word.strip().casefold()
    named = _names().get(wanted.replace("-", " ").replace("_", " "))
    if named:
        return [named]
    spelled = {key: key for key in _WIDER} | {row.place.region.casefold(): row.place.region for row in _rows()}
    if len(wanted) <= 2:  # any other code of two letters is as near as the next
        return []
    near = difflib.get_close_matches(wanted, [*spelled, *_names()], n=3, cutoff=0.7)
    return list(dict.fromkeys(spelled.get(key) or _names()[key] for key in near))


def unknown_regions(wanted: Sequence[str]) -> list[Problem]:
    """A problem for each word that means no place on any platform, with what would work."""
    return [Problem(KEY, word, _fix(word)) for word in wanted if not known(word)]


def residence(offer: Offer, wanted: Sequence[str]) -> Residence:
    """Where `offer` would hold the data when deployed with these `placement.regions`, and if `placement.gdpr` lets it.

    Allowed is a data-centre host (`tier: secure`) in the EEA, or the user's own machine. An offer without a place is
    allowed when all that `wanted` pins it to is in the EEA. On a marketplace that takes a price of the snapshot or the
    user's: what was asked live is one machine, and has to name its country.
    """
    dated = bool(offer.rates) and all(rate.source != "live" for rate in offer.rates)
    placed = (dated or offer.platform not in _MARKETPLACES) and offer.platform not in _ANYWHERE
    return _residence(offer.platform, offer.region, offer.country, offer.tier, offer.evidence, tuple(wanted), placed)


@lru_cache(_CACHED)
def _residence(
    platform: str, region: str, country: str, tier: str, evidence: str, wanted: tuple[str, ...], placed: bool
) -> Residence:
    """`placed`: without a region or country, it stands where the create call says."""
    if tier == "own":
        return Residence(True, "your own machine", "you run it", "")
    places = _where(platform, region, country, wanted if placed else ())
    if not places:
        where, why_not = _unplaced(platform, region, wanted, placed)
        return Residence(False, where, "", why_not)
    outside = [spot for spot in places if not spot.eea]
    why_not = ""
    if outside:
        why_not = f"not in the EU or EEA: {_listed(outside)}"
        if not region and not country:
            why_not += f"; {KEY} would have to name places there alone"
    elif tier != "secure":
        why_not = f"a {tier} host is not known to be in a data centre"
    elif platform == "modal":
        # https://modal.com/docs/guide/region-selection
        why_not = "Modal passes large requests through the USA, wherever the container is"
    return Residence(not why_not, _listed(places), _evidence(platform, tier, evidence, places), why_not)


@dataclass(frozen=True, slots=True)
class _Row:
    """A place with the words that mean it, in lower case."""

    place: Place
    within: str
    words: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where an offer is: for people, in the EEA or not, and by which source."""

    name: str
    label: str
    eea: bool
    url: str


@cache
def _table() -> tuple[dict[str, str], ...]:
    return tuple(rows_of("places.csv"))


@cache
def _rows() -> tuple[_Row, ...]:
    return tuple(_row(cells) for cells in _table())


def _row(cells: dict[str, str]) -> _Row:
    own, country = cells["region"].casefold(), cells["country"]
    words = _words_of_country(country) if country else _group(cells["area"])
    words |= {name for name in (own, cells["within"]) if name and name not in _countries()}
    found = Place(cells["platform"], cells["region"], country, cells["name"], cells["url"])
    return _Row(found, cells["within"], words)


@cache
def _countries() -> dict[str, str]:
    """Country code in lower case -> the group it is in."""
    return {cells["region"].casefold(): cells["area"] for cells in _table() if cells["platform"] == "vastai"}


def _group(area: str) -> frozenset[str]:
    return frozenset((area, *_WIDER[area]))


@cache
def _words_of_country(country: str) -> frozenset[str]:
    """All words that mean a country: its codes and its groups; none for what is no country."""
    code = _ISO.get(country.upper(), country.upper()).casefold()
    if code not in _countries():
        return frozenset()
    codes = {code, *(alias.casefold() for alias, iso in _ISO.items() if iso.casefold() == code)}
    return _group(_countries()[code]) | codes


@cache
def _platforms() -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.place.platform for row in _rows()))


@cache
def _by_region() -> dict[tuple[str, str], _Row]:
    return {(row.place.platform, row.place.region.casefold()): row for row in _rows()}


@lru_cache(_CACHED)
def _find(platform: str, region: str) -> _Row | None:
    name = region.strip().casefold()
    found = _by_region().get((platform, name))
    if found is None and platform == "gcp" and (zone := _ZONE.fullmatch(name)):
        found = _by_region().get((platform, zone[1]))
    if found is None and platform == "vastai":
        located = _GEOLOCATION.fullmatch(name)
        code = (located[1] if located else name).upper()
        found = _by_region().get((platform, _ISO.get(code, code).casefold()))
    return found


@lru_cache(_CACHED)
def _meant(platform: str, word: str) -> tuple[_Row, ...]:
    """The places of a platform that a word means, in the file's order."""
    word = word.strip().casefold()
    mine = (row for row in _rows() if row.place.platform == platform)
    if "*" in word:
        ends = ("", "-") if platform == "gcp" else ("",)  # `europe-west4-*` is every zone of one region
        return tuple(row for row in mine if any(fnmatchcase(row.place.region.casefold() + end, word) for end in ends))
    if _is_zone(platform, word) and (row := _find(platform, word)):
        return (row,)
    return tuple(row for row in mine if word in row.words)


def _is_zone(platform: str, name: str) -> bool:
    return platform == "gcp" and _ZONE.fullmatch(name.casefold()) is not None


def _satisfies(platform: str, region: str, country: str, word: str) -> bool:
    if not region and not country:
        return platform not in _ANYWHERE and bool(_meant(platform, word))
    row = _find(platform, region)
    if row is None:
        return word.strip().casefold() in _words_of_country(country)
    if _is_zone(platform, word) and _is_zone(platform, region):
        return word.casefold() == region.casefold()
    return row in _meant(platform, word)


@cache
def _names() -> dict[str, str]:
    """What people call a part of the world, a country or a town -> the word to write."""
    names = {group.replace("-", " "): group for group in _WIDER}
    names |= {found.name.casefold(): found.region.lower() for found in all_places("vastai")}
    for found in all_places():
        if found.country:
            names.setdefault(found.name.partition(",")[0].casefold(), found.region)
    return names


def _fix(word: str) -> str:
    near = suggestions(word)
    hint = f"; did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else "."
    return (
        f"no platform has a place of that name{hint} What works: {', '.join(_WIDER)}; a country code (`de`, `us`); "
        "a platform's own name (`EU-RO-1`, `europe-west4`), with `*` for several (`EU-*`)"
    )


def _where(platform: str, region: str, country: str, wanted: tuple[str, ...]) -> tuple[_Spot, ...]:
    """Every place an offer may end up in; none when it may be anywhere."""
    if row := _find(platform, region) or _find("vastai", country):
        return (_spot(platform, row, region),)
    if region or country:
        return ()
    rows = (_find(platform, name) for name in regions_on(platform, wanted))
    return tuple(_spot(platform, row, row.place.region) for row in rows if row)


def _spot(platform: str, row: _Row, region: str) -> _Spot:
    name, url = row.place.name, row.place.url if row.place.platform == platform else ""
    if platform == "vastai":
        town = region.rpartition(",")[0].strip()
        label = f"{town}, {name}" if town and town != name else name
    else:
        label = f"{name} ({region})" if region else name
    return _Spot(name, label, "eea" in row.words, url)


def _listed(places: Sequence[_Spot], most: int = 8) -> str:
    """Up to three places with the platform's names; of more, only the countries, up to `most`."""
    if len(places) <= 3:
        return ", ".join(spot.label for spot in places)
    names = list(dict.fromkeys(spot.name.rpartition(", ")[2] for spot in places))
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _unplaced(platform: str, region: str, wanted: tuple[str, ...], placed: bool) -> tuple[str, str]:
    """Where an offer is whose place is not known, and why that is refused."""
    name = title(platform)
    if region:
        return region, f"no source says in which country {name}'s {region} is"
    if platform in _ANYWHERE:
        return f"anywhere on {name}", f"{name} pins nothing without a region; with one it has its own price"
    if not placed:
        return "not known", f"{name} does not say in which country the host is"
    if wanted:
        return f"anywhere on {name}", f"{name} has no place that {KEY} names ({', '.join(wanted)})"
    return f"anywhere on {name}", f"nothing pins it to a place; set {KEY} to [eu]"


def _evidence(platform: str, tier: str, given: str, places: Sequence[_Spot]) -> str:
    """What vouches for a place: the offer's own evidence, or what the platform publishes."""
    region = f"a region of {title(platform)}"
    said = _VOUCHED.get(platform, region) if tier == "secure" else f"{title(platform)} says so of the host"
    sources = ", ".join(dict.fromkeys(spot.url for spot in places if spot.url))
    evidence = given or (f"{said} ({sources})" if said and sources else said)
    return f"{evidence}; {_MODAL_ROUTES}" if platform == "modal" else evidence
