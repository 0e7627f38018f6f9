"""Runs on an instance, beside vLLM and on a port of its own: takes the server's secrets, and shows its log.

An instance learns neither its address nor its secrets from cloud-init: the address is given when it boots, and user
data stays on its disk. So it opens this door and waits. Needs Python's standard library alone.
"""

import hashlib
import hmac
import json
import os
import ssl
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

ROOT = os.environ.get("VLLM_ANYWHERE_ROOT", "")
ETC = Path(ROOT + "/etc/vllm-anywhere")
VAR = Path(ROOT + "/var/lib/vllm-anywhere")
FILES = {"/env": VAR / "env", "/keys": VAR / "keys" / "keys"}
JOURNAL = ("journalctl", "--unit", "vllm-anywhere", "--output", "cat", "--no-pager", "--lines")
LONGEST = 1 << 16


class Handler(BaseHTTPRequestHandler):
    timeout = 20

    def do_PUT(self) -> None:
        file = FILES.get(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        # Read whoever sends it: a refusal with the rest still on its way is a broken connection to the other side.
        sent = self.rfile.read(min(length, LONGEST))
        if not self.allowed() or file is None or length > LONGEST:
            return self.answer(404, "")
        try:
            lines = [f"{name}={value}" for name, value in json.loads(sent).items()]
        except (ValueError, AttributeError):
            return self.answer(400, "no JSON object")
        if any("\n" in line or "\r" in line for line in lines):
            return self.answer(400, "a value has more than one line")
        write(file, "\n".join(lines) + "\n")
        return self.answer(204, "")

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if not self.allowed() or parts.path != "/log":
            return self.answer(404, "")
        wanted = parse_qs(parts.query).get("lines", ["200"])[0]
        if not wanted.isdigit():
            return self.answer(400, "lines is no number")
        done = subprocess.run([*JOURNAL, wanted], stdout=subprocess.PIPE, check=False, timeout=15)
        return self.answer(200, done.stdout.decode(errors="replace"))

    def allowed(self) -> bool:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        kept = (ETC / "token.sha256").read_text().strip()
        return hmac.compare_digest(hashlib.sha256(token.encode()).hexdigest(), kept)

    def answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if status == 204 else body)

    def log_message(self, format: str, *args: object) -> None:
        """What is asked here is nobody's business."""


def write(file: Path, text: str) -> None:
    """Put it there so that nobody sees half of it, and only root any of it."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    half = file.with_suffix(".new")
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    half.replace(file)


class Server(ThreadingHTTPServer):
    """TLS is shaken in the thread of the connection: a peer that says nothing must not keep the others out."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, Handler)
        self.secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.secure.load_cert_chain(ETC / "door.pem")

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(20)
        with self.secure.wrap_socket(request, server_side=True) as wrapped:
            super().finish_request(wrapped, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever does not speak TLS is a stranger."""


if __name__ == "__main__":
    host = os.environ.get("VLLM_ANYWHERE_DOOR_HOST", "0.0.0.0")
    Server((host, int(os.environ.get("VLLM_ANYWHERE_DOOR_PORT", "8001")))).serve_forever()
