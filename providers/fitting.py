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
    verdicts = {card.name: _verdict(spec, card, platform) for card in cards}
    if not wanted:
        verdicts = dict(sorted(verdicts.items(), key=lambda named: len(named[1].refusals))[:1])
    said: dict[Reason, list[str]] = {}
    for name, verdict in verdicts.items():
        for found in verdict.refusals:
            said.setdefault(Reason(found.key, f"{found.wrong}. {found.works}".rstrip()), []).append(name)
    # What is true of all of them is no matter of the GPU.
    return [
        why if len(names) == len(verdicts) else Reason(why.key, f"{', '.join(names)}: {why.text}")
        for why, names in said.items()
    ]


def passed_over(spec: DeploymentSpec, platform: str) -> list[str]:
    """Which GPUs of `hardware.gpus` are not tried, and why, where others of them are."""
    fitting = {card.name for card in fitting_gpus(spec, platform)}
    wanted = wanted_gpus(spec)
    left = [card for card in all_gpus() if card.name in wanted and card.name not in fitting] if fitting else []
    return [
        f"{card.name} is passed over: {_verdict(spec, card, platform).refusals[0].wrong}."
        for card in sorted(left, key=lambda card: wanted[card.name])
    ]


def is_half(cards: Iterable[Gpu]) -> bool:
    """Whether one of them has no bfloat16."""
    return any(card.compute_capability < BF16_SINCE for card in cards)


def _rented(platform: str) -> list[Gpu]:
    return [card for card in all_gpus() if platform in card.platform_names]


def _verdict(spec: DeploymentSpec, card: Gpu, platform: str) -> Preflight:
    return preflight(spec, model_shape(spec.model), card, Host(platform))
