"""How a label gets onto Modal: into a name, which has to be unique, and into an app's tags. Pure.

A volume has no tags, and two stacks may have the same names in different backends. So names end in the label's owner
(`providers.native.label_of`), which tells them apart and is in state before anything is created.

Names hold letters, digits, `-`, `_` and `.`, at most 64 of them, and tags as many or 63 (modal 1.6.4,
`_utils/name_utils.py`), so a label's slashes can't stay.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from providers.base import PlatformError
from providers.native import OWNER, owner_in

REVISION = "vllm-anywhere-revision"
"""The tag that tells what an app's containers run."""

_PARTS = ("project", "stack", "resource", "generation")
_TAG = "vllm-anywhere-{}"
_LONGEST_NAME = 64
_LONGEST_TAG = 63


def name_of(label: str) -> str:
    """The name of what carries a label; without an owner it isn't certain to be one stack's alone."""
    owner = owner_in(label)
    end = f"-{owner}" if owner else ""
    words = re.sub(r"[^A-Za-z0-9]+", "-", label.removesuffix(end))
    return _cut(words, _LONGEST_NAME - len(end)) + end


def words_in(name: str) -> str:
    """The label in a name that has an owner, with `-` for what isn't a letter or digit; "" without one."""
    owned = re.fullmatch(rf"(.+)-{OWNER}", name)
    return owned[1] if owned else ""


def tags_of(label: str, revision: str) -> dict[str, str]:
    """The tags of an app with that label."""
    parts = dict(zip(_PARTS, label.split("/"), strict=True))
    return {_TAG.format(name): _cut(part, _LONGEST_TAG) for name, part in parts.items()} | {REVISION: revision}


def owns(label: str, tags: Mapping[str, str]) -> bool:
    """Whether an app with these tags is what was created under `label`."""
    wanted = tags_of(label, "")
    return all(tags.get(name) == value for name, value in wanted.items() if name != REVISION)


def label_in(tags: Mapping[str, str]) -> str:
    """The label that the tags hold; "" when they are none of ours."""
    parts = [tags.get(_TAG.format(name), "") for name in _PARTS]
    return "/".join(parts) if all(parts) and parts[-1].partition("-")[0].isdigit() else ""


def id_of(environment: str, name: str) -> str:
    """The Pulumi id: an app's own id changes when it is stopped and deployed again."""
    return f"{environment}/{name}"


def split_id(id: str) -> tuple[str, str]:
    """Environment and name.

    Raises:
        PlatformError: it is no such id.
    """
    environment, slash, name = id.partition("/")
    if not (environment and slash and name) or "/" in name:
        raise PlatformError(f"{id} is no app or volume on Modal; an id looks like main/my-app")
    return environment, name


def _cut(text: str, longest: int) -> str:
    """Text of at most that length, still different from any other: what is cut off leaves its digest."""
    if len(text) <= longest:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    return f"{text[: longest - 11]}-{digest}"
