"""What closed APIs charge for tokens: a dated table, and rows of the user's own that win over it.

`data/apis.csv` holds one row a model and prompt length. Prices are the vendor's list prices for single requests;
batches (half of it), priority tiers and regional surcharges are not in it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache
from typing import Literal

from pydantic import Field, ValidationError

from serving.spec import HOURS_PER_MONTH, Part, Usd
from serving.tables import data_text

CACHE_LIFETIME_S = 300
"""Seconds a cached prompt is kept after it was last read: the cheaper of Anthropic's two lifetimes."""

_MILLION = 10**6


@dataclass(frozen=True, slots=True)
class ApiModel:
    """One model behind a closed API. Prices are US dollars for a million tokens.

    Attributes:
        cache_write_per_m, cache_read_per_m: of prompt tokens that are put into and read from the prompt cache; None
            when the API has none.
        cache_minimum_tokens: shortest prompt that is cached at all; a shorter one is billed in full, and nothing in
            the API's answer says why. None when it isn't known, and then nothing counts as cached.
        prompt_over, prompt_up_to: the prompt lengths that the row is for; `prompt_up_to` None is any longer one.
        token_factor: tokens that its tokenizer makes of a text for which one token was declared.
        as_of: the day the price was true; None when a user's row doesn't say.
        source: the table of this repository, or the user's file.
        obtained: how the price came here, such as `transcribed` from the vendor's page.
        note: what makes its tokens differ from another model's.
    """

    name: str
    vendor: str
    input_per_m: Decimal
    output_per_m: Decimal
    cache_write_per_m: Decimal | None
    cache_read_per_m: Decimal | None
    cache_minimum_tokens: int | None
    url: str
    as_of: date | None
    source: Literal["snapshot", "user"]
    prompt_over: int = 0
    prompt_up_to: int | None = None
    token_factor: Decimal = Decimal(1)
    obtained: str = ""
    note: str = ""

    def takes(self, input_tokens: int) -> bool:
        """Whether the row is for prompts of that declared length."""
        counted = input_tokens * self.token_factor
        return self.prompt_over < counted and (self.prompt_up_to is None or counted <= self.prompt_up_to)

    def caches(self, prompt_tokens: int) -> bool:
        """Whether a prefix of that declared length is kept between requests."""
        known = None not in (self.cache_write_per_m, self.cache_read_per_m, self.cache_minimum_tokens)
        return known and 0 < prompt_tokens * self.token_factor >= (self.cache_minimum_tokens or 0)


class ApiTableError(ValueError):
    """The user's file is not a table of API prices. The text names the line, the column, the value and what works."""


def api_models(user_text: str | None = None) -> tuple[ApiModel, ...]:
    """Every row, the user's first; a name in the user's table replaces all rows of that name.

    `user_text` is CSV with at least the columns `name`, `input_per_m` and `output_per_m`.

    Raises:
        ApiTableError: when `user_text` is not such a table.
    """
    own = tuple(_parse(user_text, "user")) if user_text is not None else ()
    named = {api.name for api in own}
    return (*own, *(api for api in _snapshot() if api.name not in named))


def request_price(
    api: ApiModel,
    input_tokens: int,
    output_tokens: int,
    cached_prompt_tokens: int = 0,
    missed: Decimal = Decimal(0),
) -> Decimal:
    """US dollars for one request.

    `cached_prompt_tokens` of the prompt are the same in every request and marked for the cache. What is too short for
    the cache is priced in full. `missed` is the share of requests that come after the cache has expired and fill it
    again (`cache_misses`).
    """
    cached = min(cached_prompt_tokens, input_tokens)
    price = input_tokens * api.input_per_m + output_tokens * api.output_per_m
    if api.caches(cached) and api.cache_write_per_m is not None and api.cache_read_per_m is not None:
        each = api.cache_write_per_m * missed + api.cache_read_per_m * (1 - missed)
        price += cached * (each - api.input_per_m)
    return price * api.token_factor / _MILLION


def cache_misses(requests_per_month: int) -> Decimal:
    """Share of requests before which the cache expired: those with no other in the `CACHE_LIFETIME_S` before them.

    Arrivals are Poisson, so that is exp(-rate x lifetime).
    """
    return (-Decimal(requests_per_month) * CACHE_LIFETIME_S / (HOURS_PER_MONTH * 3600)).exp()


def price_at(
    api: ApiModel, input_tokens: int, output_tokens: int, cached_prompt_tokens: int, requests_per_month: int
) -> Decimal:
    """US dollars for one of that many requests a month, cached only where that is the cheaper way."""
    plain = request_price(api, input_tokens, output_tokens)
    missed = cache_misses(requests_per_month)
    return min(plain, request_price(api, input_tokens, output_tokens, cached_prompt_tokens, missed))


class _Row(Part):
    name: str = Field(min_length=1)
    vendor: str = ""
    input_per_m: Usd
    output_per_m: Usd
    cache_write_per_m: Usd | None = None
    cache_read_per_m: Usd | None = None
    cache_minimum_tokens: int | None = Field(default=None, ge=0)
    prompt_over: int = Field(default=0, ge=0)
    prompt_up_to: int | None = Field(default=None, ge=1)
    token_factor: Decimal = Field(default=Decimal(1), gt=0, le=10, max_digits=6)
    url: str = ""
    as_of: date | None = None
    obtained: str = ""
    note: str = ""


def _parse(text: str, source: Literal["snapshot", "user"]) -> Iterator[ApiModel]:
    reader = csv.DictReader(text.splitlines())
    known = set(_Row.model_fields)
    columns = [name.strip() for name in reader.fieldnames or ()]
    missing = [name for name, field in _Row.model_fields.items() if field.is_required() and name not in columns]
    if missing or set(columns) - known:
        wrong = [f"no column {name}" for name in missing]
        wrong += [f"unknown column {name!r}" for name in columns if name not in known]
        raise ApiTableError(f"line 1: {'; '.join(wrong)}; the columns are {', '.join(_Row.model_fields)}")
    reader.fieldnames = columns
    for values in reader:
        row = _row(reader.line_num, values)
        yield ApiModel(
            name=row.name,
            vendor=row.vendor,
            input_per_m=row.input_per_m,
            output_per_m=row.output_per_m,
            cache_write_per_m=row.cache_write_per_m,
            cache_read_per_m=row.cache_read_per_m,
            cache_minimum_tokens=row.cache_minimum_tokens,
            url=row.url,
            as_of=row.as_of,
            source=source,
            prompt_over=row.prompt_over,
            prompt_up_to=row.prompt_up_to,
            token_factor=row.token_factor,
            obtained=row.obtained,
            note=row.note,
        )


def _row(line: int, values: Mapping[str | None, str | list[str] | None]) -> _Row:
    if None in values:
        raise ApiTableError(f"line {line}: more values than columns; put a value that has a comma into quotes")
    try:
        return _Row.model_validate({name: value for name, value in values.items() if value})
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        column = str(found["loc"][0])
        raise ApiTableError(f"line {line}, {column} = {values.get(column) or 'nothing'}: {_works(column)}") from None


def _works(column: str) -> str:
    if column == "token_factor":
        return "tokens that it counts for one declared, such as 1.3"
    if column.endswith("_per_m"):
        return "US dollars for a million tokens, such as 3 or 0.25"
    if column == "as_of":
        return "a day, such as 2026-10-24"
    return "the model's name" if column == "name" else "a whole number of tokens"


@cache
def _snapshot() -> tuple[ApiModel, ...]:
    return tuple(_parse(data_text("apis.csv"), "snapshot"))
