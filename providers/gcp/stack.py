"""The resources of one deployment, as data: what `pulumi_gcp` registers, and the project's own.

Names come from the stack's own (`vllm-anywhere:gcp:Name`), because Compute Engine replaces a VM of a given name only
after it has deleted the old one: with the usual GPU quota of 1 the other order could never succeed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from providers.base import HF_TOKEN, KEY, PREVIOUS_KEY, SUFFIX, ConfigSecret, Declaration, Ref, Text
from providers.gcp.boot import Boot, startup_script
from providers.gcp.lifetime import run_limit
from providers.gcp.machines import accelerator
from providers.gcp.options import GcpOptions
from serving.gpus import Gpu
from serving.guard import API_KEY
from serving.guard import PREVIOUS_KEY as PREVIOUS_VARIABLE
from serving.spec import DeploymentSpec
from serving.start import HF_TOKEN as HF_VARIABLE
from serving.start import TLS_KEY, start_script

PORT = 8000
SLUG = Ref("name", "slug")
HOST = Text("{}{}", (SLUG, SUFFIX))
"""What a server's own things are called."""
TAG = "vllm-anywhere"
PROBERS = ("35.191.0.0/16", "130.211.0.0/22")
"""Where Google's health checks come from (https://cloud.google.com/load-balancing/docs/health-check-concepts)."""
IAP = ("35.235.240.0/20",)
"""Where Identity-Aware Proxy forwards TCP from (https://cloud.google.com/iap/docs/using-tcp-forwarding)."""
KEY_DELAY_S = 300
"""What a VM may take to see new keys: it looks every 30 s, and Google says nothing of how soon the newest version of a
secret is the newest everywhere (https://cloud.google.com/secret-manager/docs/access-secret-version)."""
HEAL_AFTER_S = 1800
"""What a first boot may take before its health counts: the image, the weights, the start."""

_KEYS, _TLS = "api-key-secret", "tls-key-secret"
_APIS = ("compute", "secretmanager", "iam", "cloudresourcemanager", "logging")
_LABELS = {"managed-by": "vllm-anywhere", "vllm-anywhere": SLUG}


@dataclass(frozen=True)
class Place:
    """Machine type, region, and the zones in the order in which they are tried."""

    machine: str
    region: str
    zones: tuple[str, ...]

    @property
    def attached(self) -> str:
        """The GPU that has to be attached to the machine; "" for none."""
        return ""


@dataclass(frozen=True)
class Choice(Place):
    """What the offer decided."""

    gpu: Gpu

    @property
    def attached(self) -> str:
        return accelerator(self.gpu, self.machine)


def declarations(
    spec: DeploymentSpec, options: GcpOptions, choice: Choice, *, half: bool, hf_token: bool = False
) -> tuple[Declaration, ...]:
    """Everything that is registered, each after what it refers to. `hf_token`: the stack config has one."""
    made = Maker(spec, options, choice, half, hf_token)
    server = made.group() if options.ha == "mig" else made.instance()
    return (made.name(), *made.apis(), *made.network(), *made.identity(), *made.secrets(), *server)


def endpoint(options: GcpOptions) -> Text:
    """The OpenAI base URL."""
    if options.hostname:
        return Text(f"https://{options.hostname}/v1", ())
    return Text(f"{'http' if options.plain_http else 'https'}://{{}}:{PORT}/v1", (Ref("address", "address"),))


def run(options: GcpOptions) -> Ref | Text:
    """What changes whenever the server is started anew; of a group, whose VMs Google starts, its template."""
    if options.ha == "mig":
        return Ref("template", "self_link_unique")
    return Text("{} {}", (Ref("run", "instanceId"), Ref("run", "startedAt")))


def own_tls(options: GcpOptions) -> bool:
    """Whether vLLM serves TLS itself, by the deployment's own CA."""
    return not options.hostname and not options.plain_http


def each(spec: DeploymentSpec, options: GcpOptions, choice: Choice) -> tuple[str, ...]:
    """What every VM has for itself; a group has one."""
    if options.ha == "mig":
        return ()
    tls = ("tls", _TLS, f"{_TLS}-version", f"{_TLS}-reader") if own_tls(options) else ()
    zone = ("zone",) if searches_zones(spec, options, choice) else ()
    return ("address", *tls, *zone, "server", "run")


FOLLOW = {"tls": {"authorityPem": Ref("tls", "caPem"), "authorityKeyPem": Ref("tls", "caKeyPem")}}
"""All servers' certificates are by the first one's CA."""


def searches_zones(spec: DeploymentSpec, options: GcpOptions, choice: Place) -> bool:
    """Whether `up` looks for a zone with capacity itself: nobody can reserve spot, and a group chooses by itself."""
    return options.find_zone and options.ha == "none" and not spec.hardware.spot and len(choice.zones) > 1


@dataclass(frozen=True)
class Maker:
    """Declares the parts of a deployment. What runs on the VM is in methods that another kind of server has anew."""

    spec: DeploymentSpec
    options: GcpOptions
    choice: Place
    half: bool = False
    hf_token: bool = False

    def name(self) -> Declaration:
        return Declaration("name", "vllm-anywhere:gcp:Name", {})

    def apis(self) -> list[Declaration]:
        if not self.options.enable_apis:
            return []
        return [
            self._gcp(
                f"api-{api}",
                "projects:Service",
                service=f"{api}.googleapis.com",
                disable_on_destroy=False,
            )
            for api in _APIS
        ]

    def network(self) -> list[Declaration]:
        options = self.options
        ports = ["80", "443"] if options.hostname else [str(PORT)]
        rules = {"clients": (options.allow, ports)}
        if options.ssh:
            rules["ssh"] = (IAP, ["22"])
        if options.ha == "mig":
            rules["probers"] = (PROBERS, [str(PORT)])
        firewalls = [
            self._gcp(
                f"firewall-{rule}",
                "compute:Firewall",
                name=Text(f"{{}}-{rule}", (SLUG,)),
                network=options.network,
                direction="INGRESS",
                allows=[{"protocol": "tcp", "ports": ports}],
                source_ranges=list(ranges),
                target_tags=[SLUG],
            )
            for rule, (ranges, ports) in rules.items()
        ]
        address = self._gcp(
            "address",
            "compute:Address",
            name=HOST,
            region=self.choice.region,
            address_type="EXTERNAL",
            network_tier="PREMIUM",
            labels=_LABELS,
        )
        if not own_tls(options):
            return [address, *firewalls]
        from serving.tls import server_name

        certificate = Declaration(
            "tls",
            "vllm-anywhere:index:Certificate",
            {"name": server_name(self.spec.model.served_name), "hosts": [Ref("address", "address")]},
        )
        return [address, *firewalls, certificate]

    def identity(self) -> list[Declaration]:
        account = self._gcp(
            "identity",
            "serviceaccount:Account",
            account_id=SLUG,
            display_name="vLLM server: reads its own secrets, writes its log",
        )
        if not self.options.cloud_logging:
            return [account]
        writer = self._gcp(
            "log-writer",
            "projects:IAMMember",
            project=Ref("identity", "project"),
            role="roles/logging.logWriter",
            member=Ref("identity", "member"),
        )
        return [account, writer]

    def secrets(self) -> list[Declaration]:
        return [one for secret, (_, value) in self._stored().items() for one in self._secret(secret, value)]

    def instance(self) -> list[Declaration]:
        spec, options, choice = self.spec, self.options, self.choice
        search = self._zone_search()
        instance = self._gcp(
            "server",
            "compute:Instance",
            depends_on=self._before_server(),
            delete_before_replace=True,
            name=HOST,
            zone=Ref("zone", "zone") if search else choice.zones[0],
            boot_disk={
                "auto_delete": True,
                "initialize_params": {
                    "image": options.image,
                    "size": spec.hardware.disk_gb,
                    "type": "pd-balanced",
                    "labels": _LABELS,
                },
            },
            network_interfaces=[self._interface()],
            allow_stopping_for_update=True,
            deletion_protection=False,
            desired_status="RUNNING",
            **self._machine(),
        )
        run = Declaration(
            "run",
            "vllm-anywhere:gcp:Run",
            {
                "instance": Ref("server", "id"),
                "instanceId": Ref("server", "instance_id"),
                "machineType": choice.machine,
                "secureBoot": options.secure_boot,
            },
        )
        return [*search, instance, run]

    def group(self) -> list[Declaration]:
        """One VM that Google makes anew, in whichever of the zones has capacity; never two, the quota may be 1."""
        spec, options, choice = self.spec, self.options, self.choice
        template = self._gcp(
            "template",
            "compute:InstanceTemplate",
            depends_on=self._before_server(),
            name_prefix=Text("{}-", (SLUG,)),
            disks=[
                {
                    "source_image": options.image,
                    "boot": True,
                    "auto_delete": True,
                    "disk_size_gb": spec.hardware.disk_gb,
                    "disk_type": "pd-balanced",
                    "labels": _LABELS,
                }
            ],
            network_interfaces=[self._interface()],
            **self._machine(),
        )
        probe: dict[str, Any] = {"port": PORT, "request_path": "/health"}
        health = self._gcp(
            "health",
            "compute:HealthCheck",
            name=SLUG,
            check_interval_sec=30,
            timeout_sec=10,
            healthy_threshold=1,
            unhealthy_threshold=5,
            # Probes take any certificate.
            **dict[str, Any]({"https_health_check" if own_tls(options) else "http_health_check": probe}),
        )
        group = self._gcp(
            "server",
            "compute:RegionInstanceGroupManager",
            name=SLUG,
            base_instance_name=SLUG,
            region=choice.region,
            target_size=1,
            distribution_policy_zones=list(choice.zones),
            distribution_policy_target_shape="ANY",
            versions=[{"instance_template": Ref("template", "self_link_unique")}],
            update_policy={
                "type": "PROACTIVE",
                "minimal_action": "REPLACE",
                "most_disruptive_allowed_action": "REPLACE",
                "replacement_method": "SUBSTITUTE",
                "instance_redistribution_type": "NONE",
                "max_surge_fixed": 0,
                # Of a regional group it is 0 or at least the number of its zones.
                "max_unavailable_fixed": len(choice.zones),
            },
            auto_healing_policies={"health_check": Ref("health", "self_link"), "initial_delay_sec": HEAL_AFTER_S},
            wait_for_instances=False,
        )
        return [template, health, group]

    def _machine(self) -> dict[str, Any]:
        """What an instance and a template have in common."""
        options, choice = self.options, self.choice
        gpus = [{"type": choice.attached, "count": self.spec.hardware.gpu_count}] if choice.attached else None
        return {
            "machine_type": choice.machine,
            **({"guest_accelerators": gpus} if gpus else {}),
            "scheduling": self._scheduling(),
            "service_account": {
                "email": Ref("identity", "email"),
                "scopes": ["https://www.googleapis.com/auth/cloud-platform"],
            },
            "shielded_instance_config": {
                "enable_secure_boot": options.secure_boot,
                "enable_vtpm": True,
                "enable_integrity_monitoring": True,
            },
            "metadata": {"block-project-ssh-keys": "true", "serial-port-logging-enable": "true", TAG: SLUG},
            "metadata_startup_script": self._startup(),
            "tags": [SLUG],
            "labels": _LABELS,
        }

    def _scheduling(self) -> Mapping[str, Any]:
        """The whole block: what is left out would be filled in by Google and then differ in every preview."""
        spot = self.spec.hardware.spot
        return {
            "on_host_maintenance": "TERMINATE",
            "automatic_restart": not spot,
            "provisioning_model": "SPOT" if spot else "STANDARD",
            "preemptible": spot,
            **({"instance_termination_action": "STOP"} if spot else {}),
            **run_limit(self.spec, self.options),
        }

    def _interface(self) -> Mapping[str, Any]:
        return {
            "network": self.options.network,
            "access_configs": [{"nat_ip": Ref("address", "address"), "network_tier": "PREMIUM"}],
        }

    def _startup(self) -> Text:
        spec, options = self.spec, self.options
        tls = own_tls(options)
        # Behind Caddy only the VM itself reaches vLLM, and Google's probes where a group needs them.
        local = bool(options.hostname) and options.ha == "none"
        boot = Boot(
            image=spec.engine.image or f"vllm/vllm-openai:v{spec.engine.version}",
            script=start_script(spec, half=self.half, port=PORT, tls=tls),
            publish=f"{'127.0.0.1:' if local else ''}{PORT}:{PORT}",
            keys=Ref(_KEYS, "id"),
            secrets={
                variable: Ref(f"{secret}-version", "name")
                for secret, (variable, _) in self._stored().items()
                if secret != _KEYS
            },
            certificate=Ref("tls", "certPem") if tls else None,
            hostname=options.hostname or "",
            port=PORT,
            cloud_logging=options.cloud_logging,
        )
        return startup_script(boot)

    def _stored(self) -> dict[str, tuple[str, Ref | Text | ConfigSecret]]:
        """Secret's declaration -> the environment variable that it becomes ("" for lines of its own), and its value."""
        return {
            # In one secret, so that the VM never sees a new key beside one that counts no longer.
            _KEYS: ("", Text(f"{API_KEY}={{}}\n{PREVIOUS_VARIABLE}={{}}", (KEY, PREVIOUS_KEY))),
            **({_TLS: (TLS_KEY, Ref("tls", "keyPem"))} if own_tls(self.options) else {}),
            **({"hf-token-secret": (HF_VARIABLE, HF_TOKEN)} if self.hf_token else {}),
        }

    def _secret(self, name: str, value: Ref | Text | ConfigSecret) -> list[Declaration]:
        what = name.removesuffix("-secret")
        id = Text(f"{{}}-{what}{{}}", (SLUG, SUFFIX)) if name == _TLS else Text(f"{{}}-{what}", (SLUG,))
        return [
            self._gcp(
                name,
                "secretmanager:Secret",
                secret_id=id,
                replication={"auto": {}},
                labels=_LABELS,
            ),
            self._gcp(
                f"{name}-version",
                "secretmanager:SecretVersion",
                in_project=False,
                secret=Ref(name, "id"),
                secret_data=value,
            ),
            self._gcp(
                f"{name}-reader",
                "secretmanager:SecretIamMember",
                secret_id=Ref(name, "secret_id"),
                role="roles/secretmanager.secretAccessor",
                member=Ref("identity", "member"),
            ),
        ]

    def _before_server(self) -> tuple[str, ...]:
        """What the VM needs before it boots, though it does not refer to it."""
        writer = ("log-writer",) if self.options.cloud_logging else ()
        return (*(f"{name}-reader" for name in self._stored()), f"{_KEYS}-version", *writer, "firewall-clients")

    def _zone_search(self) -> list[Declaration]:
        if not searches_zones(self.spec, self.options, self.choice):
            return []
        choice = self.choice
        inputs: dict[str, Any] = {
            "zones": list(choice.zones),
            "machineType": choice.machine,
            "accelerator": choice.attached,
            "acceleratorCount": self.spec.hardware.gpu_count,
            "slug": HOST,
            "project": Ref("identity", "project"),
        }
        # Last, so that the VM follows at once.
        return [Declaration("zone", "vllm-anywhere:gcp:Zone", inputs, depends_on=self._before_server())]

    def _gcp(
        self,
        name: str,
        of: str,
        /,
        *,
        in_project: bool = True,
        depends_on: tuple[str, ...] = (),
        delete_before_replace: bool = False,
        **inputs: Any,
    ) -> Declaration:
        """A resource of `pulumi_gcp`: `of` is its module and class."""
        module, _, kind = of.partition(":")
        if in_project and self.options.project and "project" not in inputs:
            inputs["project"] = self.options.project
        if self.options.enable_apis and kind != "Service":
            depends_on = (*(f"api-{api}" for api in _APIS), *depends_on)
        token = f"gcp:{module}/{kind[0].lower()}{kind[1:]}:{kind}"
        return Declaration(name, token, inputs, f"pulumi_gcp.{module}:{kind}", depends_on, delete_before_replace)
