"""How the server is started: the same script on every cloud, with flags and environment from the spec."""

from __future__ import annotations

import base64
import gzip
import shlex
from typing import TypeVar

from serving import NAMESPACE
from serving.guard import API_KEY, GUARD_MODULE, PREVIOUS_KEY, guard_source
from serving.spec import DeploymentSpec, Problem, SpecError
from serving.vllm import serve_args, sets

TLS_KEY = "VLLM_ANYWHERE_TLS_KEY"
TLS_CERT = "VLLM_ANYWHERE_TLS_CERT"
"""vLLM warns of names that begin as its own do; these two are gone before it starts."""
HF_TOKEN = "HF_TOKEN"

_KEY = f"{NAMESPACE}:engine.extra_args"
_RESERVED = (
    "--",
    *("--host", "--port", "--uds", "--root-path", "--grpc", "--grpc-port", "--headless", "--config"),
    *("--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs", "--ssl-cert-reqs", "--ssl-ciphers", "--enable-ssl-refresh"),
)
"""Flags that open another door than the guarded one, or move it; after `--` ours would be none."""

_OPENING = f"""\
#!/bin/sh
set -eu
: "${{{API_KEY}:?is not set: a server without a key is not started}}"
mask=$(umask)
umask 077
dir=$(mktemp -d)
cat >"$dir/{GUARD_MODULE}.py" <<'END_OF_GUARD'
"""

# %b takes both real line breaks and \n written out: some platforms pass environment values on one line only.
_TLS = f"""\
printf '%b\\n' "${{{TLS_KEY}:?is not set}}" >"$dir/tls.key"
printf '%b\\n' "${{{TLS_CERT}:?is not set}}" >"$dir/tls.pem"
unset {TLS_KEY} {TLS_CERT}
"""

# vLLM's front end in Rust would serve without any Python middleware.
_CLOSING = """\
umask "$mask"
export PYTHONPATH="$dir${PYTHONPATH:+:$PYTHONPATH}" VLLM_USE_RUST_FRONTEND=0
"""

_SWITCHES = frozenset({"--enforce-eager"})
_WORKER_NAMES = {"--served-model-name": "OPENAI_SERVED_MODEL_NAME_OVERRIDE", "--revision": "MODEL_REVISION"}
"""Where the worker has a name of its own; every other flag of vLLM is a variable by its own name in capitals."""

Value = TypeVar("Value")


def start_script(spec: DeploymentSpec, *, half: bool, port: int, tls: bool) -> str:
    """A POSIX sh script that execs vLLM behind the guard on `port`, all addresses.

    It takes its secrets from the environment (`start_env`) and needs sh, mktemp, cat, printf and vLLM. `half` as in
    `serve_args`; with `tls` it serves HTTPS.

    Raises:
        SpecError: an extra argument would open another door than the guarded one.
    """
    _refuse(spec)
    # Ours come last: of a repeated argument vLLM takes the last, and the middleware that comes last is the outermost.
    ours = f"--host 0.0.0.0 --port {port} --middleware {GUARD_MODULE}.Guard"
    secure = ' --ssl-keyfile "$dir/tls.key" --ssl-certfile "$dir/tls.pem"' if tls else ""
    return (
        f"{_OPENING}{guard_source()}END_OF_GUARD\n{_TLS if tls else ''}{_CLOSING}"
        f"exec vllm serve {shlex.join(serve_args(spec, half=half))} {ours}{secure}\n"
    )


def packed(script: str) -> str:
    """The same script in fewer characters, for `sh -c`; needs base64 and gunzip too. Equal scripts pack equally."""
    blob = base64.b64encode(gzip.compress(script.encode(), compresslevel=9, mtime=0)).decode()
    return f'exec sh -c "$(echo {blob}|base64 -d|gunzip)"'


def fitting(script: str, limit: int) -> str:
    """The script for a platform that takes at most `limit` characters: as it is, or packed.

    Raises:
        SpecError: even packed it is too long, which only `extra_args` can bring about.
    """
    if len(script) <= limit:
        return script
    short = packed(script)
    if len(short) > limit:
        fix = f"the start command is {len(short)} characters and the platform takes {limit}; pass fewer or shorter ones"
        raise SpecError([Problem(_KEY, "", fix)])
    return short


def refused_args(spec: DeploymentSpec) -> tuple[Problem, ...]:
    """Extra arguments that would get around the guard, also when abbreviated or written with underscores."""
    return tuple(
        Problem(_KEY, arg, f"leave it out: address, port, TLS and the guarded HTTP server are {NAMESPACE}'s to set")
        for arg in spec.engine.extra_args
        if sets(arg, _RESERVED)
    )


def start_env(
    *,
    api_key: Value,
    previous_key: Value | None = None,
    tls_key: Value | None = None,
    tls_cert: Value | None = None,
    hf_token: Value | None = None,
) -> dict[str, Value]:
    """The environment that `start_script` reads. All but `tls_cert` is secret.

    `tls_key` and `tls_cert` are PEM (see `one_line`). The values may be references that are filled in later.
    """
    named = {API_KEY: api_key, PREVIOUS_KEY: previous_key, TLS_KEY: tls_key, TLS_CERT: tls_cert, HF_TOKEN: hf_token}
    return {name: value for name, value in named.items() if value is not None}


def one_line(pem: str) -> str:
    r"""PEM with its line breaks written as `\n`, for platforms that garble environment values of several lines."""
    return pem.strip().replace("\n", "\\n")


def worker_env(spec: DeploymentSpec, *, half: bool) -> dict[str, str]:
    """The environment by which RunPod's queue worker configures the vLLM that it starts on its own loopback.

    Names: https://github.com/runpod-workers/worker-vllm/blob/main/docs/configuration.md

    Raises:
        SpecError: an extra argument would move the worker's server.
    """
    _refuse(spec)
    engine = spec.engine.model_copy(update={"extra_args": ()})
    model, *flags = serve_args(spec.model_copy(update={"engine": engine}), half=half)
    rest = iter(flags)
    given = {flag: "true" if flag in _SWITCHES else next(rest) for flag in rest}
    extra = {"VLLM_EXTRA_ARGS": shlex.join(spec.engine.extra_args)} if spec.engine.extra_args else {}
    names = {flag: _WORKER_NAMES.get(flag, flag.removeprefix("--").replace("-", "_").upper()) for flag in given}
    return {"MODEL_NAME": model, **{names[flag]: value for flag, value in given.items()}, **extra}


def _refuse(spec: DeploymentSpec) -> None:
    if problems := refused_args(spec):
        raise SpecError(problems)
