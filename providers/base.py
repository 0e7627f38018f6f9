"""What a platform is to the rest of the project: an adapter, resources, prices, and how it fails.

The error tree. Each class says what the caller does next:

    PlatformError               stop; show the message
    ├── AuthError               stop; say which key is missing or refused
    ├── NoCapacity              try the next offer
    ├── CreateUncertain         look the label up; adopt exactly one, destroy the extra ones
    ├── NotReady                keep the id in state; show the log's last lines
    └── Interrupted             the user cancelled; keep the id in state if there is one

A new platform is one folder (`client.py`, `adapter.py`, `resources.py`, `pricing.py`) and one line of `PLATFORMS`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from serving import NAMESPACE

if TYPE_CHECKING:
    from providers.native import NativeResource
    from serving.offers import Offer
    from serving.spec import DeploymentSpec, Part

PLATFORMS: Mapping[str, str] = {
    "fake": "providers.fake",
    "gcp": "providers.gcp",
    "lambda": "providers.lambda_cloud",
    "local": "providers.local",
    "modal": "providers.modal",
    "runpod": "providers.runpod",
    "vastai": "providers.vastai",
}
"""Platform name -> its package. The name is what `vllm-anywhere:provider` takes."""

FOR_TESTS = "fake"
"""The platform in memory: who wants it names it."""

PACKAGES: Mapping[str, str] = {**PLATFORMS, "gateway": "providers.gateway"}
"""Name -> package of everything that has resources and logs: the platforms, and what stands in front of them."""

SHARED_RESOURCES = "providers.shared.resources"
"""Resources that every platform's deployment has: the API key and the readiness gate."""


class PlatformError(Exception):
    """A platform refused or failed. The text says what happened, what it costs now, and the next command."""


class AuthError(PlatformError):
    """No key, or a key that the platform refuses."""


class NoCapacity(PlatformError):
    """The offer is gone or sold out; another one may do."""


class CreateUncertain(PlatformError):
    """A create whose answer never came: the thing may exist under `label`."""

    def __init__(self, message: str, label: str) -> None:
        super().__init__(message)
        self.label = label


class NotReady(PlatformError):
    """It exists and bills, but the model does not answer. `log_tail` holds the server's last lines."""

    def __init__(self, message: str, log_tail: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.log_tail = tuple(log_tail)


class Interrupted(PlatformError):
    """The user cancelled while it was waiting."""


@dataclass(frozen=True)
class Reason:
    """Why a spec can't run on a platform: the stack-config key under `vllm-anywhere:`, and what would work."""

    key: str
    text: str

    def __str__(self) -> str:
        return f"{NAMESPACE}:{self.key}: {self.text}"


@dataclass(frozen=True)
class Ref:
    """An output of another declared resource, known once that one exists."""

    resource: str
    output: str


@dataclass(frozen=True)
class Suffix:
    """What tells the names that a server gives its things from the other servers': "" for the first, "-2", "-3", ..."""


SUFFIX = Suffix()


@dataclass(frozen=True)
class Text:
    """Text with values in it: `Text("https://{}-8000.proxy", (Ref("pod", "podId"),))`."""

    template: str
    values: tuple[Ref | Suffix | str, ...]


@dataclass(frozen=True)
class Declaration:
    """One resource to register, as data.

    `inputs` may hold `Ref`, `Text` and `ConfigSecret` at any depth. `python` ("module:Class") names the SDK class of
    a resource that another Pulumi package provides; it is imported only when this declaration is registered, and
    the platform's `errors.advice` says what to do about that package's errors.
    """

    name: str
    type: str
    inputs: Mapping[str, Any]
    python: str = ""
    depends_on: tuple[str, ...] = ()
    delete_before_replace: bool = False


@dataclass(frozen=True)
class Declared:
    """What a deployment consists of on one platform.

    `server` names the declaration whose logs explain a failure. `endpoint` is the OpenAI base URL, ending in /v1.
    `run` is an output that changes whenever the server is started anew, so that it has to answer anew.
    `model` is the name that requests use, `hardware` and `notes` are sentences for people. `ca` is the certificate
    (PEM) that clients have to trust, where the platform's own TLS doesn't do. `key_delay_s` is how many seconds a
    rotated key may take to reach servers that serve on meanwhile. `each` names the declarations that every
    one of several servers needs for itself (`providers.replicas`); the others are shared. It is empty where the
    platform multiplies servers by itself. `rented` is the output of `server` that tells what was rented
    (`serving.rented`); it is empty where that is always what was planned. `follow` are inputs that only the copies of
    a declaration have, by its name: what the other servers take from the first.
    """

    resources: tuple[Declaration, ...]
    server: str
    endpoint: Ref | Text
    run: Ref | Text
    model: str
    hardware: str
    notes: tuple[str, ...] = ()
    ca: Ref | None = None
    key_delay_s: int = 0
    each: tuple[str, ...] = ()
    rented: str = ""
    follow: Mapping[str, Mapping[str, Ref]] = field(default_factory=dict[str, "Mapping[str, Ref]"])


KEY = Ref("api-key", "value")
"""The API key that every deployment has; adapters put it among a server's inputs."""

PREVIOUS_KEY = Ref("api-key", "previous")
"""The key before it, which servers take too; the same one where none counts beside it."""


@dataclass(frozen=True)
class ConfigSecret:
    """A secret of the stack config (`serving.config.SECRET_KEYS`), which only the program sees."""

    key: str


HF_TOKEN = ConfigSecret("hf_token")
"""The user's Hugging Face token; an input of servers where `"hf_token" in ask.secrets`."""


@dataclass(frozen=True)
class Ask:
    """What an adapter decides on: the spec, the platform's own section, and what the platform offers now.

    `market` is what the platform's pricing module found (`pricing.query`), of a type that only the platform knows.
    `secrets` names the secrets that the stack config holds. `running` is what the stack rents already, where the
    market has nothing else for the spec.
    """

    spec: DeploymentSpec
    options: Any
    market: Any
    secrets: frozenset[str] = frozenset()
    running: Offer | None = None


class Adapter(Protocol):
    """One platform's translation of the spec. Every method is pure: the same ask gives the same answer."""

    options: type[Part]
    """The model of the section that only this platform has (`vllm-anywhere:<platform>`)."""

    def unsupported(self, ask: Ask) -> list[Reason]:
        """Every reason why this platform can't serve the spec; empty if it can."""
        ...

    def offers(self, ask: Ask) -> list[Offer]:
        """What could be rented for the spec, best first."""
        ...

    def resources(self, ask: Ask, offer: Offer) -> Declared:
        """The resources that serve the spec on that offer."""
        ...


class Logs(Protocol):
    """How a platform shows what a server said."""

    def __call__(self, server_id: str, lines: int) -> list[str]: ...


def platform_names() -> list[str]:
    """Every platform that `vllm-anywhere:provider` may name."""
    return sorted(PLATFORMS)


def load_adapter(platform: str) -> Adapter:
    """The platform's adapter; imports only that platform's folder."""
    return importlib.import_module(f"{PLATFORMS[platform]}.adapter").ADAPTER


def load_market(platform: str) -> Callable[[DeploymentSpec], Any]:
    """The platform's price and stock query. Calling it may do I/O, within the query's own time budget."""
    return importlib.import_module(f"{PLATFORMS[platform]}.pricing").query


def live_prices() -> dict[str, Callable[[DeploymentSpec, float], Iterable[Offer]]]:
    """The live query of every platform that has one (`pricing.live`): a spec and seconds -> offers."""
    modules = {platform: importlib.import_module(f"{package}.pricing") for platform, package in PLATFORMS.items()}
    return {platform: module.live for platform, module in modules.items() if hasattr(module, "live")}


def load_rented(platform: str) -> Callable[[str], Offer | None]:
    """What is rented under labels that begin so (`pricing.rented_under`); nothing where a platform always has some."""
    module = importlib.import_module(f"{PLATFORMS[platform]}.pricing")
    return getattr(module, "rented_under", lambda _: None)


def load_logs(platform: str) -> Logs:
    """The platform's log reader."""
    return importlib.import_module(f"{PACKAGES[platform]}.client").log_tail


def load_waiting(platform: str) -> Callable[[str], str]:
    """What a platform says of a server that does not answer yet (`jobs.waiting_on`); "" where it has nothing to say."""
    name = f"{PACKAGES[platform]}.jobs"
    return importlib.import_module(name).waiting_on if importlib.util.find_spec(name) else lambda _: ""


def load_advice(platform: str) -> Callable[[str], str]:
    """What to do about an error in the words of a platform's own Pulumi package; "" when it isn't known."""
    return importlib.import_module(f"{PACKAGES[platform]}.errors").advice


def load_resource(token: str) -> NativeResource[Any, Any]:
    """The native resource of a type token such as `vllm-anywhere:local:Server`.

    Raises:
        KeyError: when no platform has it.
    """
    package, module, _ = token.split(":")
    if package == NAMESPACE:
        path = SHARED_RESOURCES if module == "index" else f"{PACKAGES[module]}.resources"
        for resource in importlib.import_module(path).RESOURCES:
            if resource.token == token:
                return resource
    raise KeyError(token)


def all_resources() -> list[NativeResource[Any, Any]]:
    """Every native resource of every platform, for the package schema."""
    paths = [SHARED_RESOURCES, *(f"{package}.resources" for package in PACKAGES.values())]
    return [resource for path in paths for resource in importlib.import_module(path).RESOURCES]
