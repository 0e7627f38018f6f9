"""What a container would run, read from its image, its `args` and its environment: pure text work."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .door import Door, middleware_in

_OWN_PORT = 8000
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_FLAG = re.compile(r"--[\w.-]+")


@dataclass(frozen=True)
class Serving:
    """A vLLM server: `names` that requests may ask for, `key` that /v1 wants ("" for none), the longest request."""

    names: tuple[str, ...]
    key: str
    port: int
    public: bool
    context_tokens: int
    queue_worker: bool
    doors: tuple[Door, ...] = ()
    """Middleware, the outermost first."""


@dataclass(frozen=True)
class Crash:
    """The container ends at once; `line` is its last word."""

    line: str


@dataclass(frozen=True)
class Task:
    """Anything that is no vLLM server: a one-off pod that fills a volume, say."""


def command_of(image: str, args: str, env: Mapping[str, str]) -> Serving | Crash | Task:
    """What runs. An entry point of its own is served when it starts vLLM; else the image decides."""
    entrypoint, words = _argv(args)
    if entrypoint:
        return _script([*entrypoint, *words], env)
    if "worker" in image and "vllm" in image:
        return _queue_worker(env)
    if "vllm" in image or "--served-model-name" in words or "--model" in words:
        return _served(words, env)
    return _queue_worker(env) if "MODEL_NAME" in env else Task()


def _argv(args: str) -> tuple[list[str], list[str]]:
    """Entry point and command. `args` is a text that is split as a shell does, or a JSON object that has both."""
    try:
        parsed = json.loads(args) if args.lstrip().startswith("{") else None
    except ValueError:
        parsed = None
    if isinstance(parsed, dict):
        return list(parsed.get("entrypoint") or []), list(parsed.get("cmd") or [])
    return [], shlex.split(args)


def _script(words: list[str], env: Mapping[str, str]) -> Serving | Crash | Task:
    """A command line of its own, or a script that one of its words is; what it execs last counts."""
    for word in words:
        if missing := next((name for name in re.findall(r"\$\{(\w+):\?", word) if not env.get(name)), None):
            return Crash(f"sh: {missing}: is not set")
        lines = re.findall(r"^\s*(?:exec\s+)?vllm\s+serve\b(.*)$", re.sub(r"\\\n", " ", word), re.MULTILINE)
        if lines:
            return _served([_expanded(part, env) for part in _split(lines[-1])], env, word)
    if "vllm" in words and words[words.index("vllm") + 1 :][:1] == ["serve"]:
        return _served(words[words.index("vllm") + 2 :], env)
    return Task()


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        return line.split()


def _expanded(word: str, env: Mapping[str, str]) -> str:
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: env.get(found[1] or found[2], ""), word)


def _served(words: list[str], env: Mapping[str, str], script: str = "") -> Serving | Crash:
    flags, positional = _flags(words)
    if len(positional) > 1:
        return Crash(f"vllm: error: unrecognized arguments: {' '.join(positional[1:])}")
    model = (flags.get("--model") or positional or ["Qwen/Qwen3-0.6B"])[0]
    doors: list[Door] = []
    for name in flags.get("--middleware", []):
        source = middleware_in(script, name)
        if source is None:
            return Crash(f"ModuleNotFoundError: No module named {name.rpartition('.')[0]!r}")
        doors.insert(0, Door(source, name, env))
    key = (flags.get("--api-key") or [env.get("VLLM_API_KEY", "")])[0]
    return Serving(
        names=tuple(flags.get("--served-model-name") or [model]),
        key=key,
        port=int((flags.get("--port") or [str(_OWN_PORT)])[0]),
        public=(flags.get("--host") or ["0.0.0.0"])[0] not in _LOOPBACK,
        context_tokens=int((flags.get("--max-model-len") or ["4096"])[0]),
        queue_worker=False,
        doors=tuple(doors),
    )


def _flags(words: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Flags with the words that follow each, and what follows none.

    Of a repeated flag the last counts, but --middleware adds up; only --served-model-name takes several words.
    """
    flags: dict[str, list[str]] = {}
    positional: list[str] = []
    open_flag = ""
    for word in _with_equals_split(words):
        if _FLAG.fullmatch(word):
            open_flag = word
            flags[word] = flags.get(word, []) if word == "--middleware" else []
        elif open_flag:
            flags[open_flag].append(word)
            open_flag = open_flag if open_flag == "--served-model-name" else ""
        else:
            positional.append(word)
    return flags, positional


def _with_equals_split(words: list[str]) -> Iterator[str]:
    for word in words:
        name, equals, value = word.partition("=")
        if equals and _FLAG.fullmatch(name):
            yield from (name, value)
        else:
            yield word


def _queue_worker(env: Mapping[str, str]) -> Serving | Crash:
    """worker-vllm: `vllm serve` behind the queue's loop, everything from the environment."""
    extra, _ = _flags(shlex.split(env.get("VLLM_EXTRA_ARGS", "")))
    model = env.get("MODEL_NAME", "facebook/opt-125m")
    names = extra.get("--served-model-name") or [
        env.get("OPENAI_SERVED_MODEL_NAME_OVERRIDE") or env.get("SERVED_MODEL_NAME") or model
    ]
    try:
        context = int((extra.get("--max-model-len") or [env.get("MAX_MODEL_LEN", "4096")])[0])
    except ValueError:
        return Crash("vllm: error: argument --max-model-len: invalid value")
    return Serving(tuple(names), "", _OWN_PORT, True, context, queue_worker=True)
