"""Runs Python programs for a Pulumi CLI that was built from source and so has no language host of its own.

The engine starts this once per command, with its own address as the only argument, reads a port from the first
line of output and then calls `Run` for each pass (the preview and the update of one `pulumi up` are two). Programs
run in this process, which spares each pass the start of an interpreter and the import of the SDK.

The SDK takes longer to import than most programs take to run. So this serves before it has the SDK, and has the engine
start the project's own providers, processes that take as long again, while it imports.
"""

from __future__ import annotations

import contextvars
import importlib
import importlib.metadata
import importlib.util
import os
import re
import signal
import sys
import threading
import time
import types
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if importlib.util.find_spec("pulumi") is None:
    sys.exit(
        f"{sys.executable} has no package `pulumi`, which the program needs. Install it there, or name the program's "
        "environment in Pulumi.yaml under runtime.options.virtualenv."
    )

import grpc
from google.protobuf import empty_pb2

PARENT_POLL_S = 1.0
# As many as the engine's own limit allows: registrations are large when a program embeds files.
MAX_MESSAGE_BYTES = 400 * 1024 * 1024
_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]


@contextmanager
def _without_the_sdk() -> Generator[None]:
    """Let `pulumi.runtime.proto` be imported alone: two empty packages stand in for the SDK around it."""
    if "pulumi" in sys.modules:
        yield
        return
    spec = importlib.util.find_spec("pulumi")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    stand_ins = {"pulumi": "", "pulumi.runtime": "runtime"}
    for name, below in stand_ins.items():
        package = types.ModuleType(name)
        package.__path__ = [str(Path(folder, below)) for folder in folders]
        sys.modules[name] = package
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]


with _without_the_sdk():
    from pulumi.runtime.proto import (
        language_pb2,
        language_pb2_grpc,
        plugin_pb2,
        resource_pb2,
        resource_pb2_grpc,
    )


class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    """The service. `sdk` is completed with the `language_program` module once the SDK has been imported."""

    def __init__(self, engine_address: str) -> None:
        self.sdk: Future[Any] = Future()
        self._engine_address = engine_address
        # A pass owns the working directory, `sys.path` and `sys.argv`.
        self._one_pass = threading.Lock()

    def Handshake(
        self, request: language_pb2.LanguageHandshakeRequest, context: grpc.ServicerContext
    ) -> language_pb2.LanguageHandshakeResponse:
        return language_pb2.LanguageHandshakeResponse()

    def About(self, request: language_pb2.AboutRequest, context: grpc.ServicerContext) -> language_pb2.AboutResponse:
        return language_pb2.AboutResponse(executable=sys.executable, version=sys.version.split()[0])

    def GetPluginInfo(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo()

    def GetRequiredPlugins(
        self, request: language_pb2.GetRequiredPluginsRequest, context: grpc.ServicerContext
    ) -> language_pb2.GetRequiredPluginsResponse:
        return language_pb2.GetRequiredPluginsResponse()

    def GetRequiredPackages(
        self, request: language_pb2.GetRequiredPackagesRequest, context: grpc.ServicerContext
    ) -> language_pb2.GetRequiredPackagesResponse:
        return language_pb2.GetRequiredPackagesResponse()

    def Run(self, request: language_pb2.RunRequest, context: grpc.ServicerContext) -> language_pb2.RunResponse:
        # The SDK keeps its settings, config and root resource in context variables: a fresh context per pass is
        # what keeps one pass out of the next.
        with self._one_pass, _providers_started(request):
            program = self.sdk.result()
            went_well = contextvars.Context().run(program.run_pass, request, self._engine_address)
        # `bail` stops the deployment without the engine repeating what the log line has said.
        return language_pb2.RunResponse(bail=not went_well)

    def GetProgramDependencies(
        self, request: language_pb2.GetProgramDependenciesRequest, context: grpc.ServicerContext
    ) -> language_pb2.GetProgramDependenciesResponse:
        installed = {d.name: d.version for d in importlib.metadata.distributions()}
        return language_pb2.GetProgramDependenciesResponse(
            dependencies=[language_pb2.DependencyInfo(name=name, version=installed[name]) for name in sorted(installed)]
        )

    def InstallDependencies(
        self, request: language_pb2.InstallDependenciesRequest, context: grpc.ServicerContext
    ) -> Iterator[language_pb2.InstallDependenciesResponse]:
        # This very process runs in the environment in question, so there is one.
        yield language_pb2.InstallDependenciesResponse(stdout=f"Using the packages of {sys.prefix}\n".encode())

    def Cancel(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> empty_pb2.Empty:
        return empty_pb2.Empty()


def own_providers(project: str) -> list[str]:
    """Names of the providers that a Pulumi.yaml brings along (`plugins.providers`), from its text.

    A guess that spares the import of a YAML parser: a wrong name costs one refused request.
    """
    section = re.search(r"^plugins:\n((?:[ \t#].*\n?|\n)*)", project, re.MULTILINE)
    return re.findall(r"\bname:\s*[\"']?([\w-]+)", section[1]) if section else []


@contextmanager
def _providers_started(request: language_pb2.RunRequest) -> Generator[None]:
    """Have the engine start the project's own providers: it does so when they are first asked for anything."""
    try:
        names = own_providers(Path(request.info.root_directory, "Pulumi.yaml").read_text())
    except OSError:
        names = []
    with grpc.insecure_channel(request.monitor_address, options=_OPTIONS) as channel:
        monitor = resource_pb2_grpc.ResourceMonitorStub(channel)
        asked = [
            monitor.Invoke.future(resource_pb2.ResourceInvokeRequest(tok=f"{name}:index:getVersion")) for name in names
        ]
        yield
        for answer in asked:
            answer.cancel()


def _import_sdk() -> Any:
    program = importlib.import_module("language_program")
    # The stubs were there before the package around them, which therefore has not been told.
    runtime: Any = sys.modules["pulumi.runtime"]
    runtime.proto = sys.modules["pulumi.runtime.proto"]
    return program


def main() -> None:
    # The engine interrupts its plugins to end them. Python's own handling waits for the main thread and ends in a
    # traceback in the engine's log; the system's is at once and quiet.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    server = grpc.server(ThreadPoolExecutor(max_workers=4), options=_OPTIONS)
    host = LanguageHost(sys.argv[-1])
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    try:
        host.sdk.set_result(_import_sdk())
    except BaseException as error:
        host.sdk.set_exception(error)

    # An engine that was killed can't end its plugins: leave when this process is handed to another parent.
    engine = os.getppid()
    while os.getppid() == engine:
        time.sleep(PARENT_POLL_S)
    # Not waiting for a program that may still run: nobody is left to hear of it.
    os._exit(1)


if __name__ == "__main__":
    main()
