"""The report as one HTML file that needs no network: its data, its scripts and the plotting library are inside."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from ops.stack import OpsError
from providers.extras import install

_SCRIPTS = (
    "decimal.js",
    "workers.js",
    "cost.js",
    "words.js",
    "charts.js",
    "dom.js",
    "sections.js",
    "fixed.js",
    "page.js",
)


def page(facts: Mapping[str, Any], title: str) -> str:
    """The file's text: about 2 MB, most of it Plotly, which is compressed.

    Raises:
        OpsError: Plotly is not installed.
    """
    script = "\n".join(_asset(name) for name in _SCRIPTS)
    return Template(_asset("page.html")).substitute(
        title=escape(title),
        style=_asset("page.css"),
        data=_embedded(facts),
        plotly=base64.b64encode(gzip.compress(_plotly().encode(), mtime=0)).decode(),
        script=f'"use strict";\nconst data = JSON.parse(document.getElementById("data").textContent);\n{script}',
    )


def _embedded(facts: Mapping[str, Any]) -> str:
    """JSON that can't end the script element it stands in."""
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return (files("ops") / "data" / "report" / name).read_text(encoding="utf-8")


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise OpsError(f"the report's charts need Plotly: {install('report')}; `--json` works without it") from None
    return get_plotlyjs()
