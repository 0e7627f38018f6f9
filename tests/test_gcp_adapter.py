"""The spec on Google Cloud, as data. Prices are the dated ones; nobody was asked."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from providers.base import HF_TOKEN, KEY, PREVIOUS_KEY, SUFFIX, Ask, Declaration, Declared, Ref, Text
from providers.gcp.adapter import ADAPTER
from providers.gcp.machines import region_of, zones_for, zones_with
from providers.gcp.options import GcpOptions
from providers.gcp.pricing import GcpMarket
from providers.gcp.quotas import Quota, Quotas
from providers.gcp.resources import Name, slug_of
from providers.market import dated
from providers.replicas import replicas, resources
from serving.config import parse_part, parse_spec
from serving.cost import assumptions_for, estimate
from serving.models import model
from serving.offers import Offer
from serving.spec import DeploymentSpec, SpecError

SHAPE = model("Qwen/Qwen3-4B-Instruct-2507")


def ask(options: dict[str, Any] | None = None, quotas: Quotas | None = None, **spec: Any) -> Ask:
    given = DeploymentSpec.model_validate({"provider": "gcp", **spec})
    offers = dated("gcp", given.hardware.gpu_count)
    return Ask(given, parse_part(GcpOptions, options or {}, "gcp"), GcpMarket(offers, (), SHAPE, quotas or Quotas()))


def declared(asked: Ask) -> Declared:
    assert ADAPTER.unsupported(asked) == []
    return ADAPTER.resources(asked, ADAPTER.offers(asked)[0])


def named(asked: Ask, name: str = "server") -> Declaration:
    return next(d for d in declared(asked).resources if d.name == name)


def keys(asked: Ask) -> set[str]:
    return {reason.key for reason in ADAPTER.unsupported(asked)}


T4 = {"gpus": ["T4"]}
L4 = {"gpus": ["L4"]}


def test_a_spec_of_nothing_but_the_provider_is_served() -> None:
    got = declared(ask())
    assert got.endpoint == Text("https://{}:8000/v1", (Ref("address", "address"),))
    assert got.ca == Ref("tls", "caPem")
    assert [d.type for d in got.resources][:2] == ["vllm-anywhere:gcp:Name", "gcp:compute/address:Address"]
    assert [d.type for d in got.resources][-2:] == ["gcp:compute/instance:Instance", "vllm-anywhere:gcp:Run"]


def test_everything_a_resource_refers_to_comes_before_it() -> None:
    for options in ({}, {"ha": "mig"}, {"enable_apis": True, "ssh": True}, {"hostname": "llm.example.org"}):
        seen = {KEY.resource}
        for one in declared(ask(options, hardware=T4)).resources:
            assert {ref.resource for ref in refs(one.inputs)} | set(one.depends_on) <= seen, one.name
            seen.add(one.name)


def refs(value: Any) -> Iterator[Ref]:
    match value:
        case Ref():
            yield value
        case Text():
            yield from (part for part in value.values if isinstance(part, Ref))
        case Mapping():
            for item in value.values():
                yield from refs(item)
        case list() | tuple():
            for item in value:
                yield from refs(item)
        case _:
            pass


def test_a_t4_is_attached_to_an_n1_and_runs_in_half_precision() -> None:
    inputs = named(ask(hardware=T4)).inputs
    assert inputs["machine_type"] == "n1-standard-4"
    assert inputs["guest_accelerators"] == [{"type": "nvidia-tesla-t4", "count": 1}]
    assert "--dtype half" in inputs["metadata_startup_script"].template


def test_an_l4_comes_with_its_machine_and_is_not_attached() -> None:
    inputs = named(ask(hardware=L4)).inputs
    assert inputs["machine_type"] == "g2-standard-4"
    assert "guest_accelerators" not in inputs
    assert "--dtype auto" in inputs["metadata_startup_script"].template


@pytest.mark.parametrize(
    ("spot", "block"),
    [
        (
            False,
            {
                "on_host_maintenance": "TERMINATE",
                "automatic_restart": True,
                "provisioning_model": "STANDARD",
                "preemptible": False,
            },
        ),
        (
            True,
            {
                "on_host_maintenance": "TERMINATE",
                "automatic_restart": False,
                "provisioning_model": "SPOT",
                "preemptible": True,
                "instance_termination_action": "STOP",
            },
        ),
    ],
)
def test_the_scheduling_block_is_always_whole(spot: bool, block: dict[str, Any]) -> None:
    assert named(ask(hardware={**T4, "spot": spot})).inputs["scheduling"] == block


def test_the_old_vm_goes_first_and_the_name_stays() -> None:
    server = named(ask(hardware=T4))
    assert server.delete_before_replace
    assert server.inputs["name"] == Text("{}{}", (Ref("name", "slug"), SUFFIX))
    assert server.inputs["allow_stopping_for_update"] is True
    assert server.inputs["desired_status"] == "RUNNING"


def test_several_vms_have_an_address_a_certificate_and_a_secret_for_its_key_each_by_one_authority() -> None:
    asked = ask(hardware=T4, scaling={"min": 2})
    plan = ADAPTER.resources(asked, ADAPTER.offers(asked)[0])
    servers = replicas(plan, 2)
    every = {one.name: one for one in resources(plan, servers)}
    slug = Ref("name", "slug")
    assert every["server"].inputs["name"] == every["address"].inputs["name"] == Text("{}{}", (slug, ""))
    assert every["server-2"].inputs["name"] == every["address-2"].inputs["name"] == Text("{}{}", (slug, "-2"))
    assert every["tls-key-secret-2"].inputs["secret_id"] == Text("{}-tls-key{}", (slug, "-2"))
    assert every["tls-2"].inputs == {
        **every["tls"].inputs,
        "hosts": [Ref("address-2", "address")],
        "authorityPem": Ref("tls", "caPem"),
        "authorityKeyPem": Ref("tls", "caKeyPem"),
    }
    assert set(refs(every["server-2"].inputs)) >= {Ref("tls-2", "certPem"), Ref("api-key-secret", "id")}
    assert every["server-2"].inputs["tags"] == [slug]
    assert "tls-key-secret-reader-2" in every["server-2"].depends_on
    assert servers[1].endpoint == Text("https://{}:8000/v1", (Ref("address-2", "address"),))
    single = ask(hardware=T4)
    alone = ADAPTER.resources(single, ADAPTER.offers(single)[0])
    assert [every[one.name] for one in alone.resources] == list(resources(alone, replicas(alone, 1)))


def test_the_account_may_read_its_own_secrets_and_write_its_log_and_nothing_else() -> None:
    roles = {d.name: (d.type, d.inputs["role"]) for d in declared(ask()).resources if "role" in d.inputs}
    reader = ("gcp:secretmanager/secretIamMember:SecretIamMember", "roles/secretmanager.secretAccessor")
    assert roles == {
        "api-key-secret-reader": reader,
        "tls-key-secret-reader": reader,
        "log-writer": ("gcp:projects/iAMMember:IAMMember", "roles/logging.logWriter"),
    }
    assert set(roles) <= set(named(ask(hardware={**T4, "spot": True})).depends_on)


def test_no_secret_is_among_what_anybody_may_read_of_the_vm() -> None:
    server = named(ask())
    secret = {KEY, PREVIOUS_KEY, Ref("tls", "keyPem"), Ref("tls", "caKeyPem")}
    assert not secret & set(refs(server.inputs))
    stored = named(ask(), "api-key-secret-version")
    assert set(refs(stored.inputs["secret_data"])) == {KEY, PREVIOUS_KEY}
    # The newest version is read again and again: another one changes nothing of the VM.
    assert Ref("api-key-secret", "id") in set(refs(server.inputs))
    assert Ref("api-key-secret-version", "name") not in set(refs(server.inputs))
    assert "api-key-secret-version" in server.depends_on


def test_a_hugging_face_token_is_a_secret_of_its_own_and_only_where_there_is_one() -> None:
    asked = replace(ask(), secrets=frozenset({"hf_token"}))
    assert named(asked, "hf-token-secret-version").inputs["secret_data"] == HF_TOKEN
    assert Ref("hf-token-secret-version", "name") in set(refs(named(asked).inputs))
    assert "HF_TOKEN={" in named(asked).inputs["metadata_startup_script"].template
    assert "hf-token-secret-reader" in named(asked).depends_on
    assert not [d for d in declared(ask()).resources if d.name.startswith("hf-token")]


def test_what_means_that_the_server_was_started_anew_is_what_ready_waits_for() -> None:
    got = declared(ask(hardware=T4))
    assert {ref.resource for ref in refs(got.run)} == {"run"}
    run = named(ask({"machine_type": "n1-standard-8"}, hardware=T4), "run")
    assert run.inputs["machineType"] == "n1-standard-8"
    assert {ref.resource for ref in refs(run.inputs)} == {"server"}


def test_that_the_t4_may_lose_its_support_is_told_as_unconfirmed() -> None:
    (note,) = [note for note in declared(ask(hardware=T4)).notes if "2027" in note]
    assert "Unconfirmed" in note and '"Google ends T4 support on 2027-08-01"' in note
    assert not [note for note in declared(ask(hardware=L4)).notes if "2027" in note]


def test_the_firewall_lets_in_the_allow_list_alone() -> None:
    asked = ask({"allow": ["203.0.113.0/24"], "ssh": True})
    assert named(asked, "firewall-clients").inputs["source_ranges"] == ["203.0.113.0/24"]
    assert named(asked, "firewall-clients").inputs["allows"] == [{"protocol": "tcp", "ports": ["8000"]}]
    assert named(asked, "firewall-ssh").inputs["source_ranges"] == ["35.235.240.0/20"]
    assert not any("Anybody may try" in note for note in declared(asked).notes)
    assert any("Anybody may try" in note for note in declared(ask()).notes)


def test_a_hostname_brings_caddy_and_no_certificate_of_our_own() -> None:
    asked = ask({"hostname": "llm.example.org"})
    got = declared(asked)
    assert got.endpoint == Text("https://llm.example.org/v1", ())
    assert got.ca is None
    assert "tls" not in {d.name for d in got.resources}
    assert named(asked, "firewall-clients").inputs["allows"][0]["ports"] == ["80", "443"]
    script = named(asked).inputs["metadata_startup_script"].template
    assert "llm.example.org {{" in script
    assert "PUBLISH=127.0.0.1:8000:8000" in script


def test_plain_http_has_to_be_asked_for_and_is_named_a_risk() -> None:
    got = declared(ask({"plain_http": True}))
    assert got.endpoint == Text("http://{}:8000/v1", (Ref("address", "address"),))
    assert any("can be read and changed by everybody" in note for note in got.notes)


def test_a_group_never_has_two_vms_and_may_use_every_zone() -> None:
    asked = ask({"ha": "mig"}, hardware=T4, placement={"regions": ["europe-west4"]})
    group = named(asked).inputs
    assert group["target_size"] == 1
    assert group["update_policy"]["max_surge_fixed"] == 0
    zones = group["distribution_policy_zones"]
    assert zones == ["europe-west4-a", "europe-west4-b", "europe-west4-c"]
    # Google refuses a smaller number for a regional group.
    assert group["update_policy"]["max_unavailable_fixed"] == len(zones)
    assert named(asked, "health").inputs["https_health_check"] == {"port": 8000, "request_path": "/health"}
    assert named(asked, "firewall-probers").inputs["source_ranges"] == ["35.191.0.0/16", "130.211.0.0/22"]
    assert declared(asked).run == Ref("template", "self_link_unique")


def test_zones_keep_the_users_order_and_their_region_chooses_the_offer() -> None:
    asked = ask({"zones": ["europe-west1-d", "europe-west1-b"]}, hardware=T4)
    assert ADAPTER.offers(asked)[0].region == "europe-west1"
    assert zones_for("T4", "europe-west1", asked.options.zones) == ("europe-west1-d", "europe-west1-b")


def test_zones_of_two_regions_are_refused_because_of_the_address() -> None:
    assert keys(ask({"zones": ["europe-west1-d", "europe-west4-a"]})) == {"gcp.zones"}


def test_a_zone_without_the_gpu_is_refused_and_those_with_it_are_named() -> None:
    reasons = ADAPTER.unsupported(ask({"zones": ["europe-west6-b"]}, hardware=T4, placement={"regions": []}))
    assert [reason.key for reason in reasons] == ["gcp.zones"]
    assert "europe-west4-a" in reasons[0].text


def test_a_zone_that_google_names_is_taken_though_the_table_lacks_it_and_the_other_is_named_as_left_out() -> None:
    asked = ask({"zones": ["europe-west4-a", "europe-west4-z"]}, hardware=T4)
    assert any("Left out" in note and "europe-west4-z" in note for note in declared(asked).notes)
    market = replace(asked.market, zones={"nvidia-tesla-t4": frozenset({"europe-west4-z"})})
    live = replace(asked, market=market)
    assert named(live).inputs["zone"] == "europe-west4-z"
    assert any("Left out" in note and "europe-west4-a" in note for note in declared(live).notes)


def test_zones_that_nobody_named_are_those_of_the_table_whatever_google_says_today() -> None:
    asked = ask(hardware=T4, placement={"regions": ["europe-west4"]})
    live = replace(asked, market=replace(asked.market, zones={"nvidia-tesla-t4": frozenset({"europe-west4-z"})}))
    assert declared(live).resources == declared(asked).resources


def test_a_region_without_the_gpu_names_those_that_have_it() -> None:
    reasons = ADAPTER.unsupported(ask(hardware=T4, placement={"regions": ["europe-north1"]}))
    assert [reason.key for reason in reasons] == ["placement.regions"]
    assert "europe-west4" in reasons[0].text


def test_a_machine_that_does_not_carry_the_gpu_is_refused() -> None:
    reasons = ADAPTER.unsupported(ask({"machine_type": "g2-standard-4"}, hardware=T4))
    assert [reason.key for reason in reasons] == ["gcp.machine_type"]
    assert "has no such GPU" in reasons[0].text and "n1-standard-4 (T4)" in reasons[0].text


def test_a_machine_of_unknown_price_is_not_said_to_lack_the_gpu() -> None:
    (reason,) = ADAPTER.unsupported(ask({"machine_type": "n1-standard-32"}, hardware=T4))
    assert reason.key == "gcp.machine_type" and "known prices" in reason.text


def test_a_larger_machine_can_be_had_for_the_same_gpu_and_is_priced_by_its_cores() -> None:
    (offer, *_) = ADAPTER.offers(ask({"machine_type": "n1-standard-16"}, hardware=T4))
    quantities = {rate.meter: rate.quantity for rate in offer.rates}
    assert (quantities["GPU"], quantities["vCPU"], quantities["memory"]) == (1, 16, 60)


def test_a_number_of_gpus_that_no_machine_has_names_those_that_work() -> None:
    (reason,) = ADAPTER.unsupported(ask(hardware={"gpus": ["T4"], "gpu_count": 3}))
    assert (reason.key, reason.text.rpartition("; ")[2]) == ("hardware.gpu_count", "1, 2, 4 work")


def test_a_disk_that_is_too_small_is_told_once_and_by_what_a_vm_needs() -> None:
    (reason,) = ADAPTER.unsupported(ask(hardware={"gpus": ["T4"], "disk_gb": 30}))
    assert reason.key == "hardware.disk_gb" and reason.text.startswith("60 GB or more")


@pytest.mark.parametrize(
    ("key", "options", "spec"),
    [
        ("gcp.ha", {"ha": "mig"}, {"scaling": {"min": 2}}),
        ("gcp.hostname", {"hostname": "llm.example.org"}, {"scaling": {"min": 2}}),
        ("scaling.min", {}, {"scaling": {"min": 0, "max": 1}}),
        ("gcp.committed_use_discount", {"committed_use_discount": 0.37}, {"hardware": {**T4, "spot": True}}),
        ("hardware.disk_gb", {}, {"hardware": {**T4, "disk_gb": 55}}),
        ("hardware.gpus", {}, {"hardware": {"gpus": ["RTX 4090"]}}),
        ("hardware.gpus", {}, {"hardware": {"gpus": ["no such card"]}}),
        ("model.dtype", {}, {"hardware": T4, "model": {"dtype": "bfloat16"}}),
        ("engine.extra_args", {}, {"engine": {"extra_args": ["--port=1"]}}),
    ],
)
def test_what_can_not_work_is_told_against_its_key(key: str, options: dict[str, Any], spec: dict[str, Any]) -> None:
    assert key in keys(ask(options, **spec))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("zones", ["europe-west4"]),
        ("allow", ["everybody"]),
        ("allow", []),
        ("hostname", "203.0.113.7"),
        ("hostname", "LLM.example.org"),
        ("committed_use_discount", 1),
        ("ha", "yes"),
    ],
)
def test_a_wrong_option_names_its_key(key: str, value: Any) -> None:
    with pytest.raises(SpecError) as error:
        parse_part(GcpOptions, {key: value}, "gcp")
    assert f"vllm-anywhere:gcp.{key}" in str(error.value)


def test_a_committed_use_discount_takes_the_place_of_the_one_for_sustained_use() -> None:
    plain, committed = (
        ADAPTER.offers(ask(options, hardware=T4))[0] for options in ({}, {"committed_use_discount": "0.37"})
    )
    assert {rate.meter for rate in committed.rates if rate.discount} == {"GPU", "vCPU", "memory"}
    assert all(rate.discount == Decimal("0.37") for rate in committed.rates if rate.discount)
    assert not any(rate.sustained_use for rate in committed.rates)
    assert monthly(committed) < monthly(plain)


def test_an_l4_is_counted_once() -> None:
    offer = ADAPTER.offers(ask(hardware=L4))[0]
    assert "GPU" not in {rate.meter for rate in offer.rates}
    assert [rate.meter for rate in offer.rates].count("machine") == 1


def monthly(offer: Offer) -> Decimal:
    return estimate(DeploymentSpec(), offer, assumptions_for(SHAPE)).monthly


def test_spot_takes_spot_prices_and_says_what_ends_it() -> None:
    asked = ask(hardware={**T4, "spot": True})
    offers = ADAPTER.offers(asked)
    assert all(offer.spot for offer in offers)
    assert monthly(offers[0]) < monthly(ADAPTER.offers(ask(hardware=T4))[0])
    assert any("30 s notice" in note for note in declared(asked).notes)


def test_a_quota_of_zero_is_refused_in_preview_and_one_in_use_is_told() -> None:
    none = Quotas({"GPUS_ALL_REGIONS": Quota(0, 0)}, {})
    reasons = ADAPTER.unsupported(ask(quotas=none, hardware=T4))
    assert ["GPUS_ALL_REGIONS is 0 and 1 is needed" in reason.text for reason in reasons] == [True]
    region = ADAPTER.offers(ask(hardware=T4))[0].region
    other = ask({"project": "other-1"}, quotas=none, hardware=T4)
    assert ADAPTER.unsupported(other) == [], "those are the quotas of the environment's project"
    own = replace(other, market=replace(other.market, project="other-1"))
    assert len(ADAPTER.unsupported(own)) == 1
    used = Quotas({"GPUS_ALL_REGIONS": Quota(1, 1)}, {region: {"NVIDIA_T4_GPUS": Quota(1, 0)}})
    asked = ask(quotas=used, hardware=T4)
    assert [note for note in declared(asked).notes if "in use" in note and "GPUS_ALL_REGIONS" in note]


def test_spot_has_a_quota_of_its_own() -> None:
    asked = ask(hardware={**T4, "spot": True})
    region = ADAPTER.offers(asked)[0].region
    quotas = Quotas({}, {region: {"PREEMPTIBLE_NVIDIA_T4_GPUS": Quota(0, 0), "NVIDIA_T4_GPUS": Quota(4, 0)}})
    assert len(ADAPTER.unsupported(replace(asked, market=replace(asked.market, quotas=quotas)))) == 1


def test_apis_are_switched_on_only_when_asked_and_before_all_else() -> None:
    got = declared(ask({"enable_apis": True}))
    apis = [d for d in got.resources if d.name.startswith("api-") and "Service" in d.type]
    assert {d.inputs["service"] for d in apis} >= {"compute.googleapis.com", "secretmanager.googleapis.com"}
    assert all(d.inputs["disable_on_destroy"] is False for d in apis)
    assert "api-compute" in named(ask({"enable_apis": True})).depends_on
    assert not [d for d in declared(ask()).resources if "Service" in d.type and "projects" in d.type]


def test_what_is_paid_for_carries_the_stacks_label() -> None:
    for name in ("server", "address", "api-key-secret"):
        assert named(ask(), name).inputs["labels"] == {
            "managed-by": "vllm-anywhere",
            "vllm-anywhere": Ref("name", "slug"),
        }


def test_two_stacks_have_two_names_that_google_takes() -> None:
    slugs = [slug_of(f"vllm-anywhere/{stack}/name/1") for stack in ("gcp-t4", "GCP_T4", "x" * 99, "ü")]
    assert len(set(slugs)) == len(slugs)
    for slug in slugs:
        assert 6 <= len(slug) <= 30
        assert slug[0].isalpha() and slug[-1].isalnum() and slug.replace("-", "").isalnum() and slug.isascii()
    assert Name().preview({"label": "vllm-anywhere/gcp-t4/name/1"})["slug"] == slugs[0]


def unknown_keys(value: Any, annotation: str, module: Any, path: str) -> Iterator[str]:
    """Keys at any depth that the SDK's own typed dictionaries don't have, and those that they need."""
    kind = re.search(r"(\w+)ArgsDict", annotation)
    for item in value if isinstance(value, list) else [value]:
        if not kind or not isinstance(item, Mapping):
            continue
        fields = vars(importlib.import_module(f"{module}._inputs"))[f"{kind[0]}"].__annotations__
        for key, inner in item.items():
            if key not in fields:
                yield f"{path}.{key}"
            else:
                yield from unknown_keys(inner, str(fields[key]), module, f"{path}.{key}")
        yield from (
            f"{path}: no {key}" for key, of in fields.items() if "NotRequired" not in str(of) and key not in item
        )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("options", "hardware"),
    [
        ({}, T4),
        ({}, {**L4, "spot": True}),
        ({"ha": "mig"}, {**T4, "spot": True}),
        ({"hostname": "llm.example.org", "ssh": True, "enable_apis": True, "project": "my-project"}, T4),
    ],
)
def test_the_inputs_are_those_of_pulumi_gcp_at_every_depth(options: dict[str, Any], hardware: dict[str, Any]) -> None:
    pytest.importorskip("pulumi_gcp")
    for one in declared(ask(options, hardware=hardware)).resources:
        if one.python:
            module, _, name = one.python.partition(":")
            of = getattr(importlib.import_module(module), name)
            parameters = inspect.signature(of._internal_init).parameters
            assert f"'{one.type}'" in inspect.getsource(of._internal_init)
            assert set(one.inputs) <= set(parameters), one.name
            for key, value in one.inputs.items():
                assert list(unknown_keys(value, str(parameters[key].annotation), module, f"{one.name}.{key}")) == []


def test_the_adapter_never_imports_pulumi_gcp_nor_an_http_client() -> None:
    code = (
        "import sys; import providers.gcp.adapter, providers.gcp.resources; "
        "heavy = ('pulumi', 'pulumi_gcp', 'httpx', 'google.auth', 'cryptography'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["gcp-t4", "gcp-t4-spot", "gcp-l4"])
def test_the_stacks_of_this_repository_can_be_deployed(name: str) -> None:
    file = Path(__file__).parents[1] / "stacks" / f"Pulumi.{name}.yaml"
    config = yaml.safe_load(file.read_text())["config"]
    raw = {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
    spec, section = parse_spec(raw, ["gcp"])
    asked = Ask(spec, parse_part(GcpOptions, section, "gcp"), GcpMarket(dated("gcp"), (), SHAPE))
    assert declared(asked).hardware.startswith(f"1x {name.split('-')[1].upper()} in ")


def test_every_zone_of_the_table_is_in_a_region() -> None:
    for gpu in ("T4", "L4"):
        assert len(zones_with(gpu)) == len(set(zones_with(gpu))) > 20
        assert all(region_of(zone).count("-") == 1 for zone in zones_with(gpu))
