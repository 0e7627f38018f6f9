"""The workspace in time: a clock that can be put forward, and the containers that run by then.

A container starts for a request that finds none free, or to keep `min_containers`; it ends after `scaledown_window`
seconds without one. After a publish that changed something, old containers answer until one of the new version does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager

from ..runpod.engines import Engine, Engines
from .container import command_in
from .state import App, Function, Task, Workspace

_ENGINE_LIMIT_S = 60.0
_POLL_S = 0.02


class World:
    """Everything that the control plane and the web share; take it with `settled()`."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.engines = Engines()
        self.closed = threading.Event()
        self._lock = threading.RLock()
        self._running: dict[str, str] = {}
        self._written: dict[str, list[str]] = {}

    def now(self) -> float:
        return time.time() + self.workspace.ahead_s

    def advance(self, seconds: float) -> None:
        """Put the clock forward: what takes that long has happened."""
        with self.settled():
            self.workspace.ahead_s += seconds
            self._settle()

    @contextmanager
    def settled(self) -> Generator[Workspace]:
        with self._lock:
            self._settle()
            yield self.workspace
            self._settle()

    def close(self) -> None:
        self.closed.set()
        with self._lock:
            self.engines.close()

    def log(self, app_id: str) -> list[str]:
        """What an app's containers have written, those that have ended first."""
        runs = [run for run, app in self._running.items() if app == app_id]
        return [*self._written.get(app_id, []), *(line for run in runs for line in self.engines.log(run, self.now()))]

    @contextmanager
    def container(self, environment: str, name: str, function: str) -> Generator[Engine | None]:
        """A container that answers, woken if need be, and busy until the end of the block; None when none comes up."""
        task = self._woken(environment, name, function)
        try:
            yield self.engines.ready(task.run) if task else None
        finally:
            if task is not None:
                with self.settled():
                    task.busy -= 1
                    task.used_at = self.now()

    def _woken(self, environment: str, name: str, function: str) -> Task | None:
        begun = time.monotonic()
        while time.monotonic() - begun < _ENGINE_LIMIT_S and not self.closed.is_set():
            with self.settled() as workspace:
                app = workspace.app_named(environment, name)
                if app is None or function not in app.functions:
                    return None
                ready = self._ready(app)
                if ready is not None:
                    ready.busy += 1
                    ready.used_at = self.now()
                    return ready
                task = self._current(app) or self._start(app, app.functions[function])
                if task is None or self._stuck(task):
                    return None
            time.sleep(_POLL_S)
        return None

    def _ready(self, app: App) -> Task | None:
        """The newest container that answers."""
        tasks = sorted(app.tasks, key=lambda task: -task.version)
        return next((task for task in tasks if self.engines.ready(task.run)), None)

    def _current(self, app: App) -> Task | None:
        return next((task for task in app.tasks if task.version == app.version), None)

    def _stuck(self, task: Task) -> bool:
        engine = self.engines.get(task.run)
        return task.boot.broken or task.boot.exits or (engine is not None and engine.process is None)

    def _ended(self, task: Task) -> bool:
        """Whether the server has ended by itself, and the container with it."""
        engine = self.engines.get(task.run)
        return engine is not None and engine.process is not None and engine.process.exited

    def _start(self, app: App, function: Function) -> Task | None:
        """A container on the first GPU of the list that there is."""
        ranked = (one for one in function.ranked if one.resources.gpu_config.gpu_type not in self.workspace.without)
        definition = next(ranked, None)
        if definition is None:
            return None
        run = self.workspace.new_id("ta")
        task = Task(run, app.id, app.version, definition, self.now(), self.workspace.boot_for(app.name), self.now())
        app.tasks.append(task)
        return task

    def _settle(self) -> None:
        if self.closed.is_set():
            return
        for app in self.workspace.apps.values():
            self._scale(app)
        wanted = {
            task.run: (
                engine.command
                if (engine := self.engines.get(task.run))
                else command_in(self.workspace, task.definition),
                task.boot,
            )
            for task in self._tasks()
        }
        for run in self._running.keys() - wanted.keys():
            self._written.setdefault(self._running[run], []).extend(self.engines.log(run, self.now()))
        self._running = {task.run: task.app_id for task in self._tasks()}
        self.engines.keep(wanted, self.now())

    def _tasks(self) -> Iterator[Task]:
        for app in self.workspace.apps.values():
            yield from app.tasks

    def _scale(self, app: App) -> None:
        if not app.live:
            app.tasks = []
            return
        now = self.now()
        app.tasks = [task for task in app.tasks if not self._ended(task)]
        current = [task for task in app.tasks if task.version == app.version]
        for function in app.functions.values():
            settings = function.settings
            window, least = settings.scaledown_window or 60, settings.min_containers
            idle = [task for task in current if not task.busy and now - task.used_at > window]
            over = idle[: max(len(current) - least, 0)]
            app.tasks = [task for task in app.tasks if task not in over]
            current = [task for task in current if task not in over]
            for _ in range(least - len(current)):
                if (task := self._start(app, function)) is not None:
                    current.append(task)
        if any(self.engines.ready(task.run) for task in current):
            app.tasks = [task for task in app.tasks if task.version == app.version or task.busy]
        elif not current:
            # A version that nobody has asked for yet: the old containers idle away by their own window.
            app.tasks = [task for task in app.tasks if task.busy or now - task.used_at <= 60]
