"""What LiteLLM's proxy and what runs beside it are told of a gateway."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from serving.gateway import API_GROUP, GatewaySpec, Upstream, api_price

_MILLION = 10**6


def key_name(position: int) -> str:
    """The environment variable that holds a stack's key, by its position in `stacks`."""
    return f"ANYWHERE_STACK_{position}_KEY"


API_KEY_NAME = "ANYWHERE_API_KEY"
"""The environment variable that holds the closed API's key."""
MASTER_KEY_NAME = "VLLM_API_KEY"
"""LiteLLM's own key, which the guard puts into the requests that it lets through (`serving/data/guard.py`)."""


def proxy_config(spec: GatewaySpec, name: str, ordered: Sequence[Upstream]) -> dict[str, Any]:
    """The config file of LiteLLM's proxy. Keys are named by environment variable, never written."""
    servers = [
        {
            "model_name": name,
            "litellm_params": {
                # The compatible route, which sends a request as it came.
                "model": f"openai/{one.model}",
                "api_base": endpoint,
                "api_key": f"os.environ/{key_name(spec.stacks.index(one.stack))}",
                "order": place,
                "timeout": spec.attempt_s,
                "stream_timeout": spec.attempt_s,
                "max_retries": 0,
                "input_cost_per_token": 0,
                "output_cost_per_token": 0,
            },
            "model_info": {
                "id": one.stack if len(one.endpoints) == 1 else f"{one.stack}.{number}",
                "disable_background_health_check": one.by_use,
                "health_check_timeout": spec.attempt_s,
                "health_check_max_tokens": 1,
            },
        }
        for place, one in enumerate(ordered, 1)
        for number, endpoint in enumerate(one.endpoints, 1)
    ]
    api = [_api(spec)] if spec.api else []
    fallbacks = [{API_GROUP: [name]}, *([{name: [API_GROUP]}] if spec.api_fallback else [])] if spec.api else []
    alone = len(servers) == 1 and not (spec.api and spec.api_fallback)
    widest = max(len(one.endpoints) for one in ordered)
    return {
        "model_list": [*servers, *api],
        "router_settings": {
            "routing_strategy": "simple-shuffle",
            # Unless `allowed_fails` is said, the only server of a group never cools down, and each request of an outage
            # tries it again (https://github.com/BerriAI/litellm/issues/40405). Where there is nowhere else to go,
            # cooling down would make an outage of one failure.
            "disable_cooldowns": alone,
            "allowed_fails": spec.allowed_fails,
            "cooldown_time": spec.cooldown_s,
            # These are tries of one stack; after them LiteLLM goes on to the next by itself.
            "num_retries": 2 if alone else widest - 1,
            "retry_after": 0,
            # LiteLLM goes on to five others at most, unless it is told.
            "max_fallbacks": len(ordered) + 1,
            "fallbacks": fallbacks,
            "context_window_fallbacks": [{name: [API_GROUP]}] if spec.api and spec.api_fallback else [],
        },
        "litellm_settings": {
            "callbacks": ["gateway_hooks.hooks"],
            "drop_params": True,
            "request_timeout": spec.attempt_s,
        },
        "general_settings": {
            "master_key": f"os.environ/{MASTER_KEY_NAME}",
            **_health(spec, ordered),
            "disable_spend_logs": True,
            "disable_error_logs": True,
            "disable_adding_master_key_hash_to_db": True,
        },
    }


def _health(spec: GatewaySpec, ordered: Sequence[Upstream]) -> dict[str, Any]:
    if not spec.health_s or all(one.by_use for one in ordered):
        return {}
    return {
        "background_health_checks": True,
        "health_check_interval": spec.health_s,
        "enable_health_check_routing": True,
    }


def _api(spec: GatewaySpec) -> dict[str, Any]:
    price = api_price(spec)
    tariff = (
        {
            "input_cost_per_token": float(price.input_per_m / _MILLION),
            "output_cost_per_token": float(price.output_per_m / _MILLION),
        }
        if price
        else {}
    )
    budget = (
        {"max_budget": float(spec.api_budget_usd), "budget_duration": f"{spec.api_budget_days}d"}
        if spec.api_budget_usd is not None
        else {}
    )
    return {
        "model_name": API_GROUP,
        "litellm_params": {
            "model": f"{spec.api}/{spec.model_of_api}",
            "api_key": f"os.environ/{API_KEY_NAME}",
            **({"api_base": spec.api_url} if spec.api_url else {}),
            "timeout": spec.attempt_s,
            "stream_timeout": spec.attempt_s,
            "max_retries": 0,
            **tariff,
            **budget,
        },
        "model_info": {"id": API_GROUP, "disable_background_health_check": True},
    }


def rule(spec: GatewaySpec, name: str) -> dict[str, Any]:
    """What `serving/data/gateway_hooks.py` decides by."""
    return {
        "model": name,
        "api": API_GROUP if spec.api else "",
        "long_tokens": spec.route.long_tokens,
        "tools": spec.route.tools,
        "images": spec.route.images,
        "deadline_s": spec.deadline_s,
    }


SOURCES = ("gateway_hooks.py", "gateway_serve.py", "guard.py")
"""The files that run in LiteLLM's environment."""


def as_json(value: object) -> str:
    """JSON is YAML too, so LiteLLM reads it."""
    return json.dumps(value, indent=1, sort_keys=True)
