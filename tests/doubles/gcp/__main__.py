"""The plugin's process: serves the cloud in `$PULUMI_GCP_DOUBLE` on a free loopback port and prints the port."""

from __future__ import annotations

import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from pulumi.runtime.proto import provider_pb2_grpc

from tests.doubles.gcp import actions, sdk
from tests.doubles.gcp.cloud import VARIABLE, Cloud
from tests.doubles.gcp.service import Double

_SETTLE_S = 0.5


def main() -> None:
    """Serve until the engine asks to stop."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        sys.exit(f"the double of the gcp plugin needs a folder for its cloud in {VARIABLE}")
    sdk.load_modules_alone()
    cloud = Cloud(Path(folder))
    server = grpc.server(ThreadPoolExecutor(max_workers=32))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(Double(cloud), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    stop = threading.Event()
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, lambda _signal, _frame: stop.set())
    while not stop.wait(_SETTLE_S):
        with cloud.lock():
            actions.settle(cloud)
    server.stop(grace=1).wait()


if __name__ == "__main__":
    main()
