"""What every program declares, whatever it deploys: how a bad config ends it, the API key, the readiness gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import pulumi
from pulumi.runtime import config as stack_config

from providers.base import KEY, Declaration, Declared, PlatformError, Ref, Text
from providers.replicas import Replica
from serving import NAMESPACE
from serving.spec import ApiKeySpec, Problem, ReadySpec, SpecError

P = TypeVar("P")


def planned(make: Callable[[Mapping[str, str]], P], failed: str) -> P:
    """What is made of the stack's config; `failed` says what can't be done where that is wrong.

    Raises:
        pulumi.RunError: when nothing can be made; its text names every key that is wrong.
    """
    try:
        return make({**stack_config.get_config_env(), **stack_config.CONFIG.get()})
    except SpecError as error:
        listed = "\n".join(f"  {_masked(problem)}" for problem in error.problems)
        raise pulumi.RunError(f"nothing was created: {failed}\n{listed}") from None
    except PlatformError as error:
        raise pulumi.RunError(f"nothing was created: {error}") from None


def _masked(problem: Problem) -> Problem:
    """The problem without its value, if the stack config holds that as a secret."""
    section = problem.key.split(".", 1)[0]
    return replace(problem, value="[secret]") if stack_config.is_config_secret(section) else problem


def api_key(asked: ApiKeySpec) -> Declaration:
    """The key that clients send: the user's own, or one that is made."""
    own = pulumi.Config(NAMESPACE).get_secret("own_api_key")
    inputs = {"rotation": asked.rotation, "keepPrevious": asked.keep_previous, **({"own": own} if own else {})}
    return Declaration(KEY.resource, f"{NAMESPACE}:index:ApiKey", inputs)


def ready(declared: Declared, server: Replica, asked: ReadySpec, platform: str, *, may_sleep: bool) -> Declaration:
    """The gate of one server, which opens when that has answered; `platform` is whose client has its log."""
    return Declaration(
        server.ready,
        f"{NAMESPACE}:index:Ready",
        {
            "endpoint": server.endpoint,
            "apiKey": KEY,
            "model": declared.model,
            "platform": platform,
            "serverId": Ref(server.name, "id"),
            "run": server.run if isinstance(server.run, Text) else Text("{}", (server.run,)),
            "timeoutS": asked.timeout_s,
            **({"keyDelayS": declared.key_delay_s} if declared.key_delay_s else {}),
            **({"caPem": server.ca} if server.ca else {}),
            **({} if asked.wake or not may_sleep else {"wake": False}),
        },
    )


def answered(server: Replica) -> dict[str, Ref]:
    """How the first answer of a server came."""
    names = {"time_to_ready_s": "timeToReadyS", "first_token_s": "firstTokenS", "answered_at": "answeredAt"}
    return {name: Ref(server.ready, output) for name, output in names.items()}
