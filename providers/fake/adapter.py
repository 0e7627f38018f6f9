"""The spec on a cloud that lives in memory."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from providers.base import KEY, PREVIOUS_KEY, Ask, Declaration, Declared, Reason, Ref
from serving.offers import Offer, Rate
from serving.spec import Part


class FakeOptions(Part):
    """`fake` has no settings of its own."""


class FakeAdapter:
    """The smallest adapter there can be."""

    options = FakeOptions

    def unsupported(self, ask: Ask) -> list[Reason]:
        wanted = ask.spec.hardware.gpus
        if wanted and not set(wanted) & set(ask.market):
            return [Reason("hardware.gpus", f"fake has {' and '.join(ask.market)}")]
        return []

    def offers(self, ask: Ask) -> list[Offer]:
        wanted = ask.spec.hardware.gpus or ask.market
        return [_offer(gpu) for gpu in wanted if gpu in ask.market]

    def resources(self, ask: Ask, offer: Offer) -> Declared:
        model = ask.spec.model.served_name
        instance = Declaration(
            "server",
            "vllm-anywhere:fake:Instance",
            {"gpu": offer.gpu, "model": model, "apiKey": KEY, "previousKey": PREVIOUS_KEY},
        )
        return Declared(
            resources=(instance,),
            server="server",
            endpoint=Ref("server", "endpoint"),
            run=Ref("server", "label"),
            model=model,
            hardware=f"1x {offer.gpu}",
            each=("server",),
            notes=("This cloud does not exist: nothing is rented, and nothing answers after `up`.",),
        )


def _offer(gpu: str) -> Offer:
    return Offer(
        platform="fake",
        kind="instance",
        sku=gpu,
        gpu=gpu,
        gpu_count=1,
        region="nowhere",
        country="",
        tier="own",
        spot=False,
        rates=(Rate("GPU", "Hours", Decimal("0.50"), "snapshot", "", date(2026, 11, 21), "made up"),),
    )


ADAPTER = FakeAdapter()
