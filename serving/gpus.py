"""The GPUs that the platforms rent: memory as the driver reports it, compute capability, bandwidth, names.

`data/gpus.csv` holds one row a GPU; `data/names.csv` of a platform's folder, where there is one, what that platform
calls them. `memory_gib` is what CUDA calls the total, which is less than the number on the box; by `memory_basis` it is
the smallest seen (`observed`), as drivers differ, or the box's number less what the driver of a like card keeps
(`derived`). Bandwidth and capability are NVIDIA's data sheets.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from serving.tables import additions, data_text


def _names() -> list[dict[str, str]]:
    """The rows of every `names.csv`: platform, gpu, and one name that the platform has for it."""
    return [row for _, text in additions("names.csv") for row in csv.DictReader(text.splitlines())]


_COLUMNS = ("runpod", "vastai", "gcp", "modal")
PLATFORMS = (*_COLUMNS, *dict.fromkeys(row["platform"] for row in _names()))
"""The platforms that rent GPUs by name."""


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU.

    Attributes:
        name: canonical name, such as `RTX 4090`.
        memory_gib: total memory of one GPU as CUDA reports it, GiB.
        compute_capability: (major, minor).
        bandwidth_gb_s: memory bandwidth, 10^9 bytes a second.
        platform_names: platform -> the names it rents this GPU under.
    """

    name: str
    memory_gib: float
    compute_capability: tuple[int, int]
    bandwidth_gb_s: float
    platform_names: Mapping[str, tuple[str, ...]] = field(compare=False)
    aliases: tuple[str, ...] = field(default=(), compare=False)

    @property
    def capability(self) -> str:
        return "{}.{}".format(*self.compute_capability)


class UnknownGpu(ValueError):
    """No GPU has that name. `suggestions` are canonical names, nearest first; it may be empty."""

    def __init__(self, text: str, suggestions: tuple[str, ...]) -> None:
        self.text, self.suggestions = text, suggestions
        hint = f" Did you mean {' or '.join(f'`{s}`' for s in suggestions)}?" if suggestions else ""
        super().__init__(f"no NVIDIA GPU is known as `{text}`.{hint}")


def all_gpus() -> tuple[Gpu, ...]:
    """Every GPU of the catalogue, in the file's order."""
    return tuple(_catalogue().values())


def gpu(name: str) -> Gpu:
    """The GPU with exactly this canonical name.

    Raises:
        UnknownGpu: with suggestions.
    """
    found = _catalogue().get(name)
    if found is None:
        raise UnknownGpu(name, _suggestions(name))
    return found


@cache
def find_gpus(text: str) -> tuple[Gpu, ...]:
    """Every GPU that a person means by `text`: `4090`, `a100 80gb` (PCIe and SXM), `NVIDIA GeForce RTX 3090`.

    A platform's own name means what that platform rents under it, which may be two sizes (`RTX 3080`).

    Raises:
        UnknownGpu: with suggestions.
    """
    verbatim = _by_platform_name().get(text.strip().lower())
    if verbatim:
        return verbatim
    words = _words(text)
    for wanted in (words, tuple(w for w in words if not re.fullmatch(r"\d+gb", w))):
        exact = _by_key().get("".join(wanted))
        if exact:
            return exact
        loose = tuple(g for g in all_gpus() if wanted and set(wanted) <= set(_words(g.name)))
        if loose:
            return loose
    raise UnknownGpu(text, _suggestions(text))


@cache
def gpu_on(platform: str, name: str, memory_gib: float | None = None) -> Gpu:
    """The GPU that `platform` calls `name`.

    One name may cover two sizes (Vast.ai's `A100 SXM4`): `memory_gib`, the box's or the driver's, picks the
    nearest; without it the smallest is meant.

    Raises:
        UnknownGpu: the platform rents nothing under that name, as far as the catalogue knows.
    """
    named = [g for g in all_gpus() if name in g.platform_names.get(platform, ())]
    if not named:
        raise UnknownGpu(name, _suggestions(name))
    return min(named, key=lambda g: g.memory_gib if memory_gib is None else abs(g.memory_gib - memory_gib))


@cache
def _catalogue() -> dict[str, Gpu]:
    brought: dict[str, dict[str, tuple[str, ...]]] = {}
    for row in _names():
        names = brought.setdefault(row["gpu"], {})
        names[row["platform"]] = (*names.get(row["platform"], ()), row["name"])
    rows = csv.DictReader(data_text("gpus.csv").splitlines())
    return {row["name"]: _gpu(row, brought.get(row["name"], {})) for row in rows}


def _gpu(row: dict[str, str], brought: Mapping[str, tuple[str, ...]]) -> Gpu:
    major, minor = row["compute_capability"].split(".")
    return Gpu(
        name=row["name"],
        memory_gib=float(row["memory_gib"]),
        compute_capability=(int(major), int(minor)),
        bandwidth_gb_s=float(row["bandwidth_gb_s"]),
        platform_names={p: tuple(row[p].split("|")) for p in _COLUMNS if row[p]} | dict(brought),
        aliases=tuple(a for a in row["aliases"].split("|") if a),
    )


@cache
def _by_platform_name() -> dict[str, tuple[Gpu, ...]]:
    """A platform's own name in lower case -> the GPUs it rents under it."""
    names: dict[str, tuple[Gpu, ...]] = {}
    for found in all_gpus():
        for name in {n.lower() for own in found.platform_names.values() for n in own}:
            names[name] = (*names.get(name, ()), found)
    return names


@cache
def _by_key() -> dict[str, tuple[Gpu, ...]]:
    """Compact spelling of names and aliases -> GPUs; a canonical name wins over another GPU's alias."""
    keys = {"".join(_words(found.name)): (found,) for found in all_gpus()}
    for found in all_gpus():
        for key in {"".join(_words(alias)) for alias in found.aliases}:
            keys.setdefault(key, (found,))
    return keys


_NOISE = {"nvidia", "geforce", "tesla", "rtx", "gtx", "generation", "edition", "gpu"}


def _words(text: str) -> tuple[str, ...]:
    """Lower-case words without the brand; `80 GB` and `80g` become `80gb`, `SXM4` becomes `sxm`."""
    text = re.sub(r"(\d+)\s*gi?b?\b", r"\1gb", text.lower())
    text = re.sub(r"\bsxm\d\b", "sxm", text)
    text = re.sub(r"\b(rtx|gtx)(?=[a\d])", "", text)
    return tuple(w for w in re.split(r"[\s_/.-]+", text) if w and w not in _NOISE)


def _suggestions(text: str) -> tuple[str, ...]:
    by_key = {"".join(_words(g.name)): g.name for g in all_gpus()}
    return tuple(by_key[k] for k in difflib.get_close_matches("".join(_words(text)), by_key, n=3, cutoff=0.5))
