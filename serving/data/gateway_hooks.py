"""What LiteLLM's proxy asks of us: which requests go to the closed API, and how a broken stream goes on.

Runs in LiteLLM's environment, beside `rule.json`: `model` (the name that clients ask for), `api` (LiteLLM's group for
the closed API, "" without one), `long_tokens`, `tools`, `images`.
"""

import json
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

from litellm.integrations.custom_logger import CustomLogger  # pyright: ignore[reportMissingImports]

MARK = "x-route"
"""The header that overrules: `api` or `self`."""
CHARACTERS_PER_TOKEN = 4


def route(body: Mapping[str, Any], headers: Mapping[str, str], rule: Mapping[str, Any]) -> str:
    """`api` or `self` for a request. The mark overrules; else tools, images and length make it the API's."""
    mark = next((value.strip().lower() for name, value in headers.items() if name.lower() == MARK), "")
    if mark in ("api", "self"):
        return mark
    if rule["tools"] and (body.get("tools") or body.get("functions")):
        return "api"
    if rule["images"] and has_more_than_text(body):
        return "api"
    return "api" if tokens(body) >= rule["long_tokens"] else "self"


def parts(body: Mapping[str, Any]) -> list[Any]:
    """Everything that the prompt is made of; a request that is malformed is for the server to refuse."""
    messages = body.get("messages")
    prompts = [one.get("content") for one in messages if isinstance(one, dict)] if isinstance(messages, list) else []
    found: list[Any] = []
    for content in (*prompts, body.get("instructions"), body.get("prompt"), body.get("input")):
        found.extend(content if isinstance(content, list) else [content])
    # What a Responses request calls a message has parts of its own.
    inner = [one["content"] for one in found if isinstance(one, dict) and isinstance(one.get("content"), list)]
    whole = [one for one in found if not (isinstance(one, dict) and isinstance(one.get("content"), list))]
    return [part for part in (*whole, *(part for parts in inner for part in parts)) if part is not None]


def has_more_than_text(body: Mapping[str, Any]) -> bool:
    typed = [part["type"] for part in parts(body) if isinstance(part, dict) and isinstance(part.get("type"), str)]
    return any(kind not in ("text", "input_text", "output_text", "message") for kind in typed)


def tokens(body: Mapping[str, Any]) -> int:
    """About how many tokens the prompt and the longest answer are."""
    text = sum(
        len(part) if isinstance(part, str) else len(str(part.get("text") or part.get("content") or ""))
        for part in parts(body)
        if isinstance(part, str | dict)
    )
    answer = body.get("max_completion_tokens") or body.get("max_tokens") or body.get("max_output_tokens") or 0
    return text // CHARACTERS_PER_TOKEN + (answer if isinstance(answer, int) else 0)


REPEATED = (
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "stream_options",
    "user",
)
"""Parameters that a request may have whose answer another server can take up."""
BREAKS = 4
"""How often one answer may break and be taken up again."""
IGNORED = {"model", "messages", "stream", "n", "metadata", "tools", "functions", "logprobs"}


def continuation(data: Mapping[str, Any], said: str, chunks: int) -> dict[str, Any] | None:
    """The request that has another server take up an answer after `said`; None where that can't be done.

    Chat alone, one answer, text only. The answer so far becomes the last message, which the server goes on with.
    """
    body = (data.get("proxy_server_request") or {}).get("body") or {}
    refused = body.get("tools") or body.get("functions") or body.get("logprobs") or (body.get("n") or 1) != 1
    # LiteLLM keeps notes of its own in the body.
    theirs = {name for name in body if name.startswith(("litellm_", "_litellm_"))}
    other = set(body) - theirs - set(REPEATED) - IGNORED
    if not said or not body.get("messages") or refused or other:
        return None
    kept = {name: body[name] for name in REPEATED if name in body}
    for limit in ("max_tokens", "max_completion_tokens"):
        if isinstance(kept.get(limit), int):
            # A chunk is a token or more of what the limit allows.
            kept[limit] = max(1, kept[limit] - chunks)
    return {
        **kept,
        "messages": [*body["messages"], {"role": "assistant", "content": said}],
        "stream": True,
        # vLLM's parameters: without them it would begin a new answer.
        "extra_body": {"continue_final_message": True, "add_generation_prompt": False},
        # The API knows neither of them; the other servers are asked all the same.
        "fallbacks": [],
    }


def text_of(chunk: Any) -> str:
    choices = getattr(chunk, "choices", None)
    return (choices and getattr(choices[0].delta, "content", "")) or ""


class Hooks(CustomLogger):  # pyright: ignore[reportUntypedBaseClass]
    """Named in LiteLLM's config as `gateway_hooks.hooks`."""

    def __init__(self, rule: Mapping[str, Any]) -> None:
        super().__init__()
        self.rule = rule

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        if self.rule["api"] and data.get("model") == self.rule["model"]:
            sent = data.get("proxy_server_request") or {}
            if route(data, sent.get("headers") or {}, self.rule) == "api":
                data["model"] = self.rule["api"]
        return data

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """LiteLLM tries another server until the first token; a stream that breaks later is taken up here."""
        said, chunks, first_id, breaks = "", 0, None, 0
        while True:
            try:
                async for chunk in response:
                    first_id = first_id or getattr(chunk, "id", None)
                    if first_id:
                        chunk.id = first_id
                    said, chunks = said + text_of(chunk), chunks + 1
                    yield chunk
                return
            except Exception:
                breaks += 1
                ours = request_data.get("model") == self.rule["model"] and breaks <= BREAKS
                again = continuation(request_data, said, chunks) if ours else None
                if again is None:
                    raise
                from litellm.proxy.proxy_server import llm_router  # pyright: ignore[reportMissingImports]

                response = await llm_router.acompletion(model=self.rule["model"], **again)


hooks = Hooks(json.loads((Path(__file__).parent / "rule.json").read_text()))
