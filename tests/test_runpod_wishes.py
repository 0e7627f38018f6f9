"""Which changes of a pod's wishes the rented pod meets already, so that it need not be replaced."""

from __future__ import annotations

from typing import Any

import pytest

from providers.runpod.pod_terms import met_by

RENTED = {"gpu": "NVIDIA L4", "cloud": "SECURE", "data_center": "EU-RO-1", "cuda": "12.9"}


@pytest.mark.parametrize(
    ("new", "met"),
    [
        ({"gpus": ["NVIDIA A40", "NVIDIA L4"]}, {"gpus"}),
        ({"gpus": ["NVIDIA A40"]}, set()),
        ({"clouds": ["COMMUNITY"]}, set()),
        ({"clouds": ["SECURE", "COMMUNITY"]}, {"clouds"}),
        ({"data_centers": []}, {"data_centers"}),
        ({"data_centers": [["EU-SE-1"], ["EU-RO-1", "EU-CZ-1"]]}, {"data_centers"}),
        ({"data_centers": [["EU-SE-1"]]}, set()),
        ({"min_cuda": "12.8"}, {"min_cuda"}),
        ({"min_cuda": "13.0"}, set()),
        ({"gpus": object()}, set()),
    ],
)
def test_a_rented_pod_meets_the_wishes_that_name_it(new: dict[str, Any], met: set[str]) -> None:
    assert met_by(RENTED, new) & set(new) == met


def test_what_a_pod_does_not_say_is_not_met() -> None:
    assert met_by({"gpu": "NVIDIA L4"}, {"data_centers": [["EU-RO-1"]], "min_cuda": "12.8"}) == frozenset()
