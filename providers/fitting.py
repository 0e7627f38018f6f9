"""Which GPUs that a platform rents will do for a spec, and why the others won't. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from providers.base import Reason
from providers.model_shape import model_shape
from serving.capabilities import BF16_SINCE
from serving.gpus import Gpu, all_gpus
from serving.preflight import Host, Preflight, preflight
from serving.rank import wanted_gpus
from serving.spec import DeploymentSpec


def fitting_gpus(spec: DeploymentSpec, platform: str, least: tuple[int, int] = (0, 0)) -> tuple[Gpu, ...]:
    """The GPUs that the platform rents and the model fits on: in the user's order, else in the catalogue's.

    Unless the user names them, none of a compute capability below `least` is taken.

    Raises:
        SpecError: nothing is known of the model.
        UnknownGpu: `hardware.gpus` has a name that no GPU has.
    """
    # A frozen model of tuples and texts can be hashed.
    return _fitting(spec, platform, least)  # pyright: ignore[reportArgumentType]


@lru_cache(maxsize=8)
def _fitting(spec: DeploymentSpec, platform: str, least: tuple[int, int]) -> tuple[Gpu, ...]:
    wanted = wanted_gpus(spec)
    cards = [
        card for card in _rented(platform) if (card.name in wanted if wanted else card.compute_capability >= least)
    ]
    fitting = (card for card in cards if _verdict(spec, card, platform).ok)
    return tuple(sorted(fitting, key=lambda card: wanted.get(card.name, 0)))


def misfits(spec: DeploymentSpec, platform: str) -> list[Reason]:
    """Why none of the wanted GPUs will do, or the one that comes nearest."""
    wanted = wanted_gpus(spec)
    cards = [card for card in all_gpus() if card.name in wanted] if wanted else _rented(platform)
    verdicts = [_verdict(spec, card, platform) for card in cards]
    if not wanted:
        verdicts = sorted(verdicts, key=lambda found: len(found.refusals))[:1]
    listed = {f.key + f.wrong: Reason(f.key, f"{f.wrong}. {f.works}".rstrip()) for v in verdicts for f in v.refusals}
    return list(listed.values())


def is_half(cards: Iterable[Gpu]) -> bool:
    """Whether one of them has no bfloat16."""
    return any(card.compute_capability < BF16_SINCE for card in cards)


def _rented(platform: str) -> list[Gpu]:
    return [card for card in all_gpus() if platform in card.platform_names]


def _verdict(spec: DeploymentSpec, card: Gpu, platform: str) -> Preflight:
    return preflight(spec, model_shape(spec.model), card, Host(platform))
