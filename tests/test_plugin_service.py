"""The provider's service, called as the engine calls it."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import grpc
import pytest
from google.protobuf import any_pb2
from pulumi.runtime.proto import provider_pb2, status_pb2
from pydantic import Field, SecretStr

from providers import base
from providers.native import UNKNOWN, Context, Created, Failure, Found, Labelled, NativeResource, Properties
from providers.plugin.replacing import GENERATIONS
from providers.plugin.service import Provider
from providers.plugin.wire import SECRET, SIGNATURE, decode, encode

URN = "urn:pulumi:dev::shop::vllm-anywhere:index:Deployment$vllm-anywhere:test:Box::box"
TOKEN = "vllm-anywhere:test:Box"
DIFF = provider_pb2.PropertyDiff


class BoxInputs(Labelled):
    size: int = Field(description="Litres.")
    colour: str = Field(default="brown", description="Colour.")
    key: SecretStr = Field(default=SecretStr("k"), description="Key.")


class BoxOutputs(Properties):
    size: int = Field(description="Litres.")
    key: SecretStr = Field(description="Key.")
    weight: int = Field(description="Grams.")


class Box(NativeResource[BoxInputs, BoxOutputs]):
    token: ClassVar[str] = TOKEN
    doc: ClassVar[str] = "A box."
    inputs = BoxInputs
    outputs = BoxOutputs
    replace_on: ClassVar[frozenset[str]] = frozenset({"size"})
    problem = ""
    error: Exception | None = None
    wait_s = 0.0
    found = True

    def check(self, inputs: Any) -> list[Failure]:
        return [Failure("size", "more than nothing")] if inputs.get("size", 1) <= 0 else []

    def delete_before_replace(self, old: Any, new: Any) -> bool:
        return old.get("colour") == "red"

    def preview(self, inputs: Any) -> dict[str, Any]:
        return {"weight": 7}

    def create(self, context: Context, inputs: BoxInputs) -> Created[BoxOutputs]:
        if self.error:
            raise self.error
        if self.wait_s:
            context.wait(self.wait_s)
        return Created("box-1", BoxOutputs(size=inputs.size, key=inputs.key, weight=1), self.problem)

    def read(
        self, context: Context, id: str, inputs: BoxInputs | None, outputs: BoxOutputs | None
    ) -> Found[BoxInputs, BoxOutputs] | None:
        if not self.found:
            return None
        now = inputs or BoxInputs(size=3, label="l", generation=2)
        return Found(now, BoxOutputs(size=now.size, key=now.key, weight=2))

    def update(
        self, context: Context, id: str, outputs: BoxOutputs, old: BoxInputs, new: BoxInputs
    ) -> Created[BoxOutputs]:
        return Created(id, BoxOutputs(size=new.size, key=new.key, weight=outputs.weight + 1), self.problem)

    def delete(self, context: Context, id: str, outputs: BoxOutputs) -> None:
        if self.error:
            raise self.error


class Aborted(Exception):
    """What gRPC raises inside a handler that aborts."""


class Call:
    """The part of a gRPC call's context that the service uses."""

    def __init__(self) -> None:
        self.code = grpc.StatusCode.OK
        self.text = ""
        self.metadata: tuple[tuple[str, Any], ...] = ()

    def abort(self, code: grpc.StatusCode, text: str) -> None:
        self.code, self.text = code, text
        raise Aborted(text)

    def set_trailing_metadata(self, metadata: tuple[tuple[str, Any], ...]) -> None:
        self.metadata = metadata


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Box:
    box = Box()
    known = base.load_resource
    monkeypatch.setattr(base, "load_resource", lambda token: box if token == TOKEN else known(token))
    return box


@pytest.fixture
def provider(box: Box) -> Provider:
    return Provider("", "1.2.3")


def check(provider: Provider, news: dict[str, Any], olds: dict[str, Any] | None = None, **secret: bool) -> Any:
    request = provider_pb2.CheckRequest(
        urn=URN, type=TOKEN, news=encode(news, list(secret)), olds=encode(olds) if olds else None
    )
    return provider.Check(request, Call())


def diff(provider: Provider, olds: dict[str, Any], news: dict[str, Any], ignore: list[str] | None = None) -> Any:
    state = {"size": olds["size"], "key": "k", "weight": 1}
    request = provider_pb2.DiffRequest(
        urn=URN, type=TOKEN, olds=encode(state), old_inputs=encode(olds), news=encode(news), ignoreChanges=ignore or []
    )
    return provider.Diff(request, Call())


def create(provider: Provider, properties: dict[str, Any], preview: bool = False, call: Call | None = None) -> Any:
    request = provider_pb2.CreateRequest(urn=URN, type=TOKEN, properties=encode(properties), preview=preview)
    return provider.Create(request, call or Call())


def test_check_fills_in_defaults_and_the_label_of_the_first_generation(provider: Provider) -> None:
    inputs = decode(check(provider, {"size": 3}).inputs)
    assert inputs["colour"] == "brown"
    assert (inputs["label"], inputs["generation"]) == ("shop/dev/box/1", 1)


def test_a_replacement_gets_the_next_generation_and_the_same_one_after_a_crash(provider: Provider, box: Box) -> None:
    for process in (provider, Provider("", "1.2.3")):
        kept = decode(check(process, {"size": 4}, {"size": 3, "generation": 2, "label": "x"}).inputs)
        assert kept["generation"] == 2
        replacement = decode(check(process, {"size": 4}).inputs)
        assert (replacement["label"], replacement["generation"]) == ("shop/dev/box/3", 3)


def test_what_a_forced_replacement_has_taken_over_is_not_deleted_as_the_old_one(provider: Provider, box: Box) -> None:
    """The engine checks it as if nothing were there, so that it comes to the label of what is."""
    made = create(provider, decode(check(provider, {"size": 3}).inputs))
    box.error = base.PlatformError("deleted")
    request = provider_pb2.DeleteRequest(id=made.id, urn=URN, type=TOKEN, properties=made.properties)
    provider.Delete(request, Call())
    request.id = "box-0"
    with pytest.raises(Aborted, match="deleted"):
        provider.Delete(request, Call())


def test_whoever_forces_a_replacement_can_say_which_generation_is_replaced(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(GENERATIONS, json.dumps({URN: 4}))
    assert decode(check(Provider("", "1.2.3"), {"size": 3}).inputs)["generation"] == 5


@pytest.mark.parametrize(
    ("news", "path"),
    [({"size": "big"}, "size"), ({}, "size"), ({"size": 3, "colr": "red"}, "colr"), ({"size": 0}, "size")],
)
def test_check_reports_each_failure_by_its_property(provider: Provider, news: dict[str, Any], path: str) -> None:
    answer = check(provider, news)
    assert [failure.property for failure in answer.failures] == [path]


def test_check_lets_what_is_not_known_yet_pass(provider: Provider) -> None:
    answer = check(provider, {"size": UNKNOWN})
    assert not answer.failures
    assert decode(answer.inputs)["size"] is UNKNOWN


def test_check_keeps_secrets_secret(provider: Provider) -> None:
    answer = check(provider, {"size": 3, "key": "top"}, key=True)
    assert answer.inputs.fields["key"].struct_value.fields[SIGNATURE].string_value == SECRET


def test_a_failure_of_a_secret_names_no_property_whose_value_would_be_shown(
    provider: Provider, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(box, "check", lambda inputs: [Failure("key", "too short")])
    (failure,) = check(provider, {"size": 3, "key": "top"}, key=True).failures
    assert (failure.property, failure.reason) == ("", "key: too short")


def test_an_unchanged_resource_has_no_diff(provider: Provider) -> None:
    same = {"size": 3, "colour": "brown", "generation": 1, "label": "a"}
    answer = diff(provider, same, {**same, "generation": 2, "label": "b"})
    assert answer.changes == provider_pb2.DiffResponse.DIFF_NONE


def test_a_diff_says_what_is_updated_and_what_replaces(provider: Provider) -> None:
    answer = diff(provider, {"size": 3, "colour": "brown"}, {"size": 4, "key": "new"})
    assert list(answer.replaces) == ["size"]
    kinds = {key: change.kind for key, change in answer.detailedDiff.items()}
    assert kinds == {"size": DIFF.UPDATE_REPLACE, "colour": DIFF.DELETE, "key": DIFF.ADD}
    assert not answer.deleteBeforeReplace


def test_a_wish_that_what_exists_already_satisfies_is_updated_in_place(
    provider: Provider, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    def heavy_enough(changed: frozenset[str], new: Any, outputs: Any) -> frozenset[str]:
        return changed if new["size"] <= outputs["weight"] + 3 else frozenset()

    monkeypatch.setattr(box, "satisfied", heavy_enough)
    kept = diff(provider, {"size": 3}, {"size": 4})
    assert (list(kept.diffs), list(kept.replaces)) == (["size"], [])
    assert list(diff(provider, {"size": 3}, {"size": 5}).replaces) == ["size"]


def test_an_unknown_input_counts_as_changed(provider: Provider) -> None:
    assert list(diff(provider, {"size": 3}, {"size": UNKNOWN}).replaces) == ["size"]


def test_ignored_changes_are_not_in_the_diff(provider: Provider) -> None:
    answer = diff(provider, {"size": 3}, {"size": 4}, ignore=["size"])
    assert answer.changes == provider_pb2.DiffResponse.DIFF_NONE


def test_delete_before_replace_is_only_said_of_a_replacement(provider: Provider) -> None:
    assert diff(provider, {"size": 3, "colour": "red"}, {"size": 4, "colour": "red"}).deleteBeforeReplace
    assert not diff(provider, {"size": 3, "colour": "red"}, {"size": 3, "colour": "blue"}).deleteBeforeReplace


def test_a_replacement_of_what_another_version_made_is_diffed_without_a_word_of_its_secrets(
    provider: Provider,
) -> None:
    answer = diff(provider, {"size": 3, "colour": "red", "token": "sk-of-then"}, {"size": 4, "colour": "red"})
    assert answer.deleteBeforeReplace and "sk-of-then" not in str(answer)


def test_preview_shows_known_outputs_and_marks_the_others(provider: Provider) -> None:
    answer = create(provider, {"size": UNKNOWN}, preview=True)
    outputs = decode(answer.properties)
    assert outputs["weight"] == 7
    assert outputs["size"] is UNKNOWN
    assert outputs["key"] is UNKNOWN
    assert outputs.secrets == {"key"}


def test_create_returns_id_and_outputs_with_secrets_marked(provider: Provider) -> None:
    answer = create(provider, {"size": 3, "key": "top"})
    assert answer.id == "box-1"
    outputs = decode(answer.properties)
    assert outputs == {"size": 3, "key": "top", "weight": 1}
    assert outputs.secrets == {"key"}


def test_what_exists_but_does_not_work_keeps_its_id_and_outputs(provider: Provider, box: Box) -> None:
    box.problem = "the lid is missing"
    call = Call()
    with pytest.raises(Aborted):
        create(provider, {"size": 3}, call=call)
    ((name, packed),) = call.metadata
    assert name == "grpc-status-details-bin"
    detail: any_pb2.Any = status_pb2.Status.FromString(packed).details[0]
    failed = provider_pb2.ErrorResourceInitFailed()
    assert detail.Unpack(failed)
    assert failed.id == "box-1"
    assert list(failed.reasons) == ["the lid is missing"]
    assert decode(failed.properties)["size"] == 3
    assert decode(failed.inputs)["size"] == 3


def test_an_expected_error_is_shown_as_its_text_alone(provider: Provider, box: Box) -> None:
    box.error = base.NoCapacity("no box of that size")
    call = Call()
    with pytest.raises(Aborted):
        create(provider, {"size": 3}, call=call)
    assert (call.code, call.text) == (grpc.StatusCode.FAILED_PRECONDITION, "no box of that size")


def test_an_unexpected_error_shows_where_it_happened_but_no_values(provider: Provider, box: Box) -> None:
    box.error = ZeroDivisionError("division by zero")
    call = Call()
    with pytest.raises(Aborted):
        create(provider, {"size": 3, "key": "top-secret"}, call=call)
    assert call.text.startswith("ZeroDivisionError: division by zero")
    assert "in create" in call.text
    assert "top-secret" not in call.text


def test_cancel_ends_a_waiting_create(provider: Provider, box: Box) -> None:
    box.wait_s = 3600
    provider.Cancel(None, Call())
    call = Call()
    with pytest.raises(Aborted):
        create(provider, {"size": 3}, call=call)
    assert call.code == grpc.StatusCode.CANCELLED


def test_read_of_what_is_gone_has_no_id(provider: Provider, box: Box) -> None:
    box.found = False
    answer = provider.Read(provider_pb2.ReadRequest(id="box-1", urn=URN, type=TOKEN), Call())
    assert answer.id == ""


def test_read_without_state_is_an_import(provider: Provider) -> None:
    answer = provider.Read(provider_pb2.ReadRequest(id="box-1", urn=URN, type=TOKEN), Call())
    assert answer.id == "box-1"
    assert decode(answer.inputs)["generation"] == 2
    assert decode(answer.inputs).secrets == {"key"}
    assert decode(answer.properties)["weight"] == 2


def test_update_has_the_old_outputs_and_the_new_inputs(provider: Provider) -> None:
    request = provider_pb2.UpdateRequest(
        id="box-1",
        urn=URN,
        type=TOKEN,
        olds=encode({"size": 3, "key": "k", "weight": 1}),
        old_inputs=encode({"size": 3}),
        news=encode({"size": 3, "colour": "blue"}),
    )
    assert decode(provider.Update(request, Call()).properties)["weight"] == 2
    request.preview = True
    assert decode(provider.Update(request, Call()).properties)["weight"] == 7


def test_the_preview_of_an_update_shows_what_it_leaves_as_it_is(
    provider: Provider, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(box, "preview", lambda inputs: {}, raising=False)
    monkeypatch.setattr(box, "settled", lambda changed: {"weight"} if changed == {"colour"} else set(), raising=False)
    request = provider_pb2.UpdateRequest(
        id="box-1",
        urn=URN,
        type=TOKEN,
        olds=encode({"size": 3, "key": "k", "weight": 1}),
        old_inputs=encode({"size": 3}),
        news=encode({"size": 3, "colour": "blue"}),
        preview=True,
    )
    assert decode(provider.Update(request, Call()).properties)["weight"] == 1
    request.news.CopyFrom(encode({"size": 3, "colour": "blue", "generation": 2, "key": "other"}))
    assert decode(provider.Update(request, Call()).properties)["weight"] is UNKNOWN


def test_delete_passes_on_why_it_could_not(provider: Provider, box: Box) -> None:
    properties = encode({"size": 3, "key": "k", "weight": 1})
    request = provider_pb2.DeleteRequest(id="box-1", urn=URN, type=TOKEN, properties=properties)
    provider.Delete(request, Call())
    box.error = base.PlatformError("still there")
    with pytest.raises(Aborted, match="still there"):
        provider.Delete(request, Call())


def test_an_unknown_type_is_refused(provider: Provider) -> None:
    request = provider_pb2.CreateRequest(urn=URN, type="vllm-anywhere:test:Bag")
    call = Call()
    with pytest.raises((Aborted, KeyError)):
        provider.Create(request, call)


def test_the_schema_has_every_resource_and_function(provider: Provider) -> None:
    package = json.loads(provider.GetSchema(provider_pb2.GetSchemaRequest(), Call()).schema)
    assert {resource.token for resource in base.all_resources()} == set(package["resources"])
    assert package["version"] == "1.2.3"
    server = package["resources"]["vllm-anywhere:local:Server"]
    assert server["inputProperties"]["apiKey"]["secret"] is True
    assert server["inputProperties"]["model"]["willReplaceOnChanges"] is True
    assert "generation" not in server["requiredInputs"]
    assert package["functions"]["vllm-anywhere:index:getOffers"]["outputs"]["required"] == ["offers", "unsupported"]


def invoke(service: Provider, function: str, **args: Any) -> Any:
    request = provider_pb2.InvokeRequest(tok=f"vllm-anywhere:index:{function}", args=encode(args))
    return service.Invoke(request, Call())


def test_offers_and_prices_are_functions(provider: Provider) -> None:
    offers = decode(getattr(invoke(provider, "getOffers", provider="fake"), "return"))
    assert [offer["gpu"] for offer in offers["offers"]] == ["L4", "T4"]
    prices = decode(getattr(invoke(provider, "getPrices", provider="fake"), "return"))
    assert [one["monthly_usd"] for one in prices["estimates"]] == ["365.00", "365.00"]
    wanted = {"hardware": {"gpus": ["H100"]}}
    none = decode(getattr(invoke(provider, "getOffers", provider="fake", spec=wanted), "return"))
    assert none["offers"] == []
    assert "vllm-anywhere:hardware.gpus" in none["unsupported"][0]


def test_a_function_refuses_arguments_it_does_not_have(provider: Provider) -> None:
    assert [failure.property for failure in invoke(provider, "getOffers", platform="fake").failures] == ["platform"]
    with pytest.raises(Aborted, match=r"vllm-anywhere:model\.max_len"):
        invoke(provider, "getOffers", provider="fake", spec={"model": {"max_len": 1}})


def test_the_language_hosts_knock_is_answered_with_the_version(provider: Provider) -> None:
    assert decode(getattr(invoke(provider, "getVersion"), "return")) == {"version": "1.2.3"}


def test_an_unknown_required_input_leaves_the_others_their_defaults(provider: Provider) -> None:
    inputs = decode(check(provider, {"size": UNKNOWN}).inputs)
    assert (inputs["colour"], inputs["key"]) == ("brown", "k")
    assert inputs.secrets == {"key"}


def test_no_error_repeats_a_secret(provider: Provider, box: Box) -> None:
    box.error = ValueError("the key top-secret is too short")
    call = Call()
    with pytest.raises(Aborted):
        create(provider, {"size": 3, "key": SecretStr("top-secret")}, call=call)
    assert "the key [secret] is too short" in call.text
    box.error = base.PlatformError("the platform refuses top-secret")
    with pytest.raises(Aborted):
        create(provider, {"size": 3, "key": SecretStr("top-secret")}, call=call)
    assert call.text == "the platform refuses [secret]"
    box.error, box.problem = None, "the last line of its log: key=top-secret"
    with pytest.raises(Aborted):
        create(provider, {"size": 3, "key": SecretStr("top-secret")}, call=call)
    assert call.text == "the last line of its log: key=[secret]"
    state = encode({"size": 3, "key": "k", "weight": 1, "token": SecretStr("top-secret")})
    with pytest.raises(Aborted) as caught:
        provider.Delete(provider_pb2.DeleteRequest(id="box-2", urn=URN, type=TOKEN, properties=state), Call())
    assert "token: Extra inputs are not permitted" in str(caught.value)
    assert "top-secret" not in str(caught.value)


def test_an_optional_secret_is_secret_in_the_schema(provider: Provider) -> None:
    package = json.loads(provider.GetSchema(provider_pb2.GetSchemaRequest(), Call()).schema)
    assert package["resources"]["vllm-anywhere:index:ApiKey"]["inputProperties"]["own"]["secret"] is True


def configured(provider: Provider, olds: dict[str, Any]) -> dict[str, Any]:
    """The provider's inputs as state keeps them, once it works by them."""
    told = provider.CheckConfig(provider_pb2.CheckRequest(olds=encode(olds), news=encode({"version": "1"})), None)
    provider.Configure(provider_pb2.ConfigureRequest(args=told.inputs), None)
    return dict(decode(told.inputs))


def checked(provider: Provider, olds: dict[str, Any] | None = None) -> dict[str, Any]:
    request = provider_pb2.CheckRequest(urn=URN, type=TOKEN, news=encode({"size": 3}), olds=encode(olds or {}))
    return dict(decode(provider.Check(request, None).inputs))


@pytest.mark.usefixtures("box")
def test_two_states_of_one_stacks_name_have_labels_of_their_own_which_last() -> None:
    ours, theirs = Provider("", "1", lambda: "0a1b2c3d"), Provider("", "1", lambda: "deadbeef")
    kept = configured(ours, {})
    configured(theirs, {})
    first = checked(ours)
    assert (first["label"], checked(theirs)["label"]) == ("shop/dev/box/1-0a1b2c3d", "shop/dev/box/1-deadbeef")
    later = Provider("", "1", lambda: "11111111")
    assert configured(later, kept) == kept
    assert checked(later)["label"] == first["label"], "that of a create which was cut off, too"
    assert checked(later, first)["label"] == first["label"]
    assert checked(later)["label"] == "shop/dev/box/2-0a1b2c3d", "a replacement"


@pytest.mark.usefixtures("box")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("shop/dev/box/1", "shop/dev/box/1"),
        ("shop/dev/box/1-deadbeef", "shop/dev/box/1-deadbeef"),
        ("shop/test/box/1-deadbeef", "shop/dev/box/1-0a1b2c3d"),
    ],
)
def test_what_was_made_under_a_label_keeps_it_as_long_as_its_names_stay(before: str, after: str) -> None:
    provider = Provider("", "1", lambda: "0a1b2c3d")
    configured(provider, {})
    assert checked(provider, {"label": before, "generation": 1, "size": 3})["label"] == after
