"""From what will do to an instance that has its secrets: firewall rules, launch, boot, door."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from decimal import Decimal

from providers.base import Interrupted, NoCapacity, PlatformError
from providers.lambda_cloud.boot import user_data
from providers.lambda_cloud.client import (
    DOOR_TAG,
    LABEL_TAG,
    MADE_TAG,
    InstanceType,
    Lambda,
    LambdaInstance,
    Region,
    Tag,
)
from providers.lambda_cloud.door import PORT as DOOR_PORT
from providers.lambda_cloud.door import Door, door_of, new_lock
from providers.lifecycle import ensure_gone, ensure_one, patiently
from providers.native import Context
from serving.guard import API_KEY, PREVIOUS_KEY
from serving.start import one_line, start_env
from serving.tls import Certified, issue

PORT = 8000
NOBODY = "vllm-anywhere-nobody"
"""Lambda wants an SSH key on every instance: this one's private half was never kept."""
NAME_LIMIT = 64
ENDING_S = 900.0
"""Most seconds that an instance may take to end; it bills no more by then, but its firewall rules are in use."""
LONGEST_PAUSE_S = 10.0


@dataclass(frozen=True)
class Order:
    """Everything that an instance needs.

    Attributes:
        types, regions: what will do, best first.
        ssh_key: a key of the account that is put on it; "" for one that nobody has.
        authority: the deployment's CA, whose key stays on this machine.
    """

    label: str
    types: tuple[str, ...]
    regions: tuple[str, ...]
    max_hourly_usd: Decimal | None
    ssh_key: str
    image: str
    script: str
    api_key: str = field(repr=False)
    previous_key: str = field(repr=False)
    hf_token: str | None = field(repr=False)
    authority: Certified
    server_name: str
    timeout_s: float = 1800.0

    @property
    def made(self) -> str:
        """What an instance is made from, as a hash. API keys are not part of it: they change while it serves."""
        known = [self.image, self.script, self.hf_token, self.authority.cert_pem, self.ssh_key]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:32]

    @property
    def keys(self) -> dict[str, str]:
        """What the guard reads anew whenever it changes."""
        return {API_KEY: self.api_key, PREVIOUS_KEY: self.previous_key or self.api_key}


def rent(cloud: Lambda, context: Context, order: Order) -> tuple[LambdaInstance, str]:
    """Exactly one instance under the order's label, with its secrets; and what is wrong with it, "" for nothing.

    Raises:
        NoCapacity: nothing that will do can be had.
        PlatformError: it is not certain that there is exactly one; the text says what may be billed.
    """
    one = ensure_one(
        context,
        order.label,
        create=lambda: _first(cloud, context, order),
        labelled=cloud.labelled,
        destroy=cloud.terminate,
        same=lambda found: found.tag(MADE_TAG) == order.made and found.status in ("booting", "active"),
    )
    ceiling, usd = order.max_hourly_usd, one.instance_type.hourly_usd
    if ceiling is not None and usd > ceiling:
        dear = f"instance {one.id} bills ${usd} an hour, more than ${ceiling}"
        try:
            give_back(cloud, context, one.id, order.label)
        except PlatformError as error:
            return one, f"{dear}, and can't be given back: {error}. `pulumi destroy` tries again"
        raise PlatformError(f"{dear}; it was given back")
    return furnish(cloud, context, order, one)


def give_back(cloud: Lambda, context: Context, id: str, label: str) -> None:
    """Terminate an instance, wait until it is gone, and delete the firewall rules that were made for it.

    Raises:
        PlatformError: it is not certain to be gone.
    """
    begun = context.clock()

    def exists(wanted: str) -> bool:
        one = cloud.get(wanted)
        while one is not None and one.status == "terminating" and context.clock() - begun < ENDING_S:
            context.progress(f"{wanted} is ending")
            context.wait(LONGEST_PAUSE_S)
            one = cloud.get(wanted)
        return one is not None

    ensure_gone(context, id, destroy=cloud.terminate, exists=exists)
    for rules in cloud.rulesets(label) if label else []:
        drop_rules(cloud, context, rules.id)


def drop_rules(cloud: Lambda, context: Context, id: str) -> None:
    """Delete firewall rules, and return once they are gone."""
    ensure_gone(context, id, destroy=cloud.delete_ruleset, exists=lambda wanted: cloud.ruleset(wanted) is not None)


def _first(cloud: Lambda, context: Context, order: Order) -> LambdaInstance:
    """The first instance that can be had, in the order of types and then of regions."""
    offered, tried = cloud.types(), list[str]()
    for name in order.types:
        found = offered.get(name)
        if found is None:
            tried.append(f"{name}: not offered")
            continue
        usd = found.instance_type.hourly_usd
        if order.max_hourly_usd is not None and usd > order.max_hourly_usd:
            tried.append(f"{name}: ${usd} an hour is above ${order.max_hourly_usd}")
            continue
        regions = [region for region in order.regions if region in found.regions]
        for region in regions:
            context.progress(f"renting {name} in {region}")
            try:
                return _launched(cloud, context, order, found.instance_type, region)
            except NoCapacity:
                tried.append(f"{name}: sold out in {region} a moment ago")
        if not regions:
            elsewhere = f", only in {', '.join(found.regions)}" if found.regions else ""
            tried.append(f"{name}: sold out{elsewhere}")
    for rules in patiently(context, lambda: cloud.rulesets(order.label)):
        drop_rules(cloud, context, rules.id)
    raise NoCapacity(f"Lambda has none of the machines that would do: {'; '.join(tried)}. Nothing was rented")


def _launched(cloud: Lambda, context: Context, order: Order, kind: InstanceType, region: str) -> LambdaInstance:
    rules = ensure_one(
        context,
        order.label,
        create=lambda: cloud.create_ruleset(order.label, _rules(order.label, region)),
        labelled=cloud.rulesets,
        destroy=cloud.delete_ruleset,
        same=lambda found: found.region.name == region,
    )
    lock = new_lock(cloud.key, order.label, context.now())
    tags = {LABEL_TAG: order.label, MADE_TAG: order.made, DOOR_TAG: lock.fingerprint}
    body = {
        "region_name": region,
        "instance_type_name": kind.name,
        "ssh_key_names": [_ssh_key(cloud, order.ssh_key)],
        "name": order.label[:NAME_LIMIT],
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
        "firewall_rulesets": [{"id": rules.id}],
        "user_data": user_data(order.image, order.script, lock),
    }
    id = cloud.launch(order.label, body)
    try:
        found = patiently(context, lambda: cloud.get(id))
    except PlatformError as error:
        # It is rented: whatever goes wrong from here on, its id has to reach the state.
        context.progress(f"instance {id} was rented; asking for it failed: {error}")
        told = tuple(Tag(key=key, value=value) for key, value in tags.items())
        return LambdaInstance(id=id, status="booting", region=Region(name=region), instance_type=kind, tags=told)
    if found is None:
        raise PlatformError(f"instance {id} is gone at once; `pulumi up` rents another one")
    return found


def _rules(label: str, region: str) -> dict[str, object]:
    """vLLM and the door, from anywhere. The name is short for sure, and the label in each rule."""
    short = hashlib.sha256(f"{label} {region}".encode()).hexdigest()[:12]
    rules = [
        {"protocol": "tcp", "port_range": [port, port], "source_network": "0.0.0.0/0", "description": label}
        for port in (PORT, DOOR_PORT)
    ]
    return {"name": f"vllm-anywhere-{short}", "region": region, "rules": rules}


def _ssh_key(cloud: Lambda, wanted: str) -> str:
    known = cloud.ssh_keys()
    if wanted and wanted not in known:
        listed = ", ".join(sorted(known)) or "none"
        raise PlatformError(f"the account has no SSH key {wanted} (vllm-anywhere:lambda.ssh_key); it has {listed}")
    if not wanted and NOBODY not in known:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        form = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        cloud.add_ssh_key(NOBODY, Ed25519PrivateKey.generate().public_key().public_bytes(*form).decode())
    return wanted or NOBODY


def furnish(cloud: Lambda, context: Context, order: Order, one: LambdaInstance) -> tuple[LambdaInstance, str]:
    """Hand the order's secrets over, to an instance that boots or to one that serves already.

    Returns it once it has them, or with what kept it from that.
    """
    begun, pause = context.clock(), 0.5
    ways = "It is billed: `pulumi up` tries again, `pulumi destroy` ends it"
    if not one.tag(DOOR_TAG):
        return one, f"instance {one.id} has no door to hand its secrets over. {ways}"
    while True:
        if one.status not in ("booting", "active"):
            return one, f"instance {one.id} is {one.status}. {ways}"
        why = "it boots"
        if one.status == "active" and one.ip:
            try:
                _hand_over(door_of(cloud.key, one), order, one.ip, context)
                return one, ""
            except PlatformError as error:
                why = str(error)
        if context.clock() - begun > order.timeout_s:
            return one, f"instance {one.id} has not taken its secrets after {order.timeout_s:.0f} s: {why}. {ways}"
        context.progress(f"instance {one.id} in {one.region.name}: {why}")
        try:
            context.wait(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE_S)
            found = patiently(context, lambda id=one.id: cloud.get(id))
        except Interrupted:
            return one, f"cancelled while instance {one.id} did not serve yet: {why}. {ways}"
        except PlatformError as error:
            return one, f"instance {one.id} can't be asked whether it serves: {error}. {ways}"
        if found is None:
            raise PlatformError(f"instance {one.id} is gone before it served; `pulumi up` rents another one")
        one = found


def _hand_over(door: Door, order: Order, ip: str, context: Context) -> None:
    """Keys first, which count at once; a server that does not run yet starts when it has both."""
    server = issue(order.authority, order.server_name, [ip], now=context.now())
    environment = start_env(
        api_key=order.api_key,
        tls_key=one_line(server.key_pem),
        tls_cert=one_line(server.cert_pem),
        hf_token=order.hf_token,
    )
    door.put("/keys", order.keys)
    door.put("/env", environment)
