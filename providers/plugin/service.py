"""The provider's gRPC service: Pulumi's calls, mapped onto `NativeResource` classes.

Written on the raw service because the SDK's own provider base can neither pass on unknown values nor report a
resource that exists but does not work (pulumi 3.272, `pulumi.provider.experimental`).
"""

from __future__ import annotations

import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NoReturn, get_args
from uuid import uuid4

import grpc
from google.protobuf import any_pb2, empty_pb2
from pulumi.runtime.proto import (
    engine_pb2,
    engine_pb2_grpc,
    plugin_pb2,
    provider_pb2,
    provider_pb2_grpc,
    status_pb2,
)
from pydantic import BaseModel, SecretStr, ValidationError

from providers import base
from providers.native import (
    UNKNOWN,
    Context,
    Created,
    Generations,
    Labelled,
    NativeResource,
    Properties,
    generation_in,
    label_of,
)
from providers.plugin.replacing import Made, stated
from providers.plugin.wire import Decoded, decode, encode, encode_model, has_unknown, wire_fields
from serving import NAMESPACE

Resource = NativeResource[Any, Any]
_GET_VERSION = f"{NAMESPACE}:index:getVersion"
PropertyDiff = provider_pb2.PropertyDiff


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """One provider process. `engine_address` is where progress lines go."""

    def __init__(
        self, engine_address: str, version: str, new_owner: Callable[[], str] = lambda: uuid4().hex[:8]
    ) -> None:
        self._version = version
        self._cancelled = threading.Event()
        self._generations = Generations(stated(os.environ))
        self._made = Made()
        self._owner, self._new_owner = "", new_owner
        self._engine: engine_pb2_grpc.EngineStub | None = None
        if engine_address:
            self._connect(engine_address)

    def _connect(self, address: str) -> None:
        self._engine = engine_pb2_grpc.EngineStub(grpc.insecure_channel(address))

    # The provider itself.

    def Handshake(self, request: Any, context: Any) -> Any:  # noqa: N802
        if self._engine is None and request.engine_address:
            self._connect(request.engine_address)
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True, accept_outputs=False)

    def Attach(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._connect(request.address)
        return empty_pb2.Empty()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
        return plugin_pb2.PluginInfo(version=self._version)

    def GetSchema(self, request: Any, context: Any) -> Any:  # noqa: N802
        # Only asked for when somebody looks at the package; the models cost every other command some time.
        from providers.plugin import functions, schema

        package = schema.package_schema(self._version, base.all_resources(), functions.FUNCTIONS)
        return provider_pb2.GetSchemaResponse(schema=json.dumps(package))

    def CheckConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        news, olds = decode(request.news), decode(request.olds)
        # The engine has it in state before it asks for anything else.
        news["owner"] = olds.get("owner") or self._new_owner()
        return provider_pb2.CheckResponse(inputs=encode(news))

    def DiffConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    def Configure(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._owner = str(decode(request.args).get("owner", ""))
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    def Cancel(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._cancelled.set()
        return empty_pb2.Empty()

    def Invoke(self, request: Any, context: Any) -> Any:  # noqa: N802
        response = provider_pb2.InvokeResponse()
        # The field's name is a word that Python keeps for itself.
        answer_field = getattr(response, "return")
        if request.tok == _GET_VERSION:
            # How the language host has this process started: nobody waits for the models of the functions.
            answer_field.CopyFrom(encode({"version": self._version}))
            return response
        from providers.plugin import functions

        function = next((f for f in functions.FUNCTIONS if f.token == request.tok), None)
        if function is None:
            _abort(context, grpc.StatusCode.NOT_FOUND, f"no function {request.tok}")
        args = decode(request.args)
        try:
            arguments = function.inputs.model_validate(dict(args))
        except ValidationError as error:
            return provider_pb2.InvokeResponse(failures=_failures(error, args))
        with _errors(context, args):
            answer = function.call(arguments)
        answer_field.CopyFrom(encode_model(answer, args.secrets))
        return response

    # Resources.

    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        resource = _resource(request.type, request.urn, context)
        news, olds = decode(request.news), decode(request.olds)
        if issubclass(resource.inputs, Labelled):
            generation = self._generations.carry(request.urn, olds.get("generation"))
            news |= {"generation": generation, "label": self._label(request.urn, generation, olds.get("label"))}
        known = {key: value for key, value in news.items() if not has_unknown(value)}
        failures: list[Any] = []
        try:
            complete = resource.inputs.model_validate(known)
        except ValidationError as error:
            failures = [f for f in _failures(error, news) if not has_unknown(news.get(_top(f.property)))]
            news = _with_defaults(resource.inputs, news)
        else:
            news = _keep_unknown(wire_fields(complete), news)
        if not failures:
            failures = [
                provider_pb2.CheckFailure(property=_wire_name(resource.inputs, failure.property), reason=failure.reason)
                for failure in resource.check(_by_field(resource.inputs, known))
            ]
        secret = _secret_fields(resource.inputs) | news.secrets
        return provider_pb2.CheckResponse(
            inputs=encode(news, news.secrets), failures=[_without_value(failure, secret) for failure in failures]
        )

    def Diff(self, request: Any, context: Any) -> Any:  # noqa: N802
        resource = _resource(request.type, request.urn, context)
        olds, news = decode(request.old_inputs), decode(request.news)
        changed = _changed(olds, news) - set(request.ignoreChanges)
        replaces = changed & _still_replacing(resource, changed, news, decode(request.olds))
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME if changed else provider_pb2.DiffResponse.DIFF_NONE,
            diffs=sorted(changed),
            replaces=sorted(replaces),
            detailedDiff={key: _property_diff(key, key in replaces, olds, news) for key in changed},
            hasDetailedDiff=True,
            deleteBeforeReplace=bool(replaces)
            and resource.delete_before_replace(_by_field(resource.inputs, olds), _by_field(resource.inputs, news)),
        )

    def Create(self, request: Any, context: Any) -> Any:  # noqa: N802
        resource = _resource(request.type, request.urn, context)
        properties = decode(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(properties=_preview(resource, properties))
        with _errors(context, properties):
            inputs = resource.inputs.model_validate(dict(properties))
            created = resource.create(self._context(request, request.timeout), inputs)
        self._made.add(request.urn, created.id)
        secrets = _shared(resource, properties.secrets)
        if created.problem:
            _abort_init_failed(context, created, inputs, secrets, properties)
        return provider_pb2.CreateResponse(id=created.id, properties=encode_model(created.outputs, secrets))

    def Update(self, request: Any, context: Any) -> Any:  # noqa: N802
        resource = _resource(request.type, request.urn, context)
        news, olds = decode(request.news), decode(request.old_inputs)
        if request.preview:
            kept = _settled(resource, decode(request.olds), _changed(olds, news))
            return provider_pb2.UpdateResponse(properties=_preview(resource, news, kept))
        state = decode(request.olds)
        with _errors(context, news, olds, state):
            new, old = resource.inputs.model_validate(dict(news)), resource.inputs.model_validate(dict(olds))
            outputs = resource.outputs.model_validate(dict(state))
            updated = resource.update(self._context(request, request.timeout), request.id, outputs, old, new)
        secrets = _shared(resource, news.secrets)
        if updated.problem:
            _abort_init_failed(context, updated, new, secrets, news)
        return provider_pb2.UpdateResponse(properties=encode_model(updated.outputs, secrets))

    def Read(self, request: Any, context: Any) -> Any:  # noqa: N802
        resource = _resource(request.type, request.urn, context)
        fields, state = decode(request.inputs), decode(request.properties)
        with _errors(context, fields, state):
            inputs = resource.inputs.model_validate(dict(fields)) if fields else None
            outputs = resource.outputs.model_validate(dict(state)) if state else None
            found = resource.read(self._context(request, request.timeout), request.id, inputs, outputs)
        if found is None:
            return provider_pb2.ReadResponse()
        return provider_pb2.ReadResponse(
            id=request.id,
            inputs=encode_model(found.inputs, fields.secrets),
            properties=encode_model(found.outputs, _shared(resource, fields.secrets)),
        )

    def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        resource = _resource(request.type, request.urn, context)
        state = decode(request.properties)
        if (request.urn, request.id) in self._made:
            self._progress(request.urn)("kept: it was there already, and this run has taken it over")
            return empty_pb2.Empty()
        with _errors(context, state):
            outputs = resource.outputs.model_validate(dict(state))
            resource.delete(self._context(request, request.timeout), request.id, outputs)
        return empty_pb2.Empty()

    def _label(self, urn: str, generation: int, before: str | None) -> str:
        """A thing keeps the label that it was made under, also by a state that has been lost since."""
        label = label_of(urn, generation, self._owner)
        same = before and before.rpartition("/")[0] == label.rpartition("/")[0] and generation_in(before) == generation
        return before if before and same else label

    def _context(self, request: Any, timeout_s: float) -> Context:
        return Context(
            urn=request.urn,
            progress=self._progress(request.urn),
            pause=self._cancelled.wait,
            clock=time.monotonic,
            now=lambda: datetime.now(UTC),
            timeout_s=timeout_s,
        )

    def _progress(self, urn: str) -> Callable[[str], None]:
        engine = self._engine

        def show(text: str) -> None:
            if engine is not None:
                engine.Log(engine_pb2.LogRequest(severity=engine_pb2.INFO, message=text, urn=urn, ephemeral=True))

        return show


def _resource(token: str, urn: str, context: Any) -> Resource:
    try:
        return base.load_resource(token or urn.split("::")[2].rsplit("$", 1)[-1])
    except KeyError:
        _abort(context, grpc.StatusCode.NOT_FOUND, f"this version of the provider has no resource {token}")


def _settled(resource: Resource, state: Decoded, changed: Collection[str]) -> dict[str, Any]:
    """The outputs of a state that an update in place leaves as they are."""
    outputs = _by_field(resource.outputs, state)
    names = resource.settled(frozenset(_by_field(resource.inputs, dict.fromkeys(changed))))
    return {name: outputs[name] for name in names & outputs.keys()}


def _preview(resource: Resource, properties: Decoded, settled: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """Every output: the one that preview knows, what stays as it is, the input of the same name, or unknown."""
    by_field = _by_field(resource.inputs, properties)
    known = {**settled, **resource.preview(by_field)}
    outputs: dict[str, Any] = {}
    for name in resource.outputs.model_fields:
        outputs[_wire_name(resource.outputs, name)] = known.get(name, by_field.get(name, UNKNOWN))
    return encode(outputs, _shared(resource, properties.secrets) | _secret_fields(resource.outputs))


def _changed(olds: Mapping[str, Any], news: Mapping[str, Any]) -> set[str]:
    """Inputs that differ. Label and generation follow from a replacement and are never its cause."""
    return {key for key in (olds.keys() | news.keys()) - {"label", "generation"} if olds.get(key) != news.get(key)}


def _property_diff(key: str, replace: bool, olds: Mapping[str, Any], news: Mapping[str, Any]) -> Any:
    kind = "ADD" if key not in olds else "DELETE" if key not in news else "UPDATE"
    return PropertyDiff(kind=PropertyDiff.Kind.Value(f"{kind}_REPLACE" if replace else kind), inputDiff=True)


def _failures(error: ValidationError, properties: Mapping[str, Any]) -> list[Any]:
    return [
        provider_pb2.CheckFailure(
            property=_path(found["loc"]),
            reason="no such property" if found["type"] == "extra_forbidden" else str(found["msg"]),
        )
        for found in error.errors(include_url=False, include_input=False)
    ]


def _without_value(failure: Any, secret: frozenset[str]) -> Any:
    """The failure without its property if that is a secret: the engine shows the value of a property that is named."""
    if _top(failure.property) not in secret:
        return failure
    return provider_pb2.CheckFailure(property="", reason=f"{failure.property}: {failure.reason}")


def _path(loc: tuple[str | int, ...]) -> str:
    """A pydantic location as a Pulumi property path: `hardware.gpus[0]`."""
    path = ""
    for step in loc:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path


def _top(path: str) -> str:
    return path.split(".", 1)[0].split("[", 1)[0]


def _with_defaults(model: type[BaseModel], news: Decoded) -> Decoded:
    """What can't be validated yet, since part of it isn't known, still has its defaults."""
    defaults = {
        _wire_name(model, name): info.get_default(call_default_factory=True)
        for name, info in model.model_fields.items()
        if not info.is_required()
    }
    complete = Decoded({**{name: value for name, value in defaults.items() if value is not None}, **news})
    complete.secrets = news.secrets
    return complete


def _keep_unknown(complete: dict[str, Any], news: Decoded) -> Decoded:
    """The validated inputs with their defaults, and what isn't known yet left as it came."""
    kept = Decoded({**complete, **{key: value for key, value in news.items() if has_unknown(value)}})
    kept.secrets = news.secrets
    return kept


def _wire_name(model: type[BaseModel], field: str) -> str:
    info = model.model_fields.get(field)
    return info.alias if info and info.alias else field


def _still_replacing(
    resource: Resource, changed: set[str], news: Mapping[str, Any], state: Mapping[str, Any]
) -> set[str]:
    """Wire names of the inputs whose change needs a new resource, given what this one came to be."""
    names = {name: _wire_name(resource.inputs, name) for name in resource.replace_on}
    asked = frozenset(name for name, wire in names.items() if wire in changed)
    if not asked:
        return set()
    met = resource.satisfied(asked, _by_field(resource.inputs, news), _by_field(resource.outputs, state))
    return {wire for name, wire in names.items() if name not in met}


def _by_field(model: type[BaseModel], properties: Mapping[str, Any]) -> dict[str, Any]:
    """Decoded properties under the model's own field names."""
    names = {_wire_name(model, field): field for field in model.model_fields}
    return {names.get(key, key): value for key, value in properties.items()}


def _secret_fields(model: type[BaseModel]) -> frozenset[str]:
    return frozenset(
        _wire_name(model, name)
        for name, info in model.model_fields.items()
        if SecretStr in (info.annotation, *get_args(info.annotation))
    )


def _shared(resource: Resource, secrets: frozenset[str]) -> frozenset[str]:
    """Outputs that repeat a secret input: they stay secret, whatever their type says."""
    return secrets & {_wire_name(resource.outputs, name) for name in resource.outputs.model_fields}


@contextmanager
def _errors(context: Any, *properties: Decoded) -> Generator[None]:
    """Expected errors become their own text, anything else keeps its traceback; neither repeats a secret."""
    try:
        yield
    except base.Interrupted as error:
        _abort(context, grpc.StatusCode.CANCELLED, _scrubbed(str(error), properties))
    except base.PlatformError as error:
        _abort(context, grpc.StatusCode.FAILED_PRECONDITION, _scrubbed(str(error), properties))
    except ValidationError as error:
        # Pydantic would quote the values, which may be secret.
        found = error.errors(include_url=False, include_input=False)
        listed = "; ".join(f"{_path(problem['loc'])}: {problem['msg']}" for problem in found)
        text = f"what state holds does not fit this version of the provider: {listed}"
        _abort(context, grpc.StatusCode.FAILED_PRECONDITION, text)
    except Exception as error:  # the engine has to be told, whatever it was
        frames = "".join(traceback.format_tb(error.__traceback__))
        _abort(context, grpc.StatusCode.UNKNOWN, _scrubbed(f"{type(error).__name__}: {error}\n{frames}", properties))


def _scrubbed(text: str, properties: Iterable[Decoded]) -> str:
    secrets = {secret for one in properties for key in one.secrets for secret in _texts(one[key])}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "[secret]")
    return text


def _texts(value: Any) -> Iterator[str]:
    """Every text in a decoded value that is long enough to be a secret."""
    match value:
        case str() if len(value) > 3:
            yield value
        case Mapping():
            for item in value.values():
                yield from _texts(item)
        case list():
            for item in value:
                yield from _texts(item)
        case _:
            pass


def _abort(context: Any, code: grpc.StatusCode, message: str) -> NoReturn:
    context.abort(code, message)
    raise AssertionError("abort returns never")


def _abort_init_failed(
    context: Any, created: Created[Properties], inputs: Properties, secrets: frozenset[str], properties: Decoded
) -> NoReturn:
    """Tell the engine that the resource exists, so that its id and outputs are kept, and why it doesn't work."""
    problem = _scrubbed(created.problem, [properties])
    detail = any_pb2.Any()
    detail.Pack(
        provider_pb2.ErrorResourceInitFailed(
            id=created.id,
            properties=encode_model(created.outputs, secrets),
            inputs=encode_model(inputs, secrets),
            reasons=[problem],
        )
    )
    status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=problem, details=[detail])
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    _abort(context, grpc.StatusCode.UNKNOWN, problem)
