"""The provider process: serves on a free loopback port and prints the port, as Pulumi's plugin protocol asks."""

from __future__ import annotations

import importlib.util
import signal
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc


def _without_the_sdk() -> None:
    """Make `pulumi.runtime.proto` importable without the SDK around it.

    `import pulumi` runs the whole SDK, automation API included, 0.1 s in every command; the provider needs only the
    generated stubs. Two empty packages that know where their modules are do for that.
    """
    spec = importlib.util.find_spec("pulumi")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for name, below in (("pulumi", ""), ("pulumi.runtime", "runtime")):
        package = types.ModuleType(name)
        package.__path__ = [str(Path(folder, below)) for folder in folders]
        sys.modules[name] = package


if __name__ == "__main__":
    _without_the_sdk()

from pulumi.runtime.proto import provider_pb2_grpc  # noqa: E402

from providers import base  # noqa: E402
from providers.plugin.service import Provider  # noqa: E402
from serving import VERSION  # noqa: E402

# One state can hold hundreds of properties; gRPC's default of 4 MB is the engine's limit for neither side.
_MAX_MESSAGE = 400 * 1024 * 1024
# Replicas are created in parallel, each waiting in its own thread.
_THREADS = 128


def main() -> None:
    """Serve until the engine ends or asks to stop."""
    server = grpc.server(
        ThreadPoolExecutor(max_workers=_THREADS),
        options=[
            ("grpc.max_receive_message_length", _MAX_MESSAGE),
            ("grpc.max_send_message_length", _MAX_MESSAGE),
        ],
    )
    engine = sys.argv[1] if len(sys.argv) > 1 else ""
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(Provider(engine, VERSION), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    # Every deployment needs these; the engine has greetings to exchange first.
    importlib.import_module(base.SHARED_RESOURCES)

    stop = threading.Event()
    # The engine ends its plugins with SIGINT, after Cancel and after their last answer; Ctrl-C itself does not
    # reach them, since each has a process group of its own.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, lambda _signal, _frame: stop.set())
    stop.wait()
    server.stop(grace=1).wait()


if __name__ == "__main__":
    main()
