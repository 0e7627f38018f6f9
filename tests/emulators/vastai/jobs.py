"""Serverless endpoints and workergroups, as far as their lifecycle goes; no worker is ever rented."""

from __future__ import annotations

from typing import Any

from ..http import Request, Response, json_response


class Jobs:
    """Both collections by kind and id. `stuck` are workers that deleting an endpoint leaves behind."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[int, dict[str, Any]]] = {"endptjobs": {}, "autojobs": {}}
        self.stuck: list[int] = []
        self._next = 100

    def answer(self, method: str, kind: str, rest: list[str], request: Request) -> Response:
        rows = self.rows[kind]
        match method, rest:
            case "GET", []:
                return json_response(200, {"success": True, "results": list(rows.values())})
            case "POST", []:
                self._next += 1
                sent = request.json()
                # The endpoint's own key is among what is listed.
                rows[self._next] = {**sent, "id": self._next, "api_key": "never-show-this"}
                return json_response(200, {"success": True, "result": self._next})
            case "PUT", [id] if int(id) in rows:
                rows[int(id)] |= request.json()
                return json_response(200, {"success": True})
            case "DELETE", [id] if int(id) in rows:
                del rows[int(id)]
                left, self.stuck = self.stuck, []
                return json_response(200, {"success": True, "deleted_workers": [], "failed_workers": left})
            case _:
                return json_response(404, {"success": False, "error": "not_found", "msg": "no such job"})
