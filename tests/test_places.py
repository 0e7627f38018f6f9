"""What a wanted region means on each platform, and which offers `placement.gdpr` keeps."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serving.offers import Offer, Rate, Tier
from serving.places import (
    Place,
    all_places,
    in_eea,
    known,
    place,
    preference,
    regions_on,
    residence,
    suggestions,
    unknown_regions,
)
from serving.prices import snapshot
from serving.snapshot import snapshot_offers
from serving.spec import PlacementSpec

PLATFORMS = ("runpod", "vastai", "gcp", "modal", "lambda")
EU = {
    *("AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT", "LT", "LU", "LV"),
    *("MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK"),
}
EEA = EU | {"IS", "LI", "NO"}
GROUPS = (
    *("eu", "eea", "europe", "asia", "oceania", "ap", "north-america", "central-america", "south-america"),
    *("middle-east", "africa", "uk", "us", "de", "jp"),
)
WORDS = st.sampled_from(
    [*GROUPS, "EU-*", "europe-*", "*", "nowhere", "europe-west4-a", *(p.region for p in all_places())]
)


def offer(platform: str, region: str = "", country: str = "", tier: Tier = "secure", evidence: str = "") -> Offer:
    return Offer(
        platform=platform,
        kind="pod",
        sku="card",
        gpu="L4",
        gpu_count=1,
        region=region,
        country=country,
        tier=tier,
        spot=False,
        rates=(),
        evidence=evidence,
    )


@pytest.mark.parametrize(
    ("platform", "word", "expected"),
    [
        ("runpod", "eu", ("EU-CZ-1", "EU-DK-1", "EU-FR-1", "EU-NL-1", "EU-RO-1", "EU-SE-1", "EU-SE-2")),
        ("runpod", "ca", ("CA-MTL-1", "CA-MTL-2", "CA-MTL-3", "CA-MTL-4")),
        ("runpod", "asia", ("AP-IN-1", "AP-IN-2", "AP-JP-1", "SEA-SG-1")),
        ("runpod", "oceania", ("OC-AU-1",)),
        ("runpod", "no", ("EUR-NO-1", "EUR-NO-2")),
        ("runpod", "uk", ()),
        ("vastai", "uk", ("GB",)),
        ("vastai", "north-america", ("BM", "CA", "GL", "MX", "PM", "US")),
        ("gcp", "uk", ("europe-west2",)),
        ("gcp", "de", ("europe-west3", "europe-west10")),
        ("gcp", "middle-east", ("me-central1", "me-central2", "me-west1")),
        ("gcp", "south-america", ("southamerica-east1", "southamerica-west1")),
        ("gcp", "africa", ("africa-south1",)),
        ("modal", "eu", ("eu",)),
        ("modal", "eea", ("eu",)),
        ("modal", "europe", ("eu", "uk")),
        ("modal", "us", ("us",)),
        ("modal", "ap", ("ap",)),
        ("modal", "asia", ("jp",)),
        ("modal", "south-america", ("sa",)),
        ("modal", "middle-east", ("me",)),
        ("modal", "africa", ("af",)),
        ("lambda", "eu", ("europe-central-1",)),
        ("lambda", "ap", ("asia-northeast-1", "asia-northeast-2", "asia-south-1", "australia-east-1")),
    ],
)
def test_a_group_or_country_is_each_platforms_own_names(platform: str, word: str, expected: tuple[str, ...]) -> None:
    assert regions_on(platform, [word]) == expected


def test_vastai_takes_the_country_codes_of_the_eu() -> None:
    assert len(EU) == 27
    assert set(regions_on("vastai", ["eu"])) == EU


def test_the_eea_adds_three_countries_to_the_eu_and_neither_the_uk_nor_switzerland() -> None:
    assert set(regions_on("vastai", ["eea"])) == EEA
    assert all(map(in_eea, [*EEA, "is"]))
    assert not any(map(in_eea, ["GB", "UK", "CH", "US", "GP", "", "XX", "eu"]))


def test_runpods_prefix_eur_is_outside_the_eu() -> None:
    eur = regions_on("runpod", ["EUR-*"])
    assert {place("runpod", name).country for name in eur} == {"IS", "NO"}  # pyright: ignore[reportOptionalMemberAccess]
    assert not set(eur) & set(regions_on("runpod", ["eu"]))
    assert set(eur) < set(regions_on("runpod", ["eea"]))


def test_states_are_not_taken_for_countries() -> None:
    # Delaware is not Germany, California not Canada, Georgia not Georgia.
    assert regions_on("runpod", ["de"]) == () == regions_on("runpod", ["ge"])
    assert "US-CA-2" not in regions_on("runpod", ["ca"])


def test_a_country_code_means_the_country_where_modal_has_a_region_of_that_name() -> None:
    assert regions_on("modal", ["sa", "me", "af"]) == ()
    assert regions_on("gcp", ["sa"]) == ("me-central2",)
    assert place("modal", "sa").name == "South America"  # pyright: ignore[reportOptionalMemberAccess]


def test_modal_promises_no_single_eu_country() -> None:
    assert regions_on("modal", ["de", "fr"]) == ()
    assert preference("modal", "", "", ["de"]) is None
    assert preference("modal", "eu", "", ["de"]) is None


def test_a_platforms_own_name_is_a_place_on_that_platform_alone() -> None:
    assert regions_on("runpod", ["EU-RO-1"]) == ("EU-RO-1",)
    assert [platform for platform in PLATFORMS if regions_on(platform, ["EU-RO-1"])] == ["runpod"]
    assert [platform for platform in PLATFORMS if regions_on(platform, ["us-east-1"])] == ["lambda"]


def test_names_are_understood_in_any_case_of_letters() -> None:
    assert regions_on("runpod", ["eu-ro-1"]) == ("EU-RO-1",)
    assert regions_on("gcp", ["EU"]) == regions_on("gcp", ["eu"])
    assert place("gcp", "EUROPE-WEST4") == place("gcp", "europe-west4")


def test_a_wildcard_goes_by_name_so_it_takes_london_and_zurich_too() -> None:
    names = regions_on("gcp", ["europe-*"])
    assert {"europe-west2", "europe-west6", "europe-west4"} <= set(names)
    assert all(name.startswith("europe-") for name in names)
    assert regions_on("runpod", ["EU-*"]) == regions_on("runpod", ["eu"])
    assert regions_on("gcp", ["europe-west4-*"]) == ("europe-west4",)
    assert regions_on("modal", ["EU-*"]) == ("eu-west", "eu-north", "eu-south")


def test_a_zone_resolves_to_its_region() -> None:
    found = place("gcp", "europe-west4-a")
    assert found == place("gcp", "europe-west4")
    assert found is not None and found.country == "NL"
    assert regions_on("gcp", ["europe-west4-b"]) == ("europe-west4",)
    assert place("gcp", "us-central1-ai1a") == place("gcp", "us-central1")
    assert place("gcp", "europe-west99-a") is None


def test_a_wanted_zone_takes_no_offer_of_another_zone() -> None:
    assert preference("gcp", "europe-west4-a", "NL", ["europe-west4-a"]) == 0
    assert preference("gcp", "europe-west4-b", "NL", ["europe-west4-a"]) is None
    assert preference("gcp", "europe-west4-b", "NL", ["europe-west4"]) == 0
    assert preference("gcp", "europe-west4", "NL", ["europe-west4-a"]) == 0


@pytest.mark.parametrize("said", ["SE", "Sweden, SE", "Stockholm County, SE", "se"])
def test_vastais_geolocation_resolves_to_its_country(said: str) -> None:
    found = place("vastai", said)
    assert found is not None and (found.country, found.name) == ("SE", "Sweden")


def test_vastais_geolocation_without_a_town_is_understood_and_without_a_country_is_not() -> None:
    assert place("vastai", ", US") == place("vastai", "US")
    assert place("vastai", "") is None
    assert place("vastai", "Sweden") is None


def test_every_place_has_a_source_a_name_and_a_country_that_exists() -> None:
    countries = {found.country for found in all_places("vastai")}
    for found in all_places():
        assert found.url.startswith("https://"), found
        assert found.name and found.region, found
        assert found.country in countries or found.platform == "modal", found
    assert {found.platform for found in all_places()} >= set(PLATFORMS)
    assert len({(found.platform, found.region.lower()) for found in all_places()}) == len(all_places())


def test_every_place_is_found_and_known_by_its_own_name() -> None:
    for found in all_places():
        assert place(found.platform, found.region) == found
        assert known(found.region)
    assert place("runpod", "EU-XX-9") is None
    assert all_places("none") == ()


def test_preference_is_the_first_word_that_is_satisfied() -> None:
    assert preference("runpod", "EU-RO-1", "RO", ["EU-CZ-1", "ro", "eu"]) == 1
    assert preference("runpod", "EUR-IS-1", "IS", ["eu", "eea"]) == 1
    assert preference("runpod", "US-KS-2", "US", ["eu"]) is None
    assert preference("runpod", "US-KS-2", "US", []) == 0
    assert preference("modal", "eu-west", "", ["us", "eu"]) == 1


def test_an_offer_of_a_whole_platform_satisfies_what_the_platform_has_a_place_for() -> None:
    assert preference("runpod", "", "", ["uk", "eu"]) == 1
    assert preference("gcp", "", "", ["eu"]) == 0
    assert preference("lambda", "", "", ["uk", "fr"]) is None


def test_a_region_that_the_file_does_not_know_counts_by_its_country() -> None:
    assert preference("runpod", "EU-PL-1", "PL", ["eu"]) == 0
    assert preference("runpod", "EU-PL-1", "", ["eu"]) is None
    assert preference("vastai", "", "GB", ["eu", "uk"]) == 1


def test_wanted_regions_keep_their_order_without_duplicates() -> None:
    assert regions_on("runpod", ["EU-SE-1", "ro", "eu"])[:3] == ("EU-SE-1", "EU-RO-1", "EU-CZ-1")
    assert len(regions_on("runpod", ["eu", "EU-*", "eea"])) == len(regions_on("runpod", ["eea"]))
    assert regions_on("gcp", []) == ()


def test_a_narrow_region_is_left_out_after_the_broad_one_and_kept_before_it() -> None:
    assert regions_on("modal", ["eu", "eu-west"]) == ("eu",)
    assert regions_on("modal", ["eu-west", "eu"]) == ("eu-west", "eu")


@given(st.sampled_from(PLATFORMS), st.lists(WORDS, max_size=5))
def test_regions_are_the_platforms_own_and_in_the_order_of_the_words(platform: str, wanted: list[str]) -> None:
    names = regions_on(platform, wanted)
    assert set(names) <= {found.region for found in all_places(platform)}
    assert len(set(names)) == len(names)
    ranks = [preference(platform, name, "", wanted) for name in names]
    assert None not in ranks
    assert ranks == sorted(ranks)  # pyright: ignore[reportArgumentType]


@given(st.sampled_from([found for found in all_places() if found.platform != "modal"]), WORDS)
def test_an_offer_satisfies_a_word_exactly_when_the_word_names_its_place(found: Place, word: str) -> None:
    named = found.region in regions_on(found.platform, [word])
    assert (preference(found.platform, found.region, found.country, [word]) == 0) == named


@pytest.mark.parametrize("word", [*GROUPS, "EU", "EU-RO-1", "europe-west4-a", "europe-*", "EU-*", "eu-west", "pt"])
def test_what_means_a_place_somewhere_is_known(word: str) -> None:
    assert known(word)
    assert unknown_regions([word]) == []
    assert PlacementSpec(regions=(word,)).regions == (word,)


def test_an_unknown_region_is_told_with_what_would_work() -> None:
    problems = unknown_regions(["eu", "Germany", "europe-west44", "nowhere-*", "xx"])
    assert [problem.value for problem in problems] == ["Germany", "europe-west44", "nowhere-*", "xx"]
    assert {problem.key for problem in problems} == {"vllm-anywhere:placement.regions"}
    assert "did you mean `de`?" in problems[0].fix
    assert "`europe-west4`" in problems[1].fix
    assert all("eea" in problem.fix and "`EU-RO-1`" in problem.fix for problem in problems)


@pytest.mark.parametrize(
    ("word", "first"),
    [
        ("germany", "de"),
        ("Czechia", "cz"),
        ("frankfurt", "europe-west3"),
        ("south-korea", "kr"),
        ("EU-RO-7", "EU-RO-1"),
        ("middle_east", "middle-east"),
        ("Georgia", "ge"),
    ],
)
def test_suggestions_know_what_people_call_a_place(word: str, first: str) -> None:
    found = suggestions(word)
    assert found[0] == first
    assert all(map(known, found))


@given(st.text(max_size=40), st.text(max_size=40), st.sampled_from(PLATFORMS))
@example("*a" * 20, "a" * 40, "gcp")
def test_no_text_breaks_or_stalls_a_look_up(word: str, region: str, platform: str) -> None:
    assert (preference(platform, region, "", [word]) == 0) <= known(word)
    assert residence(offer(platform, region), [word]).allowed <= bool(
        place(platform, region) or regions_on(platform, [word])
    )


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz*-0123456789", min_size=1, max_size=20))
def test_every_suggestion_works(word: str) -> None:
    assert all(map(known, suggestions(word)))


@pytest.mark.parametrize(
    ("refused", "because"),
    [
        (offer("vastai", "Sweden, SE", "SE", "community"), "community host"),
        (offer("runpod", "EU-RO-1", "RO", "community"), "community host"),
        (offer("runpod", "US-KS-2", "US"), "Kansas"),
        (offer("gcp", "europe-west2-a", "GB"), "London"),
        (offer("gcp", "europe-west6", "CH"), "Zurich"),
        (offer("vastai", "Texas, US", "US"), "Texas, United States"),
        (offer("vastai"), "in which country"),
        (offer("runpod", "EU-XX-1"), "EU-XX-1"),
        (offer("modal", "us"), "United States"),
        (offer("modal", "ap"), "Asia-Pacific"),
        (offer("modal", "eu"), "passes large requests through the USA"),
    ],
)
def test_gdpr_refuses_what_is_not_a_data_centre_in_the_eea(refused: Offer, because: str) -> None:
    found = residence(refused, ["eu"])
    assert not found.allowed
    assert because in found.why_not


@pytest.mark.parametrize(
    ("kept", "where"),
    [
        (offer("runpod", "EU-RO-1", "RO"), "Romania (EU-RO-1)"),
        (offer("runpod", "EUR-IS-1", "IS"), "Iceland (EUR-IS-1)"),
        (offer("runpod", "", "RO"), "Romania"),
        (offer("vastai", "Bavaria, DE", "DE"), "Bavaria, Germany"),
        (offer("vastai", "Sweden, SE", "SE"), "Sweden"),
        (offer("vastai", "", "NO"), "Norway"),
        (offer("gcp", "europe-west4-a", "NL"), "Eemshaven, Netherlands (europe-west4-a)"),
        (offer("lambda", "europe-central-1"), "Germany (europe-central-1)"),
    ],
)
def test_gdpr_keeps_a_data_centre_in_the_eea_and_says_where_and_why(kept: Offer, where: str) -> None:
    found = residence(kept, ["eu"])
    assert found.allowed and not found.why_not
    assert found.where == where
    assert found.evidence


def test_gdpr_keeps_an_offer_without_a_place_only_when_all_it_is_pinned_to_is_in_the_eea() -> None:
    everywhere = offer("runpod")
    assert residence(everywhere, ["EU-RO-1", "EU-CZ-1"]).where == "Romania (EU-RO-1), Czechia (EU-CZ-1)"
    assert residence(everywhere, ["eu"]).where == "Czechia, Denmark, France, Netherlands, Romania, Sweden"
    assert residence(everywhere, ["eu"]).allowed
    assert "[eu]" in residence(everywhere, []).why_not
    assert "United States" in residence(everywhere, ["eu", "us"]).why_not
    assert "(uk)" in residence(everywhere, ["uk"]).why_not


def test_a_marketplace_price_is_pinned_by_the_search_and_a_machine_asked_live_names_its_country() -> None:
    dated = Rate("GPU", "Hours", Decimal(1), "snapshot", "https://vast.ai", date(2026, 11, 1))
    market = replace(offer("vastai"), rates=(dated,))
    assert residence(market, ["de", "fr"]).where == "Germany, France"
    assert residence(market, ["eu"]).allowed
    assert not residence(market, ["eu", "us"]).allowed
    assert not residence(market, []).allowed
    assert not residence(replace(market, tier="community"), ["eu"]).allowed
    assert not residence(replace(market, rates=(dated, replace(dated, source="live"))), ["eu"]).allowed


def test_every_place_that_the_snapshot_prices_is_known_with_the_same_country() -> None:
    placed = [found for found in snapshot_offers(snapshot()) if found.region]
    assert {found.platform for found in placed} >= {"gcp", "modal"}
    for found in placed:
        known_as = place(found.platform, found.region)
        assert known_as is not None, found.region
        assert found.country in ("", known_as.country), found.region


def test_the_snapshot_has_offers_that_gdpr_keeps_on_every_platform() -> None:
    kept = {found.platform for found in snapshot_offers(snapshot()) if residence(found, ["eu"]).allowed}
    assert kept >= {"runpod", "vastai", "gcp"} and "modal" not in kept


def test_modal_keeps_no_promise_of_the_gdpr_kind_and_says_what_passes_through_virginia() -> None:
    loose = residence(offer("modal"), ["eu"])
    assert not loose.allowed and "without a region" in loose.why_not
    assert preference("modal", "", "", ["eu"]) is None
    assert preference("modal", "", "", []) == 0
    pinned = residence(offer("modal", "eu"), ["eu"])
    assert not pinned.allowed and "through the USA" in pinned.why_not
    assert "Virginia" in pinned.evidence and "routing_region" in pinned.evidence
    assert "Virginia" in residence(offer("modal", "eu", evidence="contract"), []).evidence


def test_an_offers_own_evidence_is_shown_instead_of_the_platforms() -> None:
    assert residence(offer("vastai", "", "DE", evidence="ISO 27001 of 2026-03"), []).evidence == "ISO 27001 of 2026-03"
    assert "data centre" not in residence(offer("vastai", "", "DE", "community"), []).evidence


def test_the_users_own_machine_is_where_the_user_keeps_it() -> None:
    assert residence(offer("local", tier="own"), ["eu"]).allowed


@given(
    st.sampled_from(all_places()),
    st.sampled_from(get_args(Tier)),
    st.lists(st.sampled_from(["eu", "us", "uk", "europe-*", "*"]), max_size=3),
)
def test_gdpr_keeps_of_rented_hosts_only_data_centres_in_the_eea(found: Place, tier: Tier, wanted: list[str]) -> None:
    judged = residence(offer(found.platform, found.region, found.country, tier), wanted)
    inside = in_eea(found.country) or found.name.endswith("European Economic Area")
    kept = tier == "secure" and inside and found.platform != "modal"
    assert judged.allowed == (tier == "own" or kept)
    assert judged.allowed != bool(judged.why_not)
