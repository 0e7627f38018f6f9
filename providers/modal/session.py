"""Calls of Modal's package: with a time limit, an ear for the user's Ctrl-C, and errors that say what comes next.

How the answers are told apart:

    NotFoundError                        Gone
    AuthError, PermissionDeniedError     AuthError: the token is refused, or may not do this
    InvalidError, ImageBuildError, ...   Refused: the request itself is wrong, and nothing was deployed
    anything else, a time-out            NoAnswer: whether it was carried out isn't known
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from providers.base import AuthError, Interrupted, PlatformError
from providers.extras import install

if TYPE_CHECKING:
    import modal

_WATCH_S = 0.1

T = TypeVar("T")


class Refused(PlatformError):
    """Modal understood the request and won't do it."""


class Gone(PlatformError):
    """There is nothing of that name."""


class NoAnswer(PlatformError):
    """Whether Modal did it isn't known."""


class Session:
    """Calls in the name of one account. `pause(seconds)` waits, and returns True once the user has cancelled;
    `clock()` is monotonic, in seconds."""

    def __init__(self, token: tuple[str, str], pause: Callable[[float], bool], clock: Callable[[], float]) -> None:
        self._token = token
        self._pause = pause
        self._clock = clock

    def ask(
        self,
        what: str,
        ask: Callable[[modal.Client], Coroutine[Any, Any, T]],
        *,
        timeout_s: float,
    ) -> T:
        """The answer to one question, `what` for people.

        Raises:
            Gone, Refused, AuthError, NoAnswer: as above.
            Interrupted: the user has cancelled; the call is given up.
            PlatformError: the package is missing.
        """
        modal = sdk()

        async def within() -> T:
            return await self._watched(what, _client(modal, self._token), ask, timeout_s)

        try:
            return asyncio.run(within())
        except modal.exception.NotFoundError as error:
            raise Gone(f"Modal has nothing of that name for {what}: {error}") from None
        except PlatformError:
            raise
        except Exception as error:
            raise _told(modal, what, error) from error

    async def _watched(
        self, what: str, client: Awaitable[modal.Client], ask: Callable[[modal.Client], Awaitable[T]], limit_s: float
    ) -> T:
        """The answer; a call that is cancelled, or takes too long, is given up."""

        async def call() -> T:
            return await ask(await client)

        task = asyncio.ensure_future(call())
        begun = self._clock()
        try:
            while not (await asyncio.wait({task}, timeout=_WATCH_S))[0]:
                if self._pause(0.0):
                    raise Interrupted(f"cancelled while Modal was asked for {what}")
                if self._clock() - begun > limit_s:
                    raise NoAnswer(f"Modal did not answer about {what} in {limit_s:.0f} s")
            return task.result()
        finally:
            task.cancel()


def sdk() -> Any:
    """The `modal` package.

    Raises:
        PlatformError: it is not installed.
    """
    try:
        return importlib.import_module("modal")
    except ImportError as error:
        raise PlatformError(f"Modal's own package can't be imported ({error}): {install('modal')}") from error


def token_from(modal: Any) -> tuple[str, str]:
    """Id and secret of the token, from MODAL_TOKEN_ID and MODAL_TOKEN_SECRET or the user's ~/.modal.toml.

    Raises:
        AuthError: there is none.
    """
    config = modal.config.config
    id, secret = config.get("token_id"), config.get("token_secret")
    if not id or not secret:
        raise AuthError(
            "there is no token for Modal. Make one at https://modal.com/settings/tokens and `export "
            "MODAL_TOKEN_ID=... MODAL_TOKEN_SECRET=...`, or `modal token new`"
        )
    return id, secret


_CLIENTS: dict[tuple[str, str, str], modal.Client] = {}


async def _client(modal: Any, token: tuple[str, str]) -> modal.Client:
    """One connection for each account and address: opening one starts background work that lasts."""
    key = (modal.config.config["server_url"], *token)
    if key not in _CLIENTS:
        _CLIENTS[key] = await modal.Client.from_credentials.aio(*token)
    return _CLIENTS[key]


def _told(modal: Any, what: str, error: Exception) -> PlatformError:
    kinds = modal.exception
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, (kinds.AuthError, kinds.PermissionDeniedError)):
        return AuthError(
            f"Modal refuses the token for {what} ({text}). Check MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or "
            "`modal token new`"
        )
    if isinstance(error, kinds.ImageBuildError):
        return Refused(f"Modal could not build the image, so nothing was deployed or is billed: {text}")
    if isinstance(error, (kinds.InvalidError, kinds.AlreadyExistsError, kinds.ResourceExhaustedError)):
        return Refused(f"Modal refused {what}: {text}")
    return NoAnswer(f"Modal did not answer about {what}: {type(error).__name__} {text}")
