"""The plugin's gRPC service: the engine's calls, mapped onto the cloud in the folder."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import any_pb2, empty_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2

from providers.native import UNKNOWN
from providers.plugin.wire import Decoded, decode, encode
from tests.doubles.gcp import actions, answers, check, diff, machines, plain, sdk
from tests.doubles.gcp.cloud import Cloud, Record
from tests.doubles.gcp.kinds import KINDS, Kind

VERSION = "10.2.0"
_OF_THE_ENGINE = frozenset({"version", "pluginDownloadURL", "pluginChecksums", "__internal"})
_SECRET = frozenset({"secretData", "secretDataWo", "effectiveLabels", "pulumiLabels"})
_ENVIRONMENT = {
    "project": ("GOOGLE_PROJECT", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT"),
    "region": ("GOOGLE_REGION", "GCLOUD_REGION", "CLOUDSDK_COMPUTE_REGION"),
    "zone": ("GOOGLE_ZONE", "GCLOUD_ZONE", "CLOUDSDK_COMPUTE_ZONE"),
}


class Double(provider_pb2_grpc.ResourceProviderServicer):
    """One plugin process on a cloud."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._settings: dict[str, str] = {}

    # The provider itself.

    def Handshake(self, request: Any, context: Any) -> Any:  # noqa: N802
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True, accept_outputs=False)

    def Attach(self, request: Any, context: Any) -> Any:  # noqa: N802
        return empty_pb2.Empty()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
        return plugin_pb2.PluginInfo(version=VERSION)

    def GetSchema(self, request: Any, context: Any) -> Any:  # noqa: N802
        return provider_pb2.GetSchemaResponse(schema=json.dumps({"name": "gcp", "version": VERSION}))

    def CheckConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        unknown = decode(request.news).keys() - sdk.provider_fields().keys() - _OF_THE_ENGINE
        failures = [
            provider_pb2.CheckFailure(property=name, reason="not a valid configuration key for the gcp provider")
            for name in sorted(unknown)
        ]
        return provider_pb2.CheckResponse(inputs=request.news, failures=failures)

    def DiffConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    def Configure(self, request: Any, context: Any) -> Any:  # noqa: N802
        given = decode(request.args)
        for name, variables in _ENVIRONMENT.items():
            value = given.get(name) or next((os.environ[each] for each in variables if os.environ.get(each)), "")
            self._settings[name] = str(value)
        if self._cloud.faults().no_credentials:
            context.abort(
                grpc.StatusCode.UNKNOWN,
                "unable to validate Google Cloud credentials: google: could not find default credentials. See "
                "https://cloud.google.com/docs/authentication/external/set-up-adc for more information",
            )
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    def Cancel(self, request: Any, context: Any) -> Any:  # noqa: N802
        return empty_pb2.Empty()

    # Resources.

    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        kind, news, olds = _kind(request, context), decode(request.news), decode(request.olds)
        given = check.without_defaults(news)
        failures = [
            provider_pb2.CheckFailure(property=each.path, reason=each.reason) for each in check.failures(kind, given)
        ]
        named = check.named(kind, given, olds, request.urn)
        return provider_pb2.CheckResponse(inputs=encode(named, news.secrets), failures=failures)

    def Diff(self, request: Any, context: Any) -> Any:  # noqa: N802
        kind, news = _kind(request, context), decode(request.news)
        changed = diff.changes(decode(request.old_inputs), news)
        replaces = diff.replacing(kind, changed)
        kinds = {path: f"{word}_REPLACE" if path in replaces else word for path, word in changed.items()}
        word = provider_pb2.PropertyDiff.Kind.Value
        own_name = bool(kind.named) and kind.named not in changed and kind.named not in news.get(check.DEFAULTS, ())
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME if changed else provider_pb2.DiffResponse.DIFF_NONE,
            diffs=sorted({path.split(".")[0].split("[")[0] for path in changed}),
            replaces=sorted(replaces),
            detailedDiff={
                path: provider_pb2.PropertyDiff(kind=word(name), inputDiff=True) for path, name in kinds.items()
            },
            hasDetailedDiff=True,
            deleteBeforeReplace=bool(replaces) and own_name,
        )

    def Create(self, request: Any, context: Any) -> Any:  # noqa: N802
        kind, properties = _kind(request, context), decode(request.properties)
        inputs = check.without_defaults(properties)
        if request.preview:
            with _errors(context):
                where = plain.place(kind, inputs, self._settings)
            return provider_pb2.CreateResponse(properties=_encode(_preview(kind, {**inputs, **where}), properties))
        self._log("create", request, inputs, properties.secrets)
        with _errors(context), self._cloud.lock():
            record = actions.create(self._cloud, kind, inputs, sorted(properties.secrets), self._settings)
        return provider_pb2.CreateResponse(id=record.id, properties=_encode(plain.read(record), properties))

    def Update(self, request: Any, context: Any) -> Any:  # noqa: N802
        news, olds = decode(request.news), decode(request.old_inputs)
        inputs = check.without_defaults(news)
        changed = diff.changes(olds, news)
        if request.preview:
            return provider_pb2.UpdateResponse(properties=_encode({**decode(request.olds), **inputs}, news))
        self._log("update", request, inputs, news.secrets, changed=sorted(changed))
        with _errors(context), self._cloud.lock():
            record = self._cloud.get(request.id, _kind(request, context).name)
            if record is None:
                raise answers.Refused(answers.missing(request.id))
            record = actions.update(self._cloud, record, inputs, sorted(news.secrets), changed)
        return provider_pb2.UpdateResponse(properties=_encode(plain.read(record), news))

    def Read(self, request: Any, context: Any) -> Any:  # noqa: N802
        kind, given = _kind(request, context), decode(request.inputs)
        self._log("read", request, {}, ())
        with _errors(context), self._cloud.lock():
            record = actions.read(self._cloud, kind, request.id)
        if record is None:
            return provider_pb2.ReadResponse()
        given.secrets |= frozenset(record.secret)
        outputs = plain.read(record)
        if kind.name == "Instance" and "desiredStatus" in outputs:
            outputs["desiredStatus"] = outputs["currentStatus"]
        inputs = encode(actions.inputs_now(record, given), given.secrets)
        return provider_pb2.ReadResponse(id=record.id, inputs=inputs, properties=_encode(outputs, given))

    def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        kind, state = _kind(request, context), decode(request.properties)
        self._log("delete", request, {}, ())
        with _errors(context), self._cloud.lock():
            actions.delete(self._cloud, kind, request.id, state)
        return empty_pb2.Empty()

    def _log(self, call: str, request: Any, inputs: Mapping[str, Any], secret: Iterable[str], **more: Any) -> None:
        shown = {key: "[secret]" if key in secret else value for key, value in inputs.items()}
        self._cloud.log(call, request.type, urn=request.urn, id=getattr(request, "id", ""), inputs=shown, **more)


def _kind(request: Any, context: Any) -> Kind:
    token = request.type or request.urn.split("::")[2].rsplit("$", 1)[-1]
    if token not in KINDS:
        context.abort(grpc.StatusCode.NOT_FOUND, f"the double of the gcp plugin has no resource {token}")
    return KINDS[token]


def _preview(kind: Kind, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs, and unknown for all that Google computes."""
    outputs: dict[str, Any] = dict.fromkeys(kind.shape.outputs - kind.shape.inputs.keys(), UNKNOWN)
    outputs |= inputs
    if kind.name == "Address":
        outputs.setdefault("address", UNKNOWN)
    if kind.name == "Instance" and isinstance(inputs["networkInterfaces"], list):
        outputs["networkInterfaces"] = [machines.previewed(each) for each in inputs["networkInterfaces"]]
    return outputs


def _encode(outputs: Mapping[str, Any], given: Decoded) -> Any:
    return encode(outputs, given.secrets | _SECRET)


@contextmanager
def _errors(context: Any) -> Generator[None]:
    """Refusals in the frame in which the plugin prints them."""
    try:
        yield
    except actions.Unfinished as error:
        _abort_unfinished(context, error.record, f"1 error occurred:\n\t* {error}\n\n")
    except answers.Refused as error:
        context.abort(grpc.StatusCode.UNKNOWN, f"1 error occurred:\n\t* {error}\n\n")


def _abort_unfinished(context: Any, record: Record, text: str) -> None:
    detail = any_pb2.Any()
    detail.Pack(
        provider_pb2.ErrorResourceInitFailed(
            id=record.id,
            properties=encode(plain.read(record), record.secret),
            inputs=encode(record.inputs, record.secret),
            reasons=[text],
        )
    )
    status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=text, details=[detail])
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode.UNKNOWN, text)
