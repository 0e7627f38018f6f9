"""What Modal is asked for: one small method a question. Decides nothing.

Everything goes through Modal's own package, which is imported when the first question is asked and pinned in
pyproject.toml, since the gRPC interface under it is internal and moves. It repeats a call that Modal did not answer
(UNAVAILABLE and the like) a few times over by itself.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from providers.base import CreateUncertain, Interrupted
from providers.modal.definition import FUNCTION, Definition, app_of
from providers.modal.labels import REVISION, id_of, label_in, split_id
from providers.modal.session import Gone, NoAnswer, Session, sdk, token_from

if TYPE_CHECKING:
    import modal

_ASK_TIMEOUT_S = 60.0
_DEPLOY_TIMEOUT_S = 1800.0
"""The image is built within the deploy, when it is new to Modal."""

T = TypeVar("T")


@dataclass(frozen=True)
class Deployed:
    """An app that is deployed. `id` is the Pulumi id; `version` counts its deployments; `label` is "" when it is none
    of ours."""

    id: str
    app_id: str
    version: int
    tags: Mapping[str, str]

    @property
    def label(self) -> str:
        return label_in(self.tags)

    @property
    def revision(self) -> str:
        return self.tags.get(REVISION, "")


@dataclass(frozen=True)
class Shape:
    """What Modal says of an app's function. `gpus` are pairs of type and count."""

    url: str
    gpus: tuple[tuple[str, int], ...]
    cpu: float
    memory_mib: int
    regions: tuple[str, ...]
    routing_region: str
    concurrency: int
    timeout_s: int
    min_containers: int
    max_containers: int
    scaledown_window_s: int


@dataclass(frozen=True)
class Load:
    """What a function does now."""

    containers: int
    requests: int


class Modal:
    """One account. `pause(seconds)` waits, and returns True once the user has cancelled; `clock()` is monotonic."""

    def __init__(
        self,
        token: tuple[str, str],
        pause: Callable[[float], bool],
        clock: Callable[[], float] = time.monotonic,
        *,
        ask_timeout_s: float = _ASK_TIMEOUT_S,
        deploy_timeout_s: float = _DEPLOY_TIMEOUT_S,
    ) -> None:
        self._session = Session(token, pause, clock)
        self._ask_timeout_s = ask_timeout_s
        self._deploy_timeout_s = deploy_timeout_s

    def app(self, id: str) -> Deployed | None:
        """The deployed app of that id; None when there is none, or it was stopped."""
        environment, name = split_id(id)

        async def ask(client: modal.Client) -> Deployed | None:
            import modal

            app = await modal.App.lookup.aio(name, client=client, environment_name=environment)
            info = await app.info.aio()
            tags = await app.get_tags.aio(client=client)
            live = info.lifecycle.state == modal.types.AppState.DEPLOYED
            return Deployed(id_of(environment, name), info.app_id, info.lifecycle.version or 0, tags) if live else None

        return self._find(f"the app {id}", ask, None)

    def deploy(
        self, id: str, definition: Definition, label: str, strategy: Literal["rolling", "recreate"] = "rolling"
    ) -> None:
        """Deploy an app, or a new version of it; the same definition again changes nothing.

        `rolling` leaves the old containers to Modal, `recreate` ends them.

        Raises:
            CreateUncertain: when it may be deployed all the same.
            Refused, AuthError: when it is not.
        """
        environment, name = split_id(id)

        async def ask(client: modal.Client) -> None:
            app = app_of(name, environment, definition)
            await app.deploy.aio(
                environment_name=environment, tag=definition.tags[REVISION][:50], client=client, strategy=strategy
            )

        try:
            with _no_git():
                self._ask(f"the deploy of {id}", ask, self._deploy_timeout_s)
        except NoAnswer as error:
            raise CreateUncertain(str(error), label) from error
        except Interrupted as error:
            raise Interrupted(f"{error}; it may be deployed all the same: `pulumi up` takes it over") from error

    def stop(self, app: Deployed) -> None:
        """Stop an app for good; one that is stopped already is no error."""

        async def ask(client: modal.Client) -> None:
            import modal

            try:
                await (await modal.App.lookup.aio(app.app_id, client=client)).stop.aio(client=client)
            except modal.exception.ConflictError:
                return

        self._ask(f"stopping {app.id}", ask)

    def shape(self, id: str) -> Shape | None:
        """What the app's function is like now; None when it has none that serves."""
        environment, name = split_id(id)

        async def ask(client: modal.Client) -> Shape:
            import modal

            function = modal.Function.from_name(name, FUNCTION, environment_name=environment, client=client)
            url = await function.get_web_url.aio() or ""
            info = await function.info.aio()
            scaling = await function.autoscaler.settings.aio()
            concurrency = info.concurrency_info.max_inputs if info.concurrency_info else None
            return Shape(
                url=url.rstrip("/"),
                gpus=tuple(info.gpus),
                cpu=_first(info.cpu),
                memory_mib=int(_first(info.memory_mib)),
                regions=tuple(info.regions or ()),
                routing_region=info.routing_region or "",
                concurrency=concurrency or 1,
                timeout_s=info.timeout,
                min_containers=scaling.min_containers or 0,
                max_containers=scaling.max_containers or 0,
                scaledown_window_s=scaling.scaledown_window or 60,
            )

        return self._find(f"the function of {id}", ask, None)

    def scale(self, id: str, minimum: int, maximum: int, window_s: int) -> None:
        """Change the autoscaler of what is deployed; no container is restarted."""
        environment, name = split_id(id)

        async def ask(client: modal.Client) -> None:
            import modal

            function = modal.Function.from_name(name, FUNCTION, environment_name=environment, client=client)
            await function.hydrate.aio()
            await function.autoscaler.update.aio(
                min_containers=minimum, max_containers=maximum, scaledown_window=window_s
            )

        self._ask(f"the autoscaler of {id}", ask)

    def load(self, id: str) -> Load | None:
        """Containers and requests of the app's function now; None when it has none."""
        environment, name = split_id(id)

        async def ask(client: modal.Client) -> Load:
            import modal

            function = modal.Function.from_name(name, FUNCTION, environment_name=environment, client=client)
            now = await function.get_current_stats.aio()
            return Load(now.num_total_runners, now.num_running_inputs)

        return self._find(f"the load of {id}", ask, None)

    def has_volume(self, id: str) -> bool:
        """Whether there is a volume of that id."""
        environment, name = split_id(id)

        async def ask(client: modal.Client) -> bool:
            import modal

            await modal.Volume.from_name(name, environment_name=environment, client=client).hydrate.aio()
            return True

        return self._find(f"the volume {id}", ask, False)

    def create_volume(self, id: str, *, again: bool) -> None:
        """Make a volume. One that is there is left as it is when this is done `again`, else it is refused."""
        environment, name = split_id(id)

        async def ask(client: modal.Client) -> None:
            import modal

            await modal.Volume.objects.create.aio(
                name, allow_existing=again, environment_name=environment, client=client
            )

        self._ask(f"the volume {id}", ask)

    def delete_volume(self, id: str) -> None:
        """Delete a volume with everything on it; one that is gone already is no error."""
        environment, name = split_id(id)

        async def ask(client: modal.Client) -> None:
            import modal

            await modal.Volume.objects.delete.aio(name, allow_missing=True, environment_name=environment, client=client)

        self._ask(f"deleting the volume {id}", ask)

    def log_tail(self, id: str, lines: int) -> list[str]:
        """The last lines that an app's containers wrote."""
        environment, name = split_id(id)

        async def ask(client: modal.Client) -> list[str]:
            import modal

            app = await modal.App.lookup.aio(name, client=client, environment_name=environment)
            texts = [entry.message async for entry in app.logs.tail.aio(lines)]
            return "".join(texts).splitlines()[-lines:]

        return self._find(f"the log of {id}", ask, [])

    def workspace(self) -> str:
        """The name of the account."""

        async def ask(client: modal.Client) -> str:
            import modal

            workspace = modal.Workspace.from_context(client=client)
            await workspace.hydrate.aio()
            return workspace.name or "of a service user"

        return self._find("the workspace", ask, "")

    def environments(self) -> list[str]:
        """The names of all environments."""

        async def ask(client: modal.Client) -> list[str]:
            import modal

            return [one.name for one in await modal.Environment.objects.list.aio(client=client) if one.name]

        return self._find("the environments", ask, [])

    def apps_in(self, environment: str) -> list[str]:
        """The ids of the deployed apps of an environment."""

        async def ask(client: modal.Client) -> list[str]:
            import modal

            found = await modal.Environment.from_name(environment, client=client).apps.list.aio()
            return [id_of(environment, app.name) for app in found if app.name]

        return self._find(f"the apps of {environment}", ask, [])

    def volumes_in(self, environment: str) -> list[str]:
        """The ids of the volumes of an environment."""

        async def ask(client: modal.Client) -> list[str]:
            import modal

            found = await modal.Volume.objects.list.aio(environment_name=environment, client=client)
            return [id_of(environment, volume.name) for volume in found if volume.name]

        return self._find(f"the volumes of {environment}", ask, [])

    def _ask(
        self, what: str, ask: Callable[[modal.Client], Coroutine[Any, Any, T]], timeout_s: float | None = None
    ) -> T:
        return self._session.ask(what, ask, timeout_s=self._ask_timeout_s if timeout_s is None else timeout_s)

    def _find(self, what: str, ask: Callable[[modal.Client], Coroutine[Any, Any, T]], missing: T) -> T:
        try:
            return self._ask(what, ask)
        except Gone:
            return missing


def connect(
    pause: Callable[[float], bool], *, ask_timeout_s: float = _ASK_TIMEOUT_S, deploy_timeout_s: float = 0.0
) -> Modal:
    """The account of the environment's token. `deploy_timeout_s` 0 is the usual one.

    Raises:
        AuthError: there is no token.
        PlatformError: the package is missing.
    """
    limit_s = deploy_timeout_s or _DEPLOY_TIMEOUT_S
    return Modal(token_from(sdk()), pause, ask_timeout_s=ask_timeout_s, deploy_timeout_s=limit_s)


_GIT = threading.Lock()


@contextmanager
def _no_git() -> Generator[None]:
    """Modal's package tells Modal the commit, its author's address and the remote's URL, which may hold a token, of the
    folder that it runs in (modal 1.6.4, `_utils/git_utils.py`). Git finds no repository here.

    The environment is the whole process's, so one deploy waits for the other: the last to end would leave it changed.
    """
    with _GIT:
        before = os.environ.get("GIT_DIR")
        os.environ["GIT_DIR"] = os.devnull
        try:
            yield
        finally:
            if before is None:
                del os.environ["GIT_DIR"]
            else:
                os.environ["GIT_DIR"] = before


def log_tail(server_id: str, lines: int) -> list[str]:
    """The last lines of a server's log, by its Pulumi id."""
    return connect(lambda seconds: False).log_tail(server_id, lines)


def _first(value: float | tuple[float, float] | None) -> float:
    """What is requested of a pair of request and limit."""
    return value[0] if isinstance(value, tuple) else value or 0
