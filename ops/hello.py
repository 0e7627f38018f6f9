"""`vllm-anywhere hello`: how to use what has just been deployed, to be copied and pasted."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from ops.stack import Stack, read_stack, stack_options


def add_hello(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("hello", parents=[stack_options()], help=__doc__)
    parser.set_defaults(run=lambda args: hello(read_stack(args.stack)))  # pyright: ignore


def hello(stack: Stack, out: TextIO = sys.stdout) -> None:
    """How to use what has just been deployed, to be copied and pasted. The key itself is not shown."""
    ca = _CA.format(stack=stack.name) if stack.ca_pem else ""
    print(_HELLO.format(ca=ca, stack=stack.name, endpoint=stack.endpoint, model=stack.model), file=out)


_HELLO = """
endpoint  {endpoint}
model     {model}
key       pulumi stack output api_key --show-secrets -s {stack}

To copy and paste, after `source tools/env.sh` (once per shell):

vllm-anywhere chat -s {stack} "What is the capital of France?"

export OPENAI_BASE_URL={endpoint}
export OPENAI_API_KEY=$(pulumi stack output api_key --show-secrets -s {stack})
{ca}curl -s $OPENAI_BASE_URL/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Say hello."}}]}}'

python - <<'PY'
from openai import OpenAI
answer = OpenAI().chat.completions.create(
    model="{model}",
    messages=[{{"role": "user", "content": "What is the capital of France?"}}],
    stream=True,
)
for chunk in answer:
    print(chunk.choices[0].delta.content or "" if chunk.choices else "", end="", flush=True)
print()
PY
"""


_CA = """pulumi stack output ca_pem -s {stack} > ca.pem     # the server's own CA; no other is trusted
export SSL_CERT_FILE=$PWD/ca.pem CURL_CA_BUNDLE=$PWD/ca.pem
"""
