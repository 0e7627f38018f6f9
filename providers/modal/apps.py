"""`vllm-anywhere:modal:App`: an app with one function, the vLLM server that Modal starts for requests.

Autoscaling changes at once, on the containers that run. Key, concurrency and time-outs are a new version of the same
app, at the same address. What a container runs, and on what, is another app: the old one serves until the new one has
answered. An app belongs to its name within an environment, so a create never deploys over one that isn't ours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, SecretStr

from providers.base import CreateUncertain, PlatformError
from providers.lifecycle import ensure_gone, ensure_one
from providers.modal.client import Deployed, Modal, Shape, connect
from providers.modal.definition import Definition
from providers.modal.labels import id_of, name_of, owns, split_id, tags_of
from providers.modal.vllm_anywhere_start import SCRIPT
from providers.native import (
    UNKNOWN,
    Context,
    Created,
    Failure,
    Found,
    Labelled,
    NativeResource,
    Properties,
    generation_in,
)
from serving.gpus import all_gpus
from serving.start import start_env

MOST_GPUS: Mapping[str, int] = {"A10": 4}
"""GPUs of one container where they are fewer than 8: https://modal.com/docs/guide/gpu."""

_DRAIN_S = 15.0
_REPEAT_PAUSES_S = (1.0, 2.0, 4.0)
SCALING = frozenset({"min_containers", "max_containers", "scaledown_window_s"})
"""What changes without a new version."""


class AppInputs(Labelled):
    """What runs, on what, and how much of it."""

    environment: str = Field(min_length=1, description="Modal environment.")
    gpus: list[str] = Field(min_length=1, description="GPUs by Modal's names, first choice first.")
    gpu_count: int = Field(default=1, ge=1, le=8, description="GPUs of a container.")
    cpu: int = Field(default=4, ge=1, le=64, description="Physical CPU cores of a container.")
    memory_gib: int = Field(default=16, ge=1, le=336, description="Memory of a container, GiB.")
    regions: list[str] = Field(default=[], description="Where containers may be, by Modal's names; empty: anywhere.")
    routing_region: str = Field(default="", description="Where requests enter Modal; its own choice if empty.")
    image: str = Field(min_length=1, description="Container image, pinned.")
    script: str = Field(min_length=1, description="POSIX sh script that ends in the server.")
    env: dict[str, str] = Field(default={}, description="Environment variables that are not secret.")
    volume: str = Field(default="", description="Name of the volume at /cache; empty for none.")
    min_containers: int = Field(default=0, ge=0, description="Containers that always run, and are always billed.")
    max_containers: int = Field(default=1, ge=1, description="Most containers at once.")
    scaledown_window_s: int = Field(
        default=60, ge=2, le=3600, description="Seconds without requests until a container ends."
    )
    concurrency: int = Field(default=32, ge=1, le=1000, description="Requests that a container answers together.")
    timeout_s: int = Field(default=600, ge=1, le=86400, description="Longest that one request may take.")
    startup_timeout_s: int = Field(default=900, ge=1, le=86400, description="Longest that a start may take.")
    api_key: SecretStr = Field(description="The key that requests must carry.")
    previous_key: SecretStr = Field(default=SecretStr(""), description="A key that counts too; empty for none.")
    hf_token: SecretStr | None = Field(default=None, description="Hugging Face token for gated models.")
    status: str = Field(
        default="deployed",
        description="Leave it: refresh says `redeployed` here when somebody else deployed, and `up` deploys again.",
    )


class AppOutputs(Properties):
    """The app as it is deployed."""

    label: str = Field(description="project/stack/resource/generation-owner, which is in the app's tags.")
    app_id: str = Field(description="Modal's id; another one after a stop.")
    endpoint: str = Field(description="OpenAI base URL.")
    version: int = Field(description="Counts the deployments of this app.")
    revision: str = Field(description="Digest of what a container runs, and on what.")
    run: str = Field(description="Changes whenever containers are started anew.")


class App(NativeResource[AppInputs, AppOutputs]):
    """Lifecycle of an app. Its id is environment/name."""

    token: ClassVar[str] = "vllm-anywhere:modal:App"
    doc: ClassVar[str] = "A Modal app that serves one model with vLLM, scaled by Modal."
    inputs = AppInputs
    outputs = AppOutputs
    replace_on: ClassVar[frozenset[str]] = frozenset(
        {
            *("environment", "gpus", "gpu_count", "cpu", "memory_gib", "regions", "routing_region"),
            *("image", "script", "env", "volume"),
        }
    )

    def check(self, inputs: Mapping[str, Any]) -> list[Failure]:
        failures: list[Failure] = []
        known = gpu_names()
        for name in inputs.get("gpus", ()):
            if name not in known:
                failures.append(Failure("gpus", f"Modal rents no {name}; it has {', '.join(known)}"))
            elif inputs.get("gpu_count", 1) > MOST_GPUS.get(name, 8):
                failures.append(Failure("gpu_count", f"a container takes at most {MOST_GPUS[name]} of {name}"))
        if inputs.get("min_containers", 0) > inputs.get("max_containers", 1):
            failures.append(Failure("min_containers", "at most `maxContainers`"))
        return failures

    def satisfied(self, changed: frozenset[str], new: Mapping[str, Any], outputs: Mapping[str, Any]) -> frozenset[str]:
        # An import can't read image and script back; the revision says whether they are what is wanted.
        wanted = {name: new.get(name, AppInputs.model_fields[name].default) for name in self.replace_on}
        if any(value is UNKNOWN for value in wanted.values()) or outputs.get("revision") != _digest(wanted):
            return frozenset()
        return changed

    def create(self, context: Context, inputs: AppInputs) -> Created[AppOutputs]:
        return self.create_in(_account(context), context, inputs)

    def create_in(self, cloud: Modal, context: Context, inputs: AppInputs) -> Created[AppOutputs]:
        """`create`, in a given account.

        Raises:
            PlatformError: an app of that name exists and isn't ours.
        """
        id = id_of(inputs.environment, name_of(inputs.label))
        definition = definition_of(inputs)
        made: list[Deployed] = []

        def there() -> list[Deployed]:
            app = cloud.app(id)
            return [] if app is None else [_ours(app, inputs.label)]

        def create() -> Deployed:
            cloud.deploy(id, definition, inputs.label)
            made.append(_deployed(cloud, id))
            return made[0]

        there()
        context.progress(f"deploying {id}; Modal builds the image first, if it is new there")
        app = ensure_one(
            context,
            inputs.label,
            create=create,
            labelled=lambda label: there(),
            destroy=lambda _: self.stop_in(cloud, context, id, inputs.label),
            same=lambda app: app.revision == revision_of(inputs),
        )
        if not made:
            # What an interrupted create has left may have another key, or other limits.
            app = _deploy(cloud, context, id, inputs)
        context.progress(f"{id} is deployed; {_bills(inputs)}")
        return Created(id, _outputs(app, cloud.shape(id)))

    def read(
        self, context: Context, id: str, inputs: AppInputs | None, outputs: AppOutputs | None
    ) -> Found[AppInputs, AppOutputs] | None:
        return self.read_in(connect(context.pause), id, inputs, outputs)

    def read_in(
        self, cloud: Modal, id: str, inputs: AppInputs | None, outputs: AppOutputs | None
    ) -> Found[AppInputs, AppOutputs] | None:
        """`read`, in a given account. A stopped app is gone: Modal never starts it again.

        Raises:
            PlatformError: it is to be imported, and has no function that serves.
        """
        app = cloud.app(id)
        if app is None or (outputs is not None and app.label != outputs.label):
            return None
        shape = cloud.shape(id)
        if inputs is None or outputs is None:
            if shape is None:
                raise PlatformError(f"{id} has no function `serve` that is a web server, so it can't be adopted")
            return Found(_imported(app, shape), _outputs(app, shape))
        seen = _outputs(app, shape).model_copy(update={"version": outputs.version, "run": outputs.run})
        # All but the autoscaler can only change with the version; Modal may spell what it is asked for in its own way.
        changed: dict[str, Any] = {name: _seen(shape)[name] for name in SCALING} if shape else {}
        if shape is None or app.version != outputs.version:
            changed["status"] = "redeployed"
        return Found(inputs.model_copy(update=changed), seen)

    def update(
        self, context: Context, id: str, outputs: AppOutputs, old: AppInputs, new: AppInputs
    ) -> Created[AppOutputs]:
        return self.update_in(_account(context), context, id, outputs, old, new)

    def update_in(
        self, cloud: Modal, context: Context, id: str, outputs: AppOutputs, old: AppInputs, new: AppInputs
    ) -> Created[AppOutputs]:
        """`update`, in a given account."""
        app = cloud.app(id)
        if app is None or app.label != outputs.label:
            raise PlatformError(
                f"the app {id} was stopped, and nothing is billed for it; `pulumi refresh`, then `pulumi up` deploys "
                "another"
            )
        if _changed(old, new) <= SCALING:
            cloud.scale(id, new.min_containers, new.max_containers, new.scaledown_window_s)
            return Created(id, _outputs(app, cloud.shape(id)).model_copy(update={"run": outputs.run}))
        context.progress(f"deploying a new version of {id}")
        app = _deploy(cloud, context, id, new, recreate=_ends_a_key(old, new))
        return Created(id, _outputs(app, cloud.shape(id)))

    def delete(self, context: Context, id: str, outputs: AppOutputs) -> None:
        self.delete_in(connect(context.pause), context, id, outputs.label)

    def delete_in(self, cloud: Modal, context: Context, id: str, label: str) -> None:
        """`delete`, in a given account: an app of that name that isn't ours any more stays as it is."""

        def exists(id: str) -> bool:
            app = cloud.app(id)
            return app is not None and app.label == label

        _drain(cloud, context, id)
        ensure_gone(context, id, destroy=lambda id: self.stop_in(cloud, context, id, label), exists=exists)

    def stop_in(self, cloud: Modal, context: Context, id: str, label: str) -> None:
        """Stop the app of that name, if it is the one with that label."""
        app = cloud.app(id)
        if app is not None and app.label == label:
            context.progress(f"stopping {id}")
            cloud.stop(app)


def _account(context: Context) -> Modal:
    return connect(context.pause, deploy_timeout_s=context.timeout_s)


def gpu_names() -> list[str]:
    """Every GPU that Modal rents, by Modal's own names."""
    return [name for card in all_gpus() for name in card.platform_names.get("modal", ())]


def revision_of(inputs: AppInputs) -> str:
    """Digest of what a container runs, and on what: equal for apps that needn't be replaced by one another."""
    return _digest({name: getattr(inputs, name) for name in App.replace_on})


def definition_of(inputs: AppInputs) -> Definition:
    """The app for Modal. The script is no secret, but too long for anything else that reaches the container."""
    count = f":{inputs.gpu_count}" if inputs.gpu_count > 1 else ""
    keys = start_env(
        api_key=inputs.api_key.get_secret_value(),
        previous_key=inputs.previous_key.get_secret_value() or None,
        hf_token=inputs.hf_token.get_secret_value() if inputs.hf_token else None,
    )
    return Definition(
        tags=tags_of(inputs.label, revision_of(inputs)),
        gpus=tuple(f"{name}{count}" for name in inputs.gpus),
        cpu=float(inputs.cpu),
        memory_mib=inputs.memory_gib * 1024,
        regions=tuple(inputs.regions),
        routing_region=inputs.routing_region,
        image=inputs.image,
        secrets={**inputs.env, SCRIPT: inputs.script, **keys},
        volume=inputs.volume,
        min_containers=inputs.min_containers,
        max_containers=inputs.max_containers,
        scaledown_window_s=inputs.scaledown_window_s,
        concurrency=inputs.concurrency,
        timeout_s=inputs.timeout_s,
        startup_timeout_s=inputs.startup_timeout_s,
    )


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=repr).encode()).hexdigest()[:32]


def _ours(app: Deployed, label: str) -> Deployed:
    """
    Raises:
        PlatformError: it isn't what was created under that label.
    """
    if owns(label, app.tags):
        return app
    environment, name = split_id(app.id)
    whose = f"is {app.label} of this tool" if app.label else "was deployed by something else"
    raise PlatformError(
        f"Modal has an app {app.id} already, which {whose}; nothing was changed. Stop it (`modal app stop {name} "
        f"-e {environment}`), deploy to another environment (`vllm-anywhere:modal.environment`), or adopt it: "
        f"`pulumi import {App.token} server {app.id} --parent deployment=<URN>`, with the URN that `pulumi stack "
        "--show-urns` has"
    )


def _deploy(cloud: Modal, context: Context, id: str, inputs: AppInputs, *, recreate: bool = False) -> Deployed:
    """Deploy over what is there. Unlike a create this may be repeated: the same definition again changes nothing."""
    for pause in _REPEAT_PAUSES_S:
        try:
            cloud.deploy(id, definition_of(inputs), inputs.label, "recreate" if recreate else "rolling")
            return _deployed(cloud, id)
        except CreateUncertain as error:
            context.progress(f"trying again: {error}")
            context.wait(pause)
    cloud.deploy(id, definition_of(inputs), inputs.label, "recreate" if recreate else "rolling")
    return _deployed(cloud, id)


def _deployed(cloud: Modal, id: str) -> Deployed:
    app = cloud.app(id)
    if app is None:
        raise PlatformError(f"{id} was deployed, and somebody has stopped it since; `pulumi up` deploys it again")
    return app


def _changed(old: AppInputs, new: AppInputs) -> frozenset[str]:
    return frozenset(name for name in AppInputs.model_fields if getattr(old, name) != getattr(new, name))


def _ends_a_key(old: AppInputs, new: AppInputs) -> bool:
    """Whether a key that counted has to end now. A rotation does not: what serves may finish with the key before."""
    if (old.api_key, old.previous_key) == (new.api_key, new.previous_key):
        return False
    return old.api_key == new.api_key or old.api_key != new.previous_key


def _seen(shape: Shape) -> dict[str, Any]:
    return {
        "gpus": [name for name, _ in shape.gpus],
        "gpu_count": max((count for _, count in shape.gpus), default=1),
        "cpu": max(1, round(shape.cpu)),
        "memory_gib": max(1, shape.memory_mib // 1024),
        "regions": list(shape.regions),
        "routing_region": shape.routing_region,
        "min_containers": shape.min_containers,
        "max_containers": max(1, shape.max_containers),
        "scaledown_window_s": shape.scaledown_window_s,
        "concurrency": shape.concurrency,
        "timeout_s": shape.timeout_s,
    }


def _imported(app: Deployed, shape: Shape) -> AppInputs:
    """What can be read; image and script say that they can't."""
    return AppInputs(
        label=app.label,
        generation=generation_in(app.label),
        environment=split_id(app.id)[0],
        image="unknown",
        script="unknown",
        api_key=SecretStr(""),
        **_seen(shape),
    )


def _outputs(app: Deployed, shape: Shape | None) -> AppOutputs:
    return AppOutputs(
        label=app.label,
        app_id=app.app_id,
        endpoint=f"{shape.url}/v1" if shape else "",
        version=app.version,
        revision=app.revision,
        run=f"{app.app_id}/{app.version}",
    )


def _drain(cloud: Modal, context: Context, id: str) -> None:
    """Let requests finish for a moment: a stop cuts them off."""
    begun = context.clock()
    while context.clock() - begun < _DRAIN_S:
        try:
            load = cloud.load(id)
        except PlatformError as error:
            context.progress(f"how busy {id} is can't be asked: {error}")
            return
        if load is None or not load.requests:
            return
        context.progress(f"{load.requests} requests are being answered by {id}")
        context.wait(1.0)


def _bills(inputs: AppInputs) -> str:
    if inputs.min_containers:
        return f"{inputs.min_containers} containers are billed from now on"
    return "nothing is billed until a request comes"
