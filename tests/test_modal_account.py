"""What `doctor` and `orphans` learn of a Modal account, on the emulated one."""

from __future__ import annotations

from decimal import Decimal

import pytest
from emulators.modal import ModalEmulator
from test_lifecycle_invariants import context
from test_modal_apps import ID, OWNER, cloud_of, created, modal  # noqa: F401 - a fixture

from providers.base import AuthError
from providers.modal.account import ModalAccount, open_account
from providers.modal.volumes import VolumeInputs, VolumeResource


@pytest.fixture
def account(modal: ModalEmulator) -> ModalAccount:  # noqa: F811
    return ModalAccount(cloud_of(modal))


def test_it_says_whose_token_it_is(account: ModalAccount) -> None:
    assert "workspace emulated" in account.identify()


def test_a_sleeping_app_costs_nothing_and_a_running_one_what_its_containers_do(
    modal: ModalEmulator,  # noqa: F811
    account: ModalAccount,
) -> None:
    created(modal, regions=["eu"])
    assert account.balance().hourly_usd == 0
    created(modal, regions=["eu"], min_containers=2, max_containers=2)
    (app,) = account.holdings([])
    assert (app.kind, app.id, app.label, app.status) == ("app", ID, "shop/dev/server/1", "2 containers")
    assert app.hourly_usd == account.balance().hourly_usd == Decimal("4.254336")


def test_apps_of_others_are_none_of_our_holdings(modal: ModalEmulator, account: ModalAccount) -> None:  # noqa: F811
    created(modal)
    modal.deployed[0].tags = {}
    assert account.holdings(["shop/dev"]) == []


def test_volumes_are_ours_by_the_name_of_a_known_stack_and_the_owner_at_its_end(
    modal: ModalEmulator,  # noqa: F811
    account: ModalAccount,
) -> None:
    for label in (f"shop/dev/cache/1-{OWNER}", "shop/dev/data/1", f"my/data/set/2-{OWNER}"):
        VolumeResource().create_in(cloud_of(modal), VolumeInputs(label=label, environment="main"))
    assert [(one.id, one.label) for one in account.holdings(["shop/dev"])] == [
        (f"main/shop-dev-cache-1-{OWNER}", "shop/dev/cache/1")
    ]


def test_what_is_released_is_gone(modal: ModalEmulator, account: ModalAccount) -> None:  # noqa: F811
    modal.workspace.environments.append("staging")
    created(modal)
    VolumeResource().create_in(cloud_of(modal), VolumeInputs(label=f"shop/dev/cache/1-{OWNER}", environment="staging"))
    held = account.holdings(["shop/dev"])
    assert [one.kind for one in held] == ["app", "volume"]
    for one in held:
        account.release(context(), one)
    assert account.holdings(["shop/dev"]) == []
    assert modal.deployed == []


def test_without_a_token_nothing_is_opened(modal: ModalEmulator, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.delenv("MODAL_TOKEN_SECRET")
    with pytest.raises(AuthError, match="there is no token"):
        open_account(1.0)
