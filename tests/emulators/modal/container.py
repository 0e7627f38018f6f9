"""What a container would run: the deployed module is executed with a `Popen` that only says what it was asked for."""

from __future__ import annotations

import builtins
import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from modal_proto import api_pb2

from ..runpod.command import Crash, Serving, Task, command_of
from .state import Workspace

_ROOT = "/root"


def environment_of(workspace: Workspace, function: api_pb2.Function) -> dict[str, str]:
    """The secrets' variables, the later over the earlier."""
    return {name: value for id in function.secret_ids for name, value in workspace.secrets[id].items()}


def command_in(workspace: Workspace, function: api_pb2.Function) -> Serving | Crash | Task:
    """What the function starts: `Crash` says why it can't."""
    files = {path: data for id in function.mount_ids for path, data in _files(workspace, id).items()}
    source = files.get(f"{_ROOT}/{function.module_name}.py")
    if function.definition_type != api_pb2.Function.DEFINITION_TYPE_FILE or source is None:
        return Crash(f"ModuleNotFoundError: No module named {function.module_name!r}")
    env = environment_of(workspace, function)
    started: list[Sequence[str]] = []
    try:
        _run(source, function.implementation_name or function.function_name, env, started)
    except Exception as error:
        return Crash(f"{type(error).__name__}: {error}")
    if not started:
        return Task()
    return command_of(_base_image(workspace, function.image_id), json.dumps({"entrypoint": list(started[0])}), env)


def _run(source: bytes, name: str, env: Mapping[str, str], started: list[Sequence[str]]) -> None:
    class Popen:
        def __init__(self, args: Sequence[str], **_: Any) -> None:
            started.append(args)

    class Thread:
        def __init__(self, **_: Any) -> None: ...
        def start(self) -> None: ...

    fakes = {
        "os": SimpleNamespace(environ=dict(env)),
        "subprocess": SimpleNamespace(Popen=Popen),
        "threading": SimpleNamespace(Thread=Thread),
    }

    def fake_import(wanted: str, *rest: Any) -> Any:
        return fakes.get(wanted) or __import__(wanted, *rest)

    names: dict[str, Any] = {"__name__": "deployed", "__builtins__": {**vars(builtins), "__import__": fake_import}}
    exec(compile(source, "deployed.py", "exec"), names)
    names[name]()


def _files(workspace: Workspace, mount_id: str) -> dict[str, bytes]:
    return {path: workspace.files[digest] for path, digest in workspace.mounts[mount_id].items() if digest}


def _base_image(workspace: Workspace, image_id: str) -> str:
    """The registry image under all layers."""
    image = workspace.images[image_id]
    while image.base_images:
        image = workspace.images[image.base_images[0].image_id]
    line = next((text for text in image.dockerfile_commands if text.startswith("FROM ")), "FROM ?")
    return line.removeprefix("FROM ").split()[-1] if " AS " not in line.upper() else line.split()[1]
