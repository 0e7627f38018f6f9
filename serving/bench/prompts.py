"""What is asked: everyday questions, synthetic prompts of an exact length, or a recorded dataset.

No tokenizer is needed. A synthetic prompt is made of short English words, each a single token in the usual
vocabularies, drawn at random so that no two prompts share a prefix that a cache could serve. How many tokens the
server's chat template adds, and whether a word really is one token, is asked of the server itself: two probes and
their `usage.prompt_tokens`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

_WORDS = (
    "the of and to in is you that it he was for on are as with his they at be this have from or one had by word but "
    "not what all were we when your can said there use an each which she do how their if will up other about out many "
    "then them these so some her would make like him into time has look two more write go see number no way could "
    "people my than first water been call who oil its now find long down day did get come made may part"
)
WORDS = tuple(_WORDS.split())

QUESTIONS = (
    "Explain how a suspension bridge carries its load, for somebody who has never studied engineering.",
    "Describe a day in the life of a lighthouse keeper a hundred years ago.",
    "What are the main differences between a violin and a viola, and why do orchestras need both?",
    "Walk me through what happens between typing an address in a browser and seeing the page.",
    "Compare growing tomatoes in a greenhouse with growing them outdoors in a rainy climate.",
    "Write a short story about a clockmaker who repairs a clock that runs backwards.",
    "How do vaccines train the immune system, and why do some of them need a second dose?",
    "Give advice to a small bakery that wants to sell to restaurants for the first time.",
    "Why is the sky blue at noon and red at sunset? Give the physics and an everyday picture.",
    "Summarise the arguments for and against a four-day working week.",
)
"""Asked in turn when nothing else is: long enough answers to fill 256 tokens."""

CHARACTERS_A_TOKEN = 4
"""English text in the usual vocabularies; only for the length of recorded answers."""

PROBE_WORDS = (16, 112)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request. `max_tokens` bounds the answer."""

    text: str
    max_tokens: int


class PromptError(ValueError):
    """A prompt can't be made, or a dataset can't be read. The text says why and what works."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """How the server counts: `overhead` tokens of its chat template, and `per_word` tokens a word."""

    overhead: float
    per_word: float

    def words(self, tokens: int) -> int:
        """How many words make a prompt of that many tokens.

        Raises:
            PromptError: when the chat template alone takes as many.
        """
        count = round((tokens - self.overhead) / self.per_word)
        if count < 1:
            raise PromptError(
                f"--input-tokens {tokens}: the server's chat template alone takes {self.overhead:.0f} tokens; "
                f"{self.overhead + self.per_word:.0f} is the least"
            )
        return count


def calibrated(counts: Sequence[tuple[int, int]]) -> Calibration:
    """From two probes, each (words, prompt tokens that the server counted).

    Raises:
        PromptError: when longer probes aren't longer for the server.
    """
    (few, few_tokens), (many, many_tokens) = counts
    per_word = (many_tokens - few_tokens) / (many - few)
    if per_word <= 0:
        raise PromptError(
            f"the server counts {few_tokens} tokens in {few} words and {many_tokens} in {many}: its usage can't be "
            "trusted, so prompts of an exact length can't be made; leave --input-tokens out"
        )
    return Calibration(few_tokens - few * per_word, per_word)


def synthetic_text(words: int, random: Random) -> str:
    """That many words. The first differ between prompts, so that no prefix is shared."""
    return " ".join(random.choices(WORDS, k=words))


def synthetic(tokens: int, max_tokens: int, calibration: Calibration, random: Random) -> Iterator[Prompt]:
    """Prompts without end, each of that many tokens, the template included.

    Raises:
        PromptError: when the chat template alone takes as many.
    """
    words = calibration.words(tokens)
    while True:
        yield Prompt(synthetic_text(words, random), max_tokens)


def everyday(max_tokens: int) -> Iterator[Prompt]:
    """The questions in turn, without end."""
    while True:
        yield from (Prompt(question, max_tokens) for question in QUESTIONS)


def recorded(text: str, max_tokens: int | None, random: Random) -> Iterator[Prompt]:
    """The first question of each conversation of a ShareGPT file, shuffled, without end.

    The answer may be as long as the recorded one, at four characters a token, unless `max_tokens` says otherwise.

    Raises:
        PromptError: when `text` is no such file.
    """
    prompts = list(_conversations(text, max_tokens))
    if not prompts:
        raise PromptError("no conversation begins with a question (`from`: `human` or `user`) and its answer")
    random.shuffle(prompts)
    return _again(prompts)


def _again(prompts: Sequence[Prompt]) -> Iterator[Prompt]:
    while True:
        yield from prompts


def _conversations(text: str, max_tokens: int | None) -> Iterator[Prompt]:
    try:
        entries: Any = json.loads(text)
    except ValueError as error:
        raise PromptError(f"not JSON: {error}") from None
    if not isinstance(entries, list):
        raise PromptError('not a list such as [{"conversations": [{"from": "human", "value": "..."}, ...]}]')
    for entry in entries:
        turns = entry.get("conversations") if isinstance(entry, dict) else None
        if not isinstance(turns, list) or len(turns) < 2:
            continue
        asked, answered = _turn(turns[0]), _turn(turns[1])
        if asked is None or answered is None or asked[0] not in ("human", "user") or not asked[1].strip():
            continue
        yield Prompt(asked[1], max_tokens or max(1, len(answered[1]) // CHARACTERS_A_TOKEN))


def _turn(turn: Any) -> tuple[str, str] | None:
    if not isinstance(turn, dict):
        return None
    who, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
    return (who, text) if isinstance(who, str) and isinstance(text, str) else None
