"""What runs first in a container on Modal: the start script, and the container's end when the server's has come.

Modal imports this file there under its bare name, with no other file of the project and in a Python of its own.
"""

from __future__ import annotations

import os
import subprocess
import threading

SCRIPT = "ANYWHERE_SCRIPT"
"""Environment variable that holds the start script."""


def serve() -> None:
    """Start the server. Modal leads requests to it as soon as its port listens."""
    server = subprocess.Popen(["sh", "-c", os.environ[SCRIPT]])
    threading.Thread(target=_follow, args=(server,), daemon=True).start()


def _follow(server: subprocess.Popen[bytes]) -> None:
    # A container whose server has died would go on taking requests.
    server.wait()
    os._exit(1)
