"""The Grafana dashboard: one panel for each of `serving.alerts.SIGNALS`, a line where its alert begins."""

from __future__ import annotations

from typing import Any

from serving.alerts import ENDPOINT_JOB, SIGNALS, Query, Signal

SCHEMA = 39
"""Grafana 11's dashboard schema; newer ones migrate it."""
COLUMNS = 24
_WIDTH, _HEIGHT = 8, 7
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it. Data source and stacks are chosen at its top."""
    return {
        "uid": ENDPOINT_JOB,
        "title": "vllm-anywhere",
        "description": "Endpoints of vllm-anywhere: what its alerts judge, their load and their cost.",
        "tags": ["vllm", "llm"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_choice_of_source(), _choice_of_stacks()]},
        "annotations": {"list": [_firing()]},
        "panels": [_panel(number, signal) for number, signal in enumerate(SIGNALS)],
    }


def _panel(number: int, signal: Signal) -> dict[str, Any]:
    row, column = divmod(number, COLUMNS // _WIDTH)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": signal.title,
        "description": _meaning(signal),
        "datasource": _DATASOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {
            "defaults": {
                "unit": signal.unit,
                "min": 0,
                "thresholds": {"mode": "absolute", "steps": _steps(signal)},
                "custom": {"thresholdsStyle": {"mode": "line" if _bound_in_chart(signal) else "off"}},
            },
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _DATASOURCE,
                "expr": query.on("$__rate_interval", "$stack"),
                "legendFormat": _legend(query),
            }
            for index, query in enumerate(signal.queries)
        ],
    }


def _legend(query: Query) -> str:
    return f"{{{{{query.per}}}}} {query.legend}".strip()


def _meaning(signal: Signal) -> str:
    sources = ", ".join(dict.fromkeys(query.source for query in signal.queries))
    if signal.alert is None:
        return f"From: {sources}."
    return f"Alert {signal.alert.name}, after {signal.alert.lasts}. From: {sources}."


def _bound_in_chart(signal: Signal) -> bool:
    """Whether the alert judges the very figure that the chart shows."""
    return signal.alert is not None and not signal.alert.queries


def _steps(signal: Signal) -> list[dict[str, Any]]:
    if signal.alert is None or not _bound_in_chart(signal):
        return [{"color": "green", "value": None}]
    low, high = ("red", "green") if signal.alert.below else ("green", "red")
    return [{"color": low, "value": None}, {"color": high, "value": float(signal.alert.bound)}]


def _choice_of_source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}}


def _choice_of_stacks() -> dict[str, Any]:
    query = f'label_values({{job=~"{ENDPOINT_JOB}.*"}}, stack)'
    return {
        "name": "stack",
        "label": "Stack",
        "type": "query",
        "datasource": _DATASOURCE,
        "query": {"query": query, "refId": "stacks"},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _firing() -> dict[str, Any]:
    return {
        "name": "Alerts",
        "datasource": _DATASOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertstate="firing",stack=~"$stack"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{stack}}",
        "step": "60s",
    }
