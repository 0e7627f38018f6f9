"""Prints every route of LiteLLM's proxy: `METHOD path`, with `x` for what a path leaves open.

Runs in LiteLLM's environment: `.venv/gateway/bin/python tests/litellm_routes.py > tests/data/litellm_routes.txt`.
"""

import os
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

from litellm.proxy._lazy_features import register_all_features
from litellm.proxy.proxy_server import app


def walk(routes: Iterable[Any]) -> Iterator[str]:
    for one in routes:
        if hasattr(one, "effective_candidates"):
            # FastAPI's own form of a router that was included.
            yield from walk(one.effective_candidates())
            continue
        route = getattr(one, "starlette_route", None) or one
        # A mount and a web socket have no methods.
        for method in getattr(one, "methods", None) or getattr(route, "methods", None) or ("GET",):
            yield f"{method} {getattr(one, 'path', None) or route.path}"


# What it registers when it is first asked for is there all the same.
register_all_features(app)
print(f"# LiteLLM {version('litellm')}")
print("\n".join(sorted({re.sub(r"\{[^}]*\}", "x", line) for line in walk(app.routes)})))
