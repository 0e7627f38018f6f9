"""Check, as the plugin does it: names, types and values by the SDK and the tables, and names of Pulumi's making."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from typing import Any

from providers.native import Unknown
from tests.doubles.gcp import sdk
from tests.doubles.gcp.kinds import EITHER, LABEL, ONE_OF, PATTERNS, VALUES, Kind
from tests.doubles.gcp.sdk import Failure

DEFAULTS = "__defaults"
"""The property in which the plugin keeps which inputs it has filled in."""


def failures(kind: Kind, given: Mapping[str, Any]) -> list[Failure]:
    """Everything that is wrong with inputs on the wire, by path."""
    wrong = list(sdk.failures(given, kind.shape.inputs))
    if wrong:
        return sorted(wrong, key=lambda each: each.path)
    return [*_values(given), *_pairs(kind, given), *_rules(kind, given)]


def named(kind: Kind, given: dict[str, Any], old: Mapping[str, Any], urn: str) -> dict[str, Any]:
    """The inputs with a name: the program's, the one of before, or one made of the resource's and seven letters."""
    if not kind.named or given.get(kind.named) is not None:
        return {**given, DEFAULTS: []}
    made = old.get(kind.named) if kind.named in old.get(DEFAULTS, ()) else None
    if not made and "namePrefix" in given:
        made = f"{given['namePrefix']}{random.randrange(10**20):026d}"
    stem = urn.rsplit("::", 1)[-1]
    return {**given, kind.named: made or f"{stem}-{random.randrange(16**7):07x}", DEFAULTS: [kind.named]}


def without_defaults(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs without the plugin's own marks."""
    return {key: value for key, value in inputs.items() if not key.startswith("__")}


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every text in inputs with its path."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            if not key.startswith("__"):
                yield from walk(each, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from walk(each, f"{path}[{index}]")
    else:
        yield path, value


def _values(given: Mapping[str, Any]) -> Iterator[Failure]:
    for path, value in walk(given):
        plain = re.sub(r"\[\d+\]", "", path)
        if not isinstance(value, str):
            continue
        if plain in VALUES and value not in VALUES[plain]:
            yield Failure(path, f"expected {plain} to be one of {sorted(VALUES[plain])}, got {value}")
        if plain in PATTERNS and not PATTERNS[plain].fullmatch(value):
            yield Failure(path, f"{value!r} doesn't match regexp {PATTERNS[plain].pattern!r}")


def _pairs(kind: Kind, given: Mapping[str, Any]) -> Iterator[Failure]:
    for group in EITHER.get(kind.name, ()):
        if len(both := [name for name in group if given.get(name) is not None]) > 1:
            yield Failure(both[0], f"{both[0]!r} conflicts with {both[1]!r}")
    for group in ONE_OF.get(kind.name, ()):
        if all(given.get(name) is None for name in group):
            yield Failure(group[0], f"one of {', '.join(group)} must be specified")
    if kind.name == "SecretVersion" and ("secretDataWo" in given) is not ("secretDataWoVersion" in given):
        yield Failure("secretDataWo", "all of `secretDataWo,secretDataWoVersion` must be specified")


def _rules(kind: Kind, given: Mapping[str, Any]) -> Iterator[Failure]:
    for key, value in _known(given.get("labels"), {}).items():
        if not LABEL[0].fullmatch(key) or not (isinstance(value, Unknown) or LABEL[1].fullmatch(value)):
            yield Failure(
                f'labels["{key}"]', f"{key}={value} is no label: lowercase letters, digits, _ and -, at most 63"
            )
    if "startup-script" in _known(given.get("metadata"), {}) and given.get("metadataStartupScript") is not None:
        yield Failure(
            "metadataStartupScript", "only one of metadata.startup-script and metadata_startup_script may be set"
        )
    disk = _known(given.get("bootDisk"), {})
    if "source" in disk and "initializeParams" in disk:
        yield Failure("bootDisk.source", "'boot_disk.0.source' conflicts with 'boot_disk.0.initialize_params'")
    if kind.name == "Instance" and disk and not disk.keys() & {"source", "initializeParams"}:
        yield Failure("bootDisk", "one of initializeParams and source must be specified")
    for index, interface in enumerate(_known(given.get("networkInterfaces"), [])):
        if isinstance(interface, dict) and not interface.keys() & {"network", "subnetwork", "networkAttachment"}:
            yield Failure(f"networkInterfaces[{index}]", "exactly one of network, subnetwork must be specified")
    replication = given.get("replication")
    if isinstance(replication, dict) and len(replication.keys() & {"auto", "userManaged"}) != 1:
        yield Failure("replication", "one of `replication.0.auto,replication.0.user_managed` must be specified")
    sources = given.keys() & {"sourceRanges", "sourceTags", "sourceServiceAccounts"}
    if kind.name == "Firewall" and given.get("direction", "INGRESS") == "INGRESS" and not sources:
        names = "source_ranges, source_tags, or source_service_accounts"
        yield Failure("sourceRanges", f"one of {names} must be defined when direction is INGRESS")
    healing = _known(given.get("autoHealingPolicies"), {})
    delay = healing.get("initialDelaySec")
    if isinstance(delay, int | float) and not 0 <= delay <= 3600:
        yield Failure("autoHealingPolicies.initialDelaySec", f"expected to be in the range (0 - 3600), got {delay}")
    policy = _known(given.get("updatePolicy"), {})
    if policy.get("replacementMethod") == "RECREATE" and policy.get("maxSurgeFixed", 1) != 0:
        yield Failure("updatePolicy.maxSurgeFixed", "must be 0 when the replacement method is RECREATE")


def _known(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None or isinstance(value, Unknown) else value
