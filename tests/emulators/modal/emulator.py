"""The emulated Modal: the gRPC server with its faults, the web in front of the containers, and the test's levers."""

from __future__ import annotations

import asyncio
import threading
import traceback
from contextlib import ExitStack
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Self

from google.protobuf.empty_pb2 import Empty
from google.protobuf.json_format import MessageToDict
from grpclib.const import Handler, Status
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream
from modal_proto import api_pb2
from modal_proto.api_grpc import ModalClientBase

from ..faults import Fault, Kind
from ..http import Emulator, Request, Response, problem, without_secrets
from ..peers import process_behind
from ..runpod.edge import forwarded, held
from ..runpod.state import Boot
from .plane import Plane
from .state import App, Refused, Workspace
from .world import World

TOKEN = ("ak-EMULATED", "as-EMULATED")
RPC = "RPC"
"""The `method` of a fault that is meant for the control plane; its `path` is the RPC's name."""
_REQUEST_LIMIT_S = 150.0


@dataclass(frozen=True)
class RpcCall:
    """One call of the control plane; secrets are taken out of `request`."""

    name: str
    request: dict[str, Any]
    fault: str = ""


class ModalEmulator(Emulator):
    """Modal on loopback, to be used with `with`. `workspace` may be looked at and changed; take it with `settled()`."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(Workspace(TOKEN))
        self.rpcs: list[RpcCall] = []
        self.hung = 0
        """How many calls have got no answer so far."""
        self._plane = Plane(self.world.workspace, self.world.now, f"{self.url}/web", self.world.log)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.grpc_port = 0

    @property
    def workspace(self) -> Workspace:
        return self.world.workspace

    def env(self) -> dict[str, str]:
        """Environment that sends the `modal` package here."""
        return {
            "MODAL_SERVER_URL": f"http://127.0.0.1:{self.grpc_port}",
            "MODAL_TOKEN_ID": TOKEN[0],
            "MODAL_TOKEN_SECRET": TOKEN[1],
            "MODAL_CONFIG_PATH": "/nonexistent/modal.toml",
            "MODAL_ENVIRONMENT": "",
        }

    def start(self) -> Self:
        super().start()
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    async def _listen(self) -> None:
        # With the default codec it would import google.rpc, whose symbols are Pulumi's own in a test of both.
        self._rpc_server = Server([_Service(self)], codec=ProtoCodec())  # pyright: ignore[reportArgumentType]
        await self._rpc_server.start("127.0.0.1", 0)
        sockets = self._rpc_server._server.sockets  # pyright: ignore
        self.grpc_port = sockets[0].getsockname()[1]

    def close(self) -> None:
        super().close()

        async def stop() -> None:
            self._rpc_server.close()
            await self._rpc_server.wait_closed()

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self.world.close()

    # The web.

    def answer(self, request: Request) -> Response:
        _, kind, *rest = request.path.split("/", 5)
        if kind != "web" or len(rest) < 3:
            return problem(404, "modal-http: invalid function call")
        environment, name, function, *path = rest
        with self.world.settled() as workspace:
            app = workspace.app_named(environment, name)
            found = app.functions.get(function) if app else None
        if found is None:
            return problem(404, f"modal-http: app for invoked web endpoint is stopped: {name}")
        if found.ranked[0].webhook_config.requires_proxy_auth:
            return problem(401, "modal-http: missing credentials for proxy authorization")
        with ExitStack() as reserved:
            engine = reserved.enter_context(self.world.container(environment, name, function))
            if engine is None:
                # Modal holds a request that long, then has its caller come back to wait for the result.
                self.world.advance(_REQUEST_LIMIT_S)
                return Response(303, headers={"Location": f"{self.url}{request.path}?__modal_function_call_id=fc-1"})
            return held(forwarded(engine, f"/{path[0]}" if path else "/", request, request.bearer), reserved)

    # The control plane.

    async def serve(self, name: str, stream: Stream[Any, Any], reply_type: Any) -> None:
        """One call: its fault, its work, its answer."""
        request = await stream.recv_message()
        fault = self.faults.take(RPC, name)
        shown = without_secrets(MessageToDict(request, preserving_proto_field_name=True))
        shown.pop("env_dict", None)
        self.rpcs.append(RpcCall(name, shown, fault.kind.value if fault else ""))
        if fault is not None and not fault.kind.works:
            await self._spoil(fault, stream)
        reply = await asyncio.to_thread(self._work, name, request, dict(stream.metadata or {}))
        if fault is not None and fault.kind.works:
            await self._spoil(fault, stream)
        await stream.send_message(reply if reply is not None else reply_type())

    def _work(self, name: str, request: Any, metadata: dict[str, Any]) -> Any:
        token = (metadata.get("x-modal-token-id"), metadata.get("x-modal-token-secret"))
        if token != self.workspace.token:
            raise GRPCError(Status.UNAUTHENTICATED, "Token missing. Could not authenticate client.")
        method = getattr(self._plane, name, None)
        if method is None:
            self.violations.append(f"the emulator has no {name}")
            raise GRPCError(Status.UNIMPLEMENTED, name)
        try:
            with self.world.settled():
                reply = method(request)
                return Empty() if reply is None else reply
        except Refused as refused:
            raise GRPCError(Status[refused.status], str(refused)) from None
        except Exception:
            self.violations.append(f"the emulator failed at {name}\n{traceback.format_exc()}")
            raise GRPCError(Status.INTERNAL, "the emulator failed; its violations say why") from None

    async def _spoil(self, fault: Fault, stream: Stream[Any, Any]) -> None:
        match fault.kind:
            case Kind.TIMEOUT | Kind.STALLED:
                self.hung += 1
                await asyncio.sleep(3600)
            case Kind.DROPPED:
                _transport(stream).abort()
                await asyncio.sleep(3600)
            case Kind.KILL | Kind.KILL_BEFORE:
                self.kill(_caller(stream))
                await asyncio.sleep(3600)
            case Kind.LOST | Kind.REFUSED:
                raise GRPCError(Status.UNAVAILABLE, "upstream connect error")
            case Kind.RATE_LIMITED:
                raise GRPCError(Status.RESOURCE_EXHAUSTED, "rate limit exceeded")
            case Kind.GARBAGE | Kind.MALFORMED_LIST:
                raise GRPCError(Status.INTERNAL, "failed to unmarshal the response")

    # Levers.

    def state(self) -> dict[str, Any]:
        with self.world.settled() as workspace:
            return {
                "apps": [
                    {"id": app.id, "name": app.name, "version": app.version, "containers": len(app.tasks)}
                    for app in workspace.apps.values()
                    if app.live
                ],
                "volumes": [name for _, name in workspace.volumes],
            }

    @property
    def deployed(self) -> list[App]:
        """The apps that are deployed."""
        with self.world.settled() as workspace:
            return [app for app in workspace.apps.values() if app.live]

    def boot(self, **how: Any) -> None:
        """How containers start from now on (`Boot`)."""
        with self.world.settled() as workspace:
            workspace.boots.insert(0, Boot(**how))

    def stop(self, name: str) -> None:
        """Stop an app behind everybody's back."""
        with self.world.settled() as workspace:
            for app in workspace.apps.values():
                if app.live and app.name == name:
                    app.state, app.stopped_at, app.tasks = api_pb2.APP_STATE_STOPPED, self.world.now(), []


class _Service:
    """The generated mapping of RPCs, each served by the emulator."""

    def __init__(self, emulator: ModalEmulator) -> None:
        self._emulator = emulator

    def __mapping__(self) -> dict[str, Handler]:
        every = ModalClientBase.__mapping__(_Names())  # pyright: ignore
        return {
            path: Handler(self._handler(path.rpartition("/")[2], one.reply_type), *one[1:])
            for path, one in every.items()
        }

    def _handler(self, name: str, reply_type: Any) -> Any:
        async def serve(stream: Stream[Any, Any]) -> None:
            await self._emulator.serve(name, stream, reply_type)

        return serve


class _Names:
    def __getattr__(self, name: str) -> str:
        return name


def _transport(stream: Stream[Any, Any]) -> Any:
    return stream._stream._transport  # pyright: ignore


def _caller(stream: Stream[Any, Any]) -> int:
    """The process at the other end of the call's connection."""
    socket = _transport(stream).get_extra_info("socket")
    return process_behind(SimpleNamespace(getpeername=socket.getpeername, getsockname=socket.getsockname))  # pyright: ignore
