"""The guard before vLLM as a file to write beside it, and the environment that it reads."""

from __future__ import annotations

from serving.tables import data_text

API_KEY = "VLLM_API_KEY"
"""Environment variable of the key. vLLM takes its value as one key: it knows no list here."""
PREVIOUS_KEY = "ANYWHERE_PREVIOUS_KEY"
"""Environment variable of a key that counts too, for a change of keys without an outage.
vLLM warns of names that begin as its own do."""
KEYS_FILE = "ANYWHERE_KEYS"
"""Environment variable of a file that has both keys as `NAME=value` lines and may change while the server serves."""
GUARD_MODULE = "vllm_anywhere_guard"
"""The guard's module, where vLLM runs."""


def guard_source() -> str:
    """The guard as a Python module of its own, which needs the standard library alone."""
    return data_text("guard.py")
