"""Values on Pulumi's wire."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from providers.native import UNKNOWN
from providers.plugin.wire import OUTPUT, SIGNATURE, decode, encode, has_unknown

scalars = st.one_of(st.booleans(), st.integers(-(2**50), 2**50), st.text(), st.just(UNKNOWN))
values = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(min_size=1), inner)), max_leaves=12
)
properties = st.dictionaries(st.text(min_size=1), values)


@given(properties)
def test_what_is_encoded_is_decoded_the_same(fields: dict[str, Any]) -> None:
    assert decode(encode(fields)) == fields


@given(properties)
def test_marked_properties_come_back_as_secrets_with_the_same_values(fields: dict[str, Any]) -> None:
    decoded = decode(encode(fields, secrets=fields.keys()))
    assert decoded == fields
    assert decoded.secrets == frozenset(fields)


def test_a_secret_at_any_depth_makes_its_property_secret() -> None:
    decoded = decode(encode({"env": {"KEY": SecretStr("s")}, "list": [[SecretStr("t")]], "plain": "p"}))
    assert decoded == {"env": {"KEY": "s"}, "list": [["t"]], "plain": "p"}
    assert decoded.secrets == {"env", "list"}


def test_none_is_left_out_and_decimals_are_text() -> None:
    assert decode(encode({"a": None, "b": Decimal("0.10")})) == {"b": "0.10"}


def test_an_output_value_is_its_value_or_unknown() -> None:
    known = {SIGNATURE: OUTPUT, "value": 3, "secret": True}
    decoded = decode(encode({"a": known, "b": {SIGNATURE: OUTPUT}}))
    assert decoded == {"a": 3, "b": UNKNOWN}
    assert decoded.secrets == {"a"}


def test_unknown_is_found_at_any_depth() -> None:
    assert has_unknown({"a": [{"b": UNKNOWN}]})
    assert not has_unknown({"a": [{"b": 1}]})


def test_what_has_no_form_on_the_wire_is_an_error() -> None:
    with pytest.raises(TypeError, match="object has no form"):
        encode({"a": object()})
