"""Values on Pulumi's wire: protobuf structs with marks for secrets and for what is not known yet.

The marks are the engine's (sdk/go/common/resource/properties.go, plugin/rpc.go).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from typing import Any

from google.protobuf import struct_pb2
from pydantic import BaseModel, SecretStr

from providers.native import UNKNOWN, Unknown

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"
OUTPUT = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
UNKNOWNS = frozenset(
    {
        "04da6b54-80e4-46f7-96ec-b56ff0331ba9",
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
        "030794c1-ac77-496b-92df-f27374a8bd58",
        "e48ece36-62e2-4504-bad9-02848725956a",
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
    }
)
"""One sentinel for each kind of value that isn't known yet: bool, number, string, array, asset or archive, object."""
_UNKNOWN_TEXT = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


class Decoded(dict[str, Any]):
    """Decoded properties; `secrets` names the top-level ones that hold a secret at any depth."""

    secrets: frozenset[str] = frozenset()


def decode(struct: struct_pb2.Struct) -> Decoded:
    """A struct as plain values, with `UNKNOWN` for what isn't known and secrets unwrapped."""
    decoded = Decoded()
    secrets: set[str] = set()
    for key, value in struct.fields.items():
        found: list[bool] = []
        decoded[key] = _decode(value, found)
        if found:
            secrets.add(key)
    decoded.secrets = frozenset(secrets)
    return decoded


def _decode(value: struct_pb2.Value, secret: list[bool]) -> Any:
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "string_value":
            return UNKNOWN if value.string_value in UNKNOWNS else value.string_value
        case "bool_value":
            return value.bool_value
        case "list_value":
            return [_decode(item, secret) for item in value.list_value.values]
        case "struct_value":
            fields = value.struct_value.fields
            mark = fields[SIGNATURE].string_value if SIGNATURE in fields else ""
            if mark == SECRET:
                secret.append(True)
                return _decode(fields["value"], secret)
            if mark == OUTPUT:
                if fields["secret"].bool_value if "secret" in fields else False:
                    secret.append(True)
                return _decode(fields["value"], secret) if "value" in fields else UNKNOWN
            return {key: _decode(item, secret) for key, item in fields.items()}
        case _:
            return None


def encode(properties: Mapping[str, Any], secrets: Collection[str] = ()) -> struct_pb2.Struct:
    """Plain values as a struct. `secrets` names top-level properties to mark secret; a `SecretStr` always is."""
    struct = struct_pb2.Struct()
    for key, value in properties.items():
        if value is None:
            continue
        encoded = _encode(value)
        if key in secrets and not isinstance(value, SecretStr):
            encoded = _secret(encoded)
        struct.fields[key].CopyFrom(encoded)
    return struct


def encode_model(model: BaseModel, secrets: Collection[str] = ()) -> struct_pb2.Struct:
    """A model's fields under their wire names, without the ones that are None."""
    return encode(wire_fields(model), secrets)


def wire_fields(model: BaseModel) -> dict[str, Any]:
    """A model's fields under their wire names; secrets stay `SecretStr`."""
    return model.model_dump(by_alias=True, exclude_none=True)


def _secret(value: struct_pb2.Value) -> struct_pb2.Value:
    wrapped = struct_pb2.Value()
    wrapped.struct_value.fields[SIGNATURE].string_value = SECRET
    wrapped.struct_value.fields["value"].CopyFrom(value)
    return wrapped


def _encode(value: Any) -> struct_pb2.Value:
    match value:
        case None:
            return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
        case Unknown():
            return struct_pb2.Value(string_value=_UNKNOWN_TEXT)
        case SecretStr():
            return _secret(struct_pb2.Value(string_value=value.get_secret_value()))
        case bool():
            return struct_pb2.Value(bool_value=value)
        case int() | float():
            return struct_pb2.Value(number_value=value)
        case Decimal():
            return struct_pb2.Value(string_value=str(value))
        case str():
            return struct_pb2.Value(string_value=value)
        case BaseModel():
            return struct_pb2.Value(struct_value=encode(wire_fields(value)))
        case Mapping():
            items: Mapping[str, Any] = value
            return struct_pb2.Value(struct_value=struct_pb2.Struct(fields={k: _encode(v) for k, v in items.items()}))
        case Iterable():
            values: Iterable[Any] = value
            return struct_pb2.Value(list_value=struct_pb2.ListValue(values=[_encode(v) for v in values]))
        case _:
            raise TypeError(f"{type(value).__name__} has no form on Pulumi's wire")


def has_unknown(value: Any) -> bool:
    """Whether a decoded value has something unknown at any depth."""
    match value:
        case Unknown():
            return True
        case Mapping():
            items: Mapping[str, Any] = value
            return any(has_unknown(item) for item in items.values())
        case list():
            values: list[Any] = value
            return any(has_unknown(item) for item in values)
        case _:
            return False
