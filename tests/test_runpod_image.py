"""The image with the weights in it: what is rendered, and that the token is nowhere in it."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.image import add_image, image
from ops.stack import OpsError
from providers.base import Ask
from providers.market import Market, dated
from providers.runpod.adapter import ADAPTER
from providers.runpod.choices import RunPodOptions
from providers.runpod.image import CACHE, OWNER, SECRET, SKIPPED, image_recipe
from serving.spec import DeploymentSpec

SPEC = DeploymentSpec()
NAME = "ghcr.io/acme/qwen3-4b"
ROOT = Path(__file__).resolve().parents[1]


def options(mode: str = "serverless", **more: Any) -> RunPodOptions:
    return RunPodOptions.model_validate({"mode": mode, "weights": "image", **more})


def dockerfile(spec: DeploymentSpec = SPEC, mode: str = "serverless") -> str:
    return image_recipe(spec, options(mode), NAME).files["Dockerfile"]


def instructions(text: str) -> list[str]:
    """The instructions of a Dockerfile, each on one line."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [line for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line]


def of_model(**fields: Any) -> DeploymentSpec:
    model = {"name": "Qwen/Qwen3-4B-Instruct-2507", "max_len": 8192, "served_name": "m", **fields}
    return DeploymentSpec.model_validate({"model": model})


@pytest.mark.parametrize(
    ("mode", "base"),
    [
        ("serverless", r"runpod/worker-v1-vllm:v\d+\.\d+\.\d+"),
        ("load-balancing", r"vllm/vllm-openai:v\d+\.\d+\.\d+"),
        ("pod", r"vllm/vllm-openai:v\d+\.\d+\.\d+"),
    ],
)
def test_the_base_is_what_the_mode_runs_anyway_pinned(mode: str, base: str) -> None:
    first, *_ = instructions(dockerfile(mode=mode))
    assert re.fullmatch(f"FROM {base}", first)


def test_an_image_that_is_configured_already_is_not_built_upon() -> None:
    configured = options(image="ghcr.io/acme/qwen3-4b:old")
    assert image_recipe(SPEC, configured, NAME).base == image_recipe(SPEC, options(), NAME).base


def test_the_token_is_a_mounted_secret_of_one_command_and_nothing_else() -> None:
    lines = instructions(dockerfile())
    (download,) = [line for line in lines if "HF_TOKEN" in line or SECRET in line]
    assert download.startswith(f"RUN --mount=type=secret,id={SECRET},env=HF_TOKEN ")
    assert download.count("HF_TOKEN") == 1
    assert not any(line.startswith(("ARG", "COPY", "ADD")) for line in lines)


def test_the_hub_is_left_alone_after_the_download_and_not_before() -> None:
    kinds = [line.split(maxsplit=2)[:2] for line in instructions(dockerfile())]
    assert [kind[0] for kind in kinds] == ["FROM", "ENV", "RUN", "ENV", "LABEL"]
    assert kinds[3] == ["ENV", "HF_HUB_OFFLINE=1"]
    assert not CACHE.startswith("/runpod-volume")


@pytest.mark.parametrize("revision", [None, "cdbee75f17c01a7cc42f958dc650907174af0554"])
def test_the_download_asks_for_the_model_at_its_revision_without_doubled_formats(
    tmp_path: Path, revision: str | None
) -> None:
    (tmp_path / "huggingface_hub.py").write_text(
        "import json, os\n"
        "def snapshot_download(model, **asked):\n"
        "    print(json.dumps([model, asked, os.environ.get('HF_TOKEN')]))\n"
    )
    (run,) = [line for line in instructions(dockerfile(of_model(revision=revision))) if line.startswith("RUN")]
    _, _, *command = shlex.split(run)
    assert command[0] == "python3"
    done = subprocess.run(
        [sys.executable, *command[1:]],
        env={"PYTHONPATH": str(tmp_path), "HF_TOKEN": "hf_x"},
        capture_output=True,
        text=True,
        check=True,
    )
    model, asked, token = json.loads(done.stdout)
    assert model == "Qwen/Qwen3-4B-Instruct-2507"
    assert asked == {"revision": revision or "main", "ignore_patterns": list(SKIPPED)}
    assert token == "hf_x"


def test_the_same_files_are_left_out_as_on_a_volume() -> None:
    program = (ROOT / "providers/runpod/fill_volume.py").read_text()
    assert f"SKIPPED = {json.dumps(list(SKIPPED))}" in program


def test_the_tag_changes_with_the_recipe_and_only_then() -> None:
    image = image_recipe(SPEC, options(), NAME).image
    assert image == image_recipe(SPEC, options(), NAME).image
    assert image.startswith(f"{NAME}:qwen3-4b-instruct-2507-v")
    others = [
        image_recipe(of_model(revision="main-2"), options(), NAME).image,
        image_recipe(SPEC, options("pod"), NAME).image,
    ]
    assert len({image, *others}) == 3


@pytest.mark.parametrize("mode", ["pod", "serverless", "load-balancing"])
def test_the_image_can_be_configured_as_it_is_named(mode: str) -> None:
    recipe = image_recipe(SPEC, options(mode), NAME)
    ask = Ask(SPEC, options(mode, image=recipe.image), Market(dated("runpod")))
    assert ADAPTER.unsupported(ask) == []
    declared = ADAPTER.resources(ask, ADAPTER.offers(ask)[0])
    (server,) = [one for one in declared.resources if one.name == "server"]
    assert server.inputs["image"] == recipe.image
    assert "HF_HOME" not in server.inputs["env"]


def workflow(name: str = NAME) -> dict[str, Any]:
    return yaml.safe_load(image_recipe(SPEC, options(), name).files[".github/workflows/image.yml"])


def test_the_workflow_may_push_packages_and_nothing_more() -> None:
    assert workflow()["permissions"] == {"contents": "read", "packages": "write"}
    (job,) = workflow()["jobs"].values()
    assert [step["uses"] for step in job["steps"] if "uses" in step] == ["actions/checkout@v5"]


@pytest.mark.parametrize("name", [NAME, ""])
def test_every_step_of_the_workflow_is_a_script_that_bash_reads(name: str) -> None:
    (job,) = workflow(name)["jobs"].values()
    for step in job["steps"]:
        if "run" in step:
            subprocess.run(["bash", "-n"], input=step["run"], text=True, check=True)
            # What comes from outside reaches a script as a variable, never as its text.
            assert "${{" not in step["run"]


def test_without_a_name_the_image_is_called_after_the_repositorys_owner(tmp_path: Path) -> None:
    assert image_recipe(SPEC, options(), "").image.startswith(f"ghcr.io/{OWNER}/qwen3-4b-instruct-2507:")
    (job,) = workflow("")["jobs"].values()
    (script,) = [step["run"] for step in job["steps"] if step.get("name") == "Name the image"]
    env = {"GITHUB_ENV": str(tmp_path / "env"), "GITHUB_REPOSITORY_OWNER": "Acme-Corp"}
    subprocess.run(["bash", "-eu", "-c", script], env=env, check=True)
    assert (tmp_path / "env").read_text().startswith("IMAGE=ghcr.io/acme-corp/qwen3-4b-instruct-2507:")


@pytest.mark.parametrize("mode", ["pod", "serverless", "load-balancing"])
def test_hadolint_has_nothing_against_it(mode: str) -> None:
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, "-"], input=dockerfile(mode=mode), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def asked(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_image(parser.add_subparsers())
    return parser.parse_args(["image", *words])


def test_the_command_writes_a_repository_and_says_what_to_configure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert image(asked("-s", "runpod-serverless", "--out", str(tmp_path), "--image", NAME)) == 0
    out = capsys.readouterr().out
    name = image_recipe(SPEC, options(), NAME).image.partition(":")[0]
    assert "pulumi config set -s runpod-serverless --path vllm-anywhere:runpod.weights image\n" in out
    assert f"pulumi config set -s runpod-serverless --path vllm-anywhere:runpod.image {name}:" in out
    assert "on top of runpod/worker-v1-vllm:" in out
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert written == [".dockerignore", ".github/workflows/image.yml", "Dockerfile"]


def test_settings_change_the_mode_and_the_configured_name_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["--set", "runpod.mode=load-balancing", "--set", "runpod.image=ghcr.io/acme/mine:old"]
    assert image(asked("--out", str(tmp_path), "--json", *settings)) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["image"].startswith("ghcr.io/acme/mine:qwen3-4b")
    assert facts["base"].startswith("vllm/vllm-openai:v")
    assert facts["weights_gb"] == 8.1


def test_a_file_of_ones_own_is_not_overwritten_without_force(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM mine\n")
    with pytest.raises(OpsError, match=r"Dockerfile would change; nothing was written"):
        image(asked("--out", str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["Dockerfile"]
    assert (tmp_path / "Dockerfile").read_text() == "FROM mine\n"
    assert image(asked("--out", str(tmp_path), "--force")) == 0
    assert image(asked("--out", str(tmp_path))) == 0


@pytest.mark.parametrize("name", ["acme/qwen3", "ghcr.io/acme/Qwen3", "ghcr.io/acme/qwen3:latest", "qwen3"])
def test_a_name_that_cannot_be_pushed_to_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(OpsError, match="a registry and a name in lower case, without a tag"):
        image(asked("--out", str(tmp_path), "--image", name))
