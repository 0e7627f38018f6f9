"""The emulator as a process of its own: prints its address and environment as one line of JSON, then serves.

python -m tests.emulators.runpod --port 0 --state FILE
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
from pathlib import Path

from .emulator import KEY, RunPodEmulator


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.emulators.runpod", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes any free one")
    parser.add_argument("--state", type=Path, help="file that keeps the account over restarts")
    parser.add_argument("--key", default=KEY, help="the account's API key")
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _signal, _frame: stop.set())
    with RunPodEmulator(options.port, key=options.key, state_file=options.state) as emulator:
        print(json.dumps({"url": emulator.url, "env": emulator.env()}), flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
