# ruff: noqa: N802 - methods have the names of the RPCs
"""The control plane: one method for each RPC that `modal` 1.6.4 makes on the way of a deployment. Pure over the state.

Names, GPUs, regions and windows are judged as Modal's documents say; what is wrong is refused as it would be.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from modal_proto import api_pb2

from .state import GPUS, REGIONS, App, Function, Refused, Task, Workspace

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")


class Plane:
    """The RPCs, by their names. Each takes the request and returns the reply, or raises `Refused`."""

    def __init__(
        self, workspace: Workspace, now: Callable[[], float], web: str, log: Callable[[str], list[str]]
    ) -> None:
        self._workspace = workspace
        self._now = now
        self._web = web
        self._log = log

    # The account.

    def ClientHello(self, request: Any) -> Any:
        return api_pb2.ClientHelloResponse(image_builder_version="2025.06")

    def WorkspaceNameLookup(self, request: Any) -> Any:
        return api_pb2.WorkspaceNameLookupResponse(workspace_name="emulated", username="emulated")

    def EnvironmentGetOrCreate(self, request: Any) -> Any:
        name = self._environment(request.deployment_name)
        metadata = api_pb2.EnvironmentMetadata(
            name=name, settings=api_pb2.EnvironmentSettings(image_builder_version="2025.06")
        )
        return api_pb2.EnvironmentGetOrCreateResponse(environment_id=f"en-{name}", metadata=metadata)

    def EnvironmentList(self, request: Any) -> Any:
        items = [
            api_pb2.EnvironmentListItem(name=name, environment_id=f"en-{name}", default=name == "main")
            for name in self._workspace.environments
        ]
        return api_pb2.EnvironmentListResponse(items=items)

    # Apps.

    def AppGetByDeploymentName(self, request: Any) -> Any:
        environment = self._environment(request.environment_name)
        app = self._workspace.app_named(environment, request.name)
        return api_pb2.AppGetByDeploymentNameResponse(
            app_id=app.id if app else "", environment_name=environment, lifecycle=app.lifecycle if app else None
        )

    def AppGetOrCreate(self, request: Any) -> Any:
        app = self._workspace.apps.get(request.app_name)
        app = app or self._workspace.app_named(self._environment(request.environment_name), request.app_name)
        if app is None:
            raise Refused("NOT_FOUND", f"App '{request.app_name}' not found in environment")
        return api_pb2.AppGetOrCreateResponse(app_id=app.id, handle_metadata=app.handle)

    def AppGetInfo(self, request: Any) -> Any:
        return api_pb2.AppGetInfoResponse(info=self._workspace.app(request.app_id).handle)

    def AppCreate(self, request: Any) -> Any:
        app = App(
            id=self._workspace.new_id("ap"),
            name=_valid(request.description, "App"),
            environment=self._environment(request.environment_name),
            created_at=self._now(),
            tags=dict(request.tags),
        )
        self._workspace.apps[app.id] = app
        return api_pb2.AppCreateResponse(app_id=app.id, app_page_url=f"https://modal.com/apps/{app.id}")

    def AppGetLayout(self, request: Any) -> Any:
        app = self._workspace.app(request.app_id)
        ids = {name: one.id for name, one in app.functions.items()}
        return api_pb2.AppGetLayoutResponse(app_layout=api_pb2.AppLayout(function_ids=ids))

    def AppHeartbeat(self, request: Any) -> Any:
        self._workspace.app(request.app_id)

    def AppClientDisconnect(self, request: Any) -> Any:
        app = self._workspace.app(request.app_id)
        if not app.live:
            app.state = api_pb2.APP_STATE_STOPPED

    def AppGetTags(self, request: Any) -> Any:
        return api_pb2.AppGetTagsResponse(tags=self._workspace.app(request.app_id).tags)

    def AppList(self, request: Any) -> Any:
        environment = self._environment(request.environment_name)
        rows = [
            api_pb2.AppListResponse.AppListItem(
                app_id=app.id,
                description=app.name,
                name=app.name if app.live else "",
                state=app.state,  # pyright: ignore[reportArgumentType]
                created_at=app.created_at,
                stopped_at=app.stopped_at,
                n_running_tasks=len(app.tasks),
            )
            for app in self._workspace.apps.values()
            if app.environment == environment
        ]
        return api_pb2.AppListResponse(apps=rows)

    def AppPublish(self, request: Any) -> Any:
        app = self._workspace.app(request.app_id)
        if app.state not in (api_pb2.APP_STATE_INITIALIZING, api_pb2.APP_STATE_DEPLOYED):
            raise Refused("FAILED_PRECONDITION", f"App {app.id} is stopped")
        other = self._workspace.app_named(app.environment, request.name)
        if other is not None and other is not app:
            other.state, other.stopped_at, other.tasks = api_pb2.APP_STATE_STOPPED, self._now(), []
        drafted = {name: self._workspace.function(id)[1] for name, id in request.function_ids.items()}
        content = b"".join(
            f"{name}:{request.tags}".encode() + one.SerializeToString(deterministic=True)
            for name, function in sorted(drafted.items())
            for one in function.ranked
        )
        app.name, app.tags, app.state = _valid(request.name, "App"), dict(request.tags), api_pb2.APP_STATE_DEPLOYED
        app.functions, app.drafted = drafted, {}
        for function in drafted.values():
            function.override = None
        if content == app.published:
            return api_pb2.AppPublishResponse(url=f"https://modal.com/apps/{app.id}")
        app.published, app.version, app.deployed_at = content, app.version + 1, self._now()
        return api_pb2.AppPublishResponse(url=f"https://modal.com/apps/{app.id}", deployed_at=app.deployed_at)

    def AppStop(self, request: Any) -> Any:
        app = self._workspace.app(request.app_id)
        if app.state == api_pb2.APP_STATE_STOPPED:
            raise Refused("FAILED_PRECONDITION", f"App {app.id} is already stopped")
        app.state, app.stopped_at, app.tasks = api_pb2.APP_STATE_STOPPED, self._now(), []

    def AppFetchLogs(self, request: Any) -> Any:
        lines = self._log(self._workspace.app(request.app_id).id)
        wanted = lines[-request.limit :] if request.limit else lines
        stamp = self._now()
        items = [
            api_pb2.TaskLogs(data=f"{line}\n", timestamp=stamp, file_descriptor=api_pb2.FILE_DESCRIPTOR_STDERR)
            for line in wanted
        ]
        return api_pb2.AppFetchLogsResponse(batches=[api_pb2.TaskLogsBatch(items=items)] if items else [])

    # Functions and what they are made of.

    def FunctionPrecreate(self, request: Any) -> Any:
        app = self._workspace.app(request.app_id)
        id = request.existing_function_id or self._workspace.new_id("fu")
        return api_pb2.FunctionPrecreateResponse(
            function_id=id, handle_metadata=self._handle(app, id, request.function_name)
        )

    def FunctionCreate(self, request: Any) -> Any:
        app = self._workspace.app(request.app_id)
        data = api_pb2.FunctionData()
        if request.HasField("function_data"):
            data.CopyFrom(request.function_data)
            ranked = [one.function for one in request.function_data.ranked_functions]
        else:
            ranked = [request.function]
            data.ranked_functions.add(rank=0, function=request.function)
        for definition in ranked:
            self._judge(definition)
        name = ranked[0].function_name
        id = request.existing_function_id or self._workspace.new_id("fu")
        app.drafted[name] = Function(id, name, ranked)
        return api_pb2.FunctionCreateResponse(
            function_id=id, function_data=data, handle_metadata=self._handle(app, id, name)
        )

    def FunctionGet(self, request: Any) -> Any:
        app = self._workspace.app_named(self._environment(request.environment_name), request.app_name)
        function = app.functions.get(request.object_tag) if app else None
        if app is None or function is None:
            raise Refused("NOT_FOUND", f"no function {request.object_tag} of app {request.app_name}")
        first = function.ranked[0]
        data = api_pb2.FunctionData(
            function_name=function.name,
            web_url=self._address(app, function.name),
            webhook_config=first.webhook_config,
            timeout_secs=first.timeout_secs,
            startup_timeout_secs=first.startup_timeout_secs,
            autoscaler_settings=first.autoscaler_settings,
            routing_region=first.routing_region,
        )
        for rank, one in enumerate(function.ranked):
            data.ranked_functions.add(rank=rank, function=one)
        metadata = self._handle(app, function.id, function.name)
        return api_pb2.FunctionGetResponse(function_id=function.id, handle_metadata=metadata, function=data)

    def FunctionGetSchedulingParams(self, request: Any) -> Any:
        _, function = self._workspace.function(request.function_id)
        configuration = api_pb2.AutoscalerConfiguration(settings=function.settings)
        return api_pb2.FunctionGetSchedulingParamsResponse(autoscaler_configuration=configuration)

    def FunctionUpdateSchedulingParams(self, request: Any) -> Any:
        _, function = self._workspace.function(request.function_id)
        wanted = api_pb2.AutoscalerSettings()
        wanted.CopyFrom(function.settings)
        wanted.MergeFrom(request.settings)
        _judge_scaling(wanted)
        function.override = wanted
        return api_pb2.FunctionUpdateSchedulingParamsResponse(current_settings=function.settings)

    def FunctionGetCurrentStats(self, request: Any) -> Any:
        app, function = self._workspace.function(request.function_id)
        tasks = [task for task in app.tasks if task.definition.function_name == function.name]
        return api_pb2.FunctionStats(num_total_tasks=len(tasks), num_running_inputs=sum(task.busy for task in tasks))

    def ImageGetOrCreate(self, request: Any) -> Any:
        id = next((id for id, one in self._workspace.images.items() if one == request.image), "")
        if not id:
            id = self._workspace.new_id("im")
            self._workspace.images[id] = request.image
        result = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS)
        if self._workspace.image_error:
            failed = api_pb2.GenericResult.GENERIC_STATUS_FAILURE
            result = api_pb2.GenericResult(status=failed, exception=self._workspace.image_error)
        metadata = api_pb2.ImageMetadata(image_builder_version=request.builder_version)
        return api_pb2.ImageGetOrCreateResponse(image_id=id, result=result, metadata=metadata)

    def MountPutFile(self, request: Any) -> Any:
        if request.data:
            self._workspace.files[request.sha256_hex] = request.data
        return api_pb2.MountPutFileResponse(exists=request.sha256_hex in self._workspace.files, checked_at=Timestamp())

    def MountBatchedCheckExistence(self, request: Any) -> Any:
        missing = [digest for digest in request.sha256_hex_hashes if digest not in self._workspace.files]
        return api_pb2.MountBatchedCheckExistenceResponse(missing_sha256_hex_hashes=missing)

    def MountGetOrCreate(self, request: Any) -> Any:
        files = {file.filename: file.sha256_hex for file in request.files} or {request.deployment_name: ""}
        found = (id for id, held in self._workspace.mounts.items() if held == files)
        id = next(found, None) or self._workspace.new_id("mo")
        self._workspace.mounts[id] = files
        return api_pb2.MountGetOrCreateResponse(
            mount_id=id, handle_metadata=api_pb2.MountHandleMetadata(content_checksum_sha256_hex=id)
        )

    def SecretGetOrCreate(self, request: Any) -> Any:
        # The same content is no new version of an app.
        found = (id for id, held in self._workspace.secrets.items() if held == dict(request.env_dict))
        id = next(found, None) or self._workspace.new_id("st")
        self._workspace.secrets[id] = dict(request.env_dict)
        return api_pb2.SecretGetOrCreateResponse(secret_id=id)

    def VolumeGetOrCreate(self, request: Any) -> Any:
        key = (self._environment(request.environment_name), _valid(request.deployment_name, "Volume"))
        kind = request.object_creation_type
        exists = key in self._workspace.volumes
        if kind == api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS and exists:
            raise Refused("ALREADY_EXISTS", f"Volume {key[1]} already exists")
        if kind == api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED and not exists:
            raise Refused("NOT_FOUND", f"Volume '{key[1]}' not found in environment '{key[0]}'")
        id = self._workspace.volumes.setdefault(key, self._workspace.new_id("vo"))
        return api_pb2.VolumeGetOrCreateResponse(volume_id=id, metadata=api_pb2.VolumeMetadata(name=key[1]))

    def VolumeList(self, request: Any) -> Any:
        environment = self._environment(request.environment_name)
        found = {name: id for (where, name), id in self._workspace.volumes.items() if where == environment}
        items = [
            api_pb2.VolumeListItem(
                label=name,
                volume_id=id,
                created_at=self._now(),
                metadata=api_pb2.VolumeMetadata(name=name, creation_info=api_pb2.CreationInfo(created_at=self._now())),
            )
            for name, id in found.items()
        ]
        return api_pb2.VolumeListResponse(items=items, environment_name=environment)

    def VolumeDelete(self, request: Any) -> Any:
        for key, id in list(self._workspace.volumes.items()):
            if id == request.volume_id:
                del self._workspace.volumes[key]

    # Containers, for the strategy that ends the old ones.

    def TaskList(self, request: Any) -> Any:
        tasks = [
            api_pb2.TaskStats(task_id=task.run, app_id=app.id, enqueued_at=task.created_at, started_at=task.created_at)
            for app in self._workspace.apps.values()
            if request.app_id in ("", app.id)
            for task in app.tasks
        ]
        return api_pb2.TaskListResponse(tasks=tasks)

    def ContainerStop(self, request: Any) -> Any:
        def keeps(task: Task) -> bool:
            return task.run != request.task_id

        for app in self._workspace.apps.values():
            app.tasks = [task for task in app.tasks if keeps(task)]
        return api_pb2.ContainerStopResponse()

    def _environment(self, name: str) -> str:
        name = name or "main"
        if name not in self._workspace.environments:
            raise Refused("NOT_FOUND", f"Environment '{name}' not found")
        return name

    def _address(self, app: App, function: str) -> str:
        return f"{self._web}/{app.environment}/{app.name}/{function}"

    def _handle(self, app: App, id: str, name: str) -> api_pb2.FunctionHandleMetadata:
        return api_pb2.FunctionHandleMetadata(
            function_name=name,
            function_type=api_pb2.Function.FUNCTION_TYPE_FUNCTION,
            web_url=self._address(app, name),
            app_id=app.id,
            definition_id=f"de-{id}",
        )

    def _judge(self, definition: api_pb2.Function) -> None:
        gpu = definition.resources.gpu_config
        if gpu.count and gpu.gpu_type.upper().removesuffix("!") not in GPUS:
            raise Refused("INVALID_ARGUMENT", f"unknown GPU type {gpu.gpu_type}")
        if wrong := set(definition.scheduler_placement.regions) - REGIONS:
            raise Refused("INVALID_ARGUMENT", f"unknown regions {', '.join(sorted(wrong))}")
        for id in definition.secret_ids:
            if id not in self._workspace.secrets:
                raise Refused("NOT_FOUND", f"Secret {id} not found")
        for mount in definition.volume_mounts:
            if mount.volume_id not in self._workspace.volumes.values():
                raise Refused("NOT_FOUND", f"Volume {mount.volume_id} not found")
        _judge_scaling(definition.autoscaler_settings)


def _judge_scaling(settings: api_pb2.AutoscalerSettings) -> None:
    if settings.HasField("scaledown_window") and not 2 <= settings.scaledown_window <= 3600:
        raise Refused("INVALID_ARGUMENT", "scaledown_window must be between 2 and 3600")
    if settings.max_containers and settings.min_containers > settings.max_containers:
        raise Refused("INVALID_ARGUMENT", "min_containers is more than max_containers")


def _valid(name: str, kind: str) -> str:
    if not _NAME.fullmatch(name):
        raise Refused("INVALID_ARGUMENT", f"Invalid {kind} name: '{name}'")
    return name
