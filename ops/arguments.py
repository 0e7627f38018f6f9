"""Types of options: a text becomes a number, or is wrong usage with what would do."""

from __future__ import annotations

import argparse
import math
from decimal import Decimal, InvalidOperation


def count(text: str) -> int:
    """1 or more."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text}: a whole number above 0")
    return int(text)


def positive(text: str) -> float:
    """Above 0, and finite."""
    if not 0 < (value := float(amount(text))) < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: out of range")
    return value


def amount(text: str) -> Decimal:
    """Above 0, and finite."""
    if (value := finite(text)) <= 0:
        raise argparse.ArgumentTypeError(f"{text}: a number above 0")
    return value


def finite(text: str) -> Decimal:
    """Any number but the infinite ones."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("nan")
    if not value.is_finite():
        raise argparse.ArgumentTypeError(f"{text}: not a number")
    return value
