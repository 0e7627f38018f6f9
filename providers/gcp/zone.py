"""`vllm-anywhere:gcp:Zone`: the first of the wanted zones that has capacity now.

Pulumi creates a resource with the inputs that it was registered with; so a VM that meets a sold-out zone fails the
whole `up`. The one question whose answer counts is an order: a reservation of one such machine is granted where there
is capacity and refused where there is none (https://cloud.google.com/compute/docs/instances/reservations-overview).
It is given back at once, at the VM's own price for the seconds that it stood: held any longer it might take the quota
of one GPU that the VM needs. Somebody else may take the place in those seconds. Spot capacity can't be reserved.

Only emulated: no reservation was ever made by this code on Google Cloud.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from providers.base import Interrupted, NoCapacity, PlatformError
from providers.gcp.errors import refusal
from providers.native import Context, Created, Failure, Found, Labelled, NativeResource, Properties

FORGOTTEN_S = 900
"""After that Google deletes what we could not, within two hours."""
GIVE_BACK_TRIES = 3
_NOTHING = (
    "Nothing is reserved and no VM was made, so neither is billed. The address, which is billed, and the secrets are "
    "kept for the next `up`; `pulumi destroy` removes them."
)
_STILL = "Nothing is reserved; the VM that runs is untouched, serves and is billed as before."
OPERATION_S = 120.0
PAUSE_S = 2.0


class ZoneInputs(Labelled):
    """What is looked for."""

    zones: list[str] = Field(description="Zones of one region, in the order in which they are tried.")
    machine_type: str = Field(description="Machine type.")
    accelerator: str = Field(default="", description="GPU to attach; empty where it comes with the machine type.")
    accelerator_count: int = Field(default=1, description="How many of them.")
    slug: str = Field(description="The stack's name on Google Cloud: the VM's, and the reservation's.")
    project: str = Field(description="Project id.")
    status: str = Field(default="taken", description="Leave it: refresh says `free` where the VM is gone.")


class ZoneOutputs(Properties):
    """What was found."""

    zone: str = Field(description="The zone.")
    project: str = Field(description="Project id.")
    asked: bool = Field(description="Whether Google granted a reservation there; False took the zone unasked.")


class Zone(NativeResource[ZoneInputs, ZoneOutputs]):
    """A zone with capacity. It is looked for again when the VM is gone or another machine is wanted."""

    token: ClassVar[str] = "vllm-anywhere:gcp:Zone"
    doc: ClassVar[str] = "The first zone that has capacity."
    inputs = ZoneInputs
    outputs = ZoneOutputs

    def check(self, inputs: Mapping[str, Any]) -> list[Failure]:
        return [Failure("zones", "at least one zone")] if inputs.get("zones") == [] else []

    def create(self, context: Context, inputs: ZoneInputs) -> Created[ZoneOutputs]:
        return Created(inputs.slug, self.search(context, inputs, _connect(context)))

    def read(
        self, context: Context, id: str, inputs: ZoneInputs | None, outputs: ZoneOutputs | None
    ) -> Found[ZoneInputs, ZoneOutputs] | None:
        if inputs is None or outputs is None:
            raise PlatformError("a zone can't be imported; name the VM's own in vllm-anywhere:gcp.zones")
        google = _connect(context)
        there = None if google is None else _there(google, f"{_at(inputs, outputs.zone)}/instances/{inputs.slug}")
        return Found(inputs.model_copy(update={"status": "free" if there is False else "taken"}), outputs)

    def update(
        self, context: Context, id: str, outputs: ZoneOutputs, old: ZoneInputs, new: ZoneInputs
    ) -> Created[ZoneOutputs]:
        # A VM that stays keeps its zone: it has the one GPU of the usual quota, so nothing could be reserved.
        there = old.status == "taken"
        if there and _gpu(old) == _gpu(new) and outputs.zone in new.zones:
            return Created(id, outputs)
        return Created(id, self.search(context, new, _connect(context), there=there))

    def delete(self, context: Context, id: str, outputs: ZoneOutputs) -> None:
        """Give back what an interrupted search may have left."""
        if (google := _connect(context)) is not None:
            _give_back(context, google, f"projects/{outputs.project}/zones/{outputs.zone}", id)

    def search(self, context: Context, inputs: ZoneInputs, google: Any | None, *, there: bool = False) -> ZoneOutputs:
        """The first zone with capacity; without a way to ask, the first. `there`: a VM runs that is to be replaced.

        Raises:
            NoCapacity: none of the zones has any.
            PlatformError: a quota or another refusal that no other zone would change.
        """
        if google is None:
            return ZoneOutputs(zone=inputs.zones[0], project=inputs.project, asked=False)
        for zone in inputs.zones:
            context.progress(f"asking for {inputs.machine_type} in {zone}")
            problem = _reserve(context, google, inputs, zone)
            if not problem:
                _give_back(context, google, _at(inputs, zone), inputs.slug)
                return ZoneOutputs(zone=zone, project=inputs.project, asked=True)
            known = refusal(problem)
            if known and known.kind.startswith("quota") and not there:
                raise PlatformError(f"{problem}\n{known.advice} {_NOTHING}")
            if not (known and known.another_zone):
                # Whether reservations are allowed here is not what was asked; the VM itself may be. And a quota may be
                # used up by the very VM that makes room.
                context.progress(f"nothing can be reserved in {zone}, so it is tried as it is: {problem}")
                return ZoneOutputs(zone=zone, project=inputs.project, asked=False)
        raise NoCapacity(_none(inputs.zones, there))


def _gpu(one: ZoneInputs) -> tuple[str, str, int]:
    """Family and GPU: whatever else changes, a VM does in place."""
    return one.machine_type.partition("-")[0], one.accelerator, one.accelerator_count


def _none(zones: Sequence[str], there: bool) -> str:
    return (
        f"none of {', '.join(zones)} has such a machine now. {_STILL if there else _NOTHING} "
        "`pulumi up` asks again. Another region: "
        "`pulumi config set --path 'vllm-anywhere:placement.regions[0]' <region>`; another GPU: "
        "`pulumi config set --path 'vllm-anywhere:hardware.gpus[0]' L4`; spot or later: `vllm-anywhere:gcp.ha: mig`."
    )


def _at(inputs: ZoneInputs, zone: str) -> str:
    return f"projects/{inputs.project}/zones/{zone}"


def _connect(context: Context) -> Any | None:
    from providers.gcp.client import connect

    try:
        return connect()
    except PlatformError as error:
        context.progress(f"zones can't be compared: {error}")
        return None


def _there(google: Any, path: str) -> bool | None:
    """Whether something exists; None when that can't be told."""
    from providers.gcp.client import Refused

    try:
        google.get("compute", path)
    except Refused as error:
        return False if error.status == 404 else None
    except PlatformError:
        return None
    return True


def _reserve(context: Context, google: Any, inputs: ZoneInputs, zone: str) -> str:
    """Reserve one machine in a zone; "" once it is, else why not.

    The reservation's name is the stack's, so however often it is asked for there is at most one in a zone.
    """
    at = _at(inputs, zone)
    gpus = [{"acceleratorType": inputs.accelerator, "acceleratorCount": inputs.accelerator_count}]
    body = {
        "name": inputs.slug,
        "description": inputs.label,
        "specificReservationRequired": False,
        "specificReservation": {
            "count": "1",
            "instanceProperties": {
                "machineType": inputs.machine_type,
                **({"guestAccelerators": gpus} if inputs.accelerator else {}),
            },
        },
        "deleteAfterDuration": {"seconds": str(FORGOTTEN_S)},
    }
    from providers.gcp.client import Refused

    try:
        operation = google.call("POST", "compute", f"{at}/reservations", body)
        problem = _done(context, google, at, operation)
    except Refused as error:
        problem = "" if error.status == 409 else error.text
    except Interrupted:
        _give_back(context, google, at, inputs.slug)
        raise
    except PlatformError as error:
        # The answer is lost, not the order: what there is says what became of it.
        problem = "" if _there(google, f"{at}/reservations/{inputs.slug}") else str(error)
    return problem


def _give_back(context: Context, google: Any, at: str, name: str) -> None:
    """Delete a reservation; what is gone already is success."""
    from providers.gcp.client import Refused

    problem = ""
    for _ in range(GIVE_BACK_TRIES):
        try:
            problem = _done(context, google, at, google.call("DELETE", "compute", f"{at}/reservations/{name}"))
        except Refused as error:
            if error.status == 404:
                return
            problem = error.text
            if error.status < 500:
                break
        except PlatformError as error:
            problem = str(error)
        if not problem:
            return
        context.wait(PAUSE_S)
    # The VM takes what is reserved, and pays once.
    context.progress(f"the reservation {at}/reservations/{name} stays for two hours at most: {problem}")


def _done(context: Context, google: Any, at: str, operation: Mapping[str, Any]) -> str:
    """Wait for an operation; "" when it did its work, else its error's code and text."""
    begun = context.clock()
    while operation.get("status") != "DONE":
        if context.clock() - begun > OPERATION_S:
            return f"no answer in {OPERATION_S:.0f} s"
        context.wait(PAUSE_S)
        operation = google.get("compute", f"{at}/operations/{operation['name']}")
    errors = (operation.get("error") or {}).get("errors") or []
    return "; ".join(f"{error.get('code', '')}: {error.get('message', '')}" for error in errors)
