"""The image that holds a model's weights (`runpod.weights: image`): a Dockerfile and a GitHub Actions build of it.

The weights lie in Hugging Face's own cache layout, and the image is offline: whatever serves (RunPod's worker or plain
vLLM) finds the model under its usual name, with no other argument than without the image. The Hugging Face token is a
build secret, mounted for one command: no layer, argument or history has it.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from providers.base import Ask
from providers.model_shape import model_shape
from providers.runpod.choices import RunPodOptions, image_of
from serving.spec import DeploymentSpec

SECRET = "hf_token"
"""Id of the build secret."""

CACHE = "/models/huggingface"
"""Where the weights are: not below the path of a network volume, which would hide them."""

OWNER = "OWNER"
"""Stands in an image's name for whoever owns the repository that builds it; the build fills it in."""

SKIPPED = ("*.bin", "*.pt", "*.pth", "*.gguf", "*.onnx", "original/*")
"""Files of a repository that hold the weights once more, in other formats; as in `fill_volume.py`."""


@dataclass(frozen=True)
class ImageRecipe:
    """What builds the image.

    Attributes:
        files: text by path; the paths are those of a repository on GitHub.
        base: the image that it starts from, pinned by its tag.
        image: its name, with a tag that is another one whenever the recipe is.
        weights_gb: size of the weights, 10^9 bytes.
    """

    files: Mapping[str, str]
    base: str
    image: str
    weights_gb: float


def image_recipe(spec: DeploymentSpec, options: RunPodOptions, name: str) -> ImageRecipe:
    """The recipe for a spec; `name` is the image's without a tag, such as `ghcr.io/acme/qwen3-4b`, "" for GitHub's own.

    Raises:
        SpecError: nothing is known of the model.
    """
    base = image_of(Ask(spec, options.model_copy(update={"image": None}), None))
    weights = sum(count * size for count, size in model_shape(spec.model).tensors()) / 1e9
    dockerfile = _dockerfile(spec, base)
    digest = hashlib.sha256(dockerfile.encode()).hexdigest()[:8]
    model = _tag(spec.model.name.rpartition("/")[2])
    image = f"{name or f'ghcr.io/{OWNER}/{model}'}:{model}-{_tag(base.rpartition(':')[2])}-{digest}"
    files = {
        "Dockerfile": dockerfile,
        ".dockerignore": "# The build needs nothing but the Dockerfile.\n*\n",
        ".github/workflows/image.yml": _workflow(image),
    }
    return ImageRecipe(files, base, image, weights)


def _dockerfile(spec: DeploymentSpec, base: str) -> str:
    model, revision = spec.model.name, spec.model.revision or "main"
    program = (
        "from huggingface_hub import snapshot_download; "
        f"snapshot_download({json.dumps(model)}, revision={json.dumps(revision)}, "
        f"ignore_patterns={json.dumps(list(SKIPPED))})"
    )
    return f"""\
# syntax=docker/dockerfile:1.10
# {model} at {revision} in {base}. Rendered by `vllm-anywhere image`.
FROM {base}

ENV HF_HOME={CACHE} \\
    HF_HUB_CACHE={CACHE}/hub

# A gated model needs a token. It is a mounted secret, there for this one command.
RUN --mount=type=secret,id={SECRET},env=HF_TOKEN \\
    python3 -c {shlex.quote(program)}

# What is asked for from here on is in the image, or fails at once.
ENV HF_HUB_OFFLINE=1

LABEL org.opencontainers.image.title={json.dumps(f"{model} at {revision}")} \\
      org.opencontainers.image.base.name={json.dumps(base)}
"""


def _workflow(image: str) -> str:
    # GitHub's names of owners may have capitals, an image's may not.
    named = image.replace(f"/{OWNER}/", "/${GITHUB_REPOSITORY_OWNER,,}/")
    return f"""\
# Builds the image and pushes it. Rendered by `vllm-anywhere image`.
# A gated model needs the repository secret HF_TOKEN; a registry other than GitHub's needs the secret REGISTRY_TOKEN
# and the variable REGISTRY_USER.
name: image

on:
  workflow_dispatch:
  push:
    branches: [main]
    paths: [Dockerfile, .github/workflows/image.yml]

permissions:
  contents: read
  packages: write

concurrency: image

jobs:
  build:
    runs-on: ubuntu-24.04
    timeout-minutes: 120
    steps:
      - uses: actions/checkout@v5
        with:
          persist-credentials: false
      - name: Name the image
        run: |
          echo "IMAGE={named}" >> "$GITHUB_ENV"
      - name: Make room for the base image and the weights
        run: sudo rm -rf /usr/share/dotnet /usr/local/lib/android /opt/ghc /opt/hostedtoolcache
      - name: Log in
        env:
          USER_NAME: ${{{{ vars.REGISTRY_USER || github.actor }}}}
          TOKEN: ${{{{ secrets.REGISTRY_TOKEN || secrets.GITHUB_TOKEN }}}}
        run: docker login "${{IMAGE%%/*}}" --username "$USER_NAME" --password-stdin <<< "$TOKEN"
      - name: Build and push
        env:
          HF_TOKEN: ${{{{ secrets.HF_TOKEN }}}}
        run: |
          docker buildx create --use
          docker buildx build --secret id={SECRET},env=HF_TOKEN --tag "$IMAGE" --push .
"""


def _tag(text: str) -> str:
    """`text` as a part of an image's tag."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:60]
