"""`vllm-anywhere image`: what builds the image with a stack's weights in it, for `runpod: {weights: image}`."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops.spec import add_spec_options, asked_config, asked_spec
from ops.stack import OpsError
from ops.text import show_json
from providers.runpod.choices import RunPodOptions
from providers.runpod.image import OWNER, SECRET, ImageRecipe, image_recipe
from serving import NAMESPACE
from serving.config import parse_part
from serving.spec import SpecError

_NAME = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+(/[a-z0-9._-]+)+")
_SECTION = f"{NAMESPACE}:runpod"


def add_image(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("image", help="a Dockerfile with the stack's weights in it, and its build on GitHub")
    add_spec_options(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where to write: a repository's root")
    parser.add_argument(
        "--image", default="", metavar="NAME", help="its name without a tag (default: what the stack has, else ghcr.io)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite files that are there and differ")
    parser.add_argument("--json", action="store_true", help="one JSON document, for programs")
    parser.set_defaults(run=image)


def image(args: argparse.Namespace) -> int:
    """Write the files, and say how the image is built and configured.

    Raises:
        OpsError: the spec is wrong, the name is none, or a file of somebody else's would be overwritten.
    """
    if args.image and not _NAME.fullmatch(args.image):
        raise OpsError(f"--image {args.image}: a registry and a name in lower case, without a tag: ghcr.io/acme/qwen3")
    spec = asked_spec(args)
    try:
        options = parse_part(RunPodOptions, asked_config(args.stack, args.settings).get(_SECTION) or {}, "runpod")
        recipe = image_recipe(spec, options, args.image or _name_of(options.image or ""))
    except SpecError as error:
        raise OpsError(f"the spec is wrong\n{error}") from None
    _write(recipe.files, args.out, force=args.force)
    if args.json:
        facts = {"image": recipe.image, "base": recipe.base, "weights_gb": round(recipe.weights_gb, 1)}
        show_json({**facts, "files": sorted(recipe.files)})
    else:
        # Not as a table: a command that is broken at the terminal's edge can't be pasted.
        print(_next(recipe, args))
    return 0


def _name_of(image: str) -> str:
    """An image's name without tag and digest."""
    return re.split(r"[:@]", image, maxsplit=1)[0]


def _write(files: Mapping[str, str], folder: Path, *, force: bool) -> None:
    """Write what differs; somebody else's file is only overwritten with `force`."""
    changed = {folder / name: text for name, text in files.items() if _text(folder / name) != text}
    theirs = [str(path) for path in changed if path.exists()]
    if theirs and not force:
        raise OpsError(f"{', '.join(theirs)} would change; nothing was written. `--force` overwrites")
    try:
        for path, text in changed.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OpsError(f"{folder} can't be written: {error}") from None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError):
        return None


def _next(recipe: ImageRecipe, args: argparse.Namespace) -> str:
    """What to do with the files."""
    folder, name, stack = shlex.quote(str(args.out)), recipe.image, shlex.quote(args.stack or "STACK")
    listed = "\n".join(f"  {args.out / path}" for path in sorted(recipe.files))
    size = f"{recipe.weights_gb:.1f} GB of weights on top of {recipe.base}"
    fill_in = f" ({OWNER} is you)" if OWNER in name else ""
    return (
        f"Wrote, for an image with {size}:\n{listed}\n\n"
        f"Build it on GitHub, by pushing {args.out} as a repository, or here; a gated model needs HF_TOKEN, there as a "
        "secret of the repository:\n"
        f"  docker buildx build --secret id={SECRET},env=HF_TOKEN --tag {name} --push {folder}\n\n"
        f"Then{fill_in}:\n"
        f"  pulumi config set -s {stack} --path {_SECTION}.weights image\n"
        f"  pulumi config set -s {stack} --path {_SECTION}.image {name}\n"
        "A private image needs runpod.registry_username and RUNPOD_REGISTRY_PASSWORD as well."
    )
