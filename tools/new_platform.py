"""`python tools/new_platform.py NAME`: a platform that works against its own emulator, to be made into a real one.

What it writes is a made-up cloud with a REST API: a folder under `providers/` with its tables of facts, an emulator,
tests that pass at once, a stack file and a page. docs/add-a-platform.md says what to change, in which order.
"""

from __future__ import annotations

import argparse
import keyword
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = Path(__file__).with_name("platform")

FILES: Mapping[str, str] = {
    "client.py": "providers/{package}/client.py",
    "adapter.py": "providers/{package}/adapter.py",
    "resources.py": "providers/{package}/resources.py",
    "pricing.py": "providers/{package}/pricing.py",
    "account.py": "providers/{package}/account.py",
    "names.csv": "providers/{package}/data/names.csv",
    "machines.csv": "providers/{package}/data/machines.csv",
    "prices.csv": "providers/{package}/data/prices.csv",
    "places.csv": "providers/{package}/data/places.csv",
    "emulator.py": "tests/emulators/{package}.py",
    "test.py": "tests/test_{package}.py",
    "test_engine.py": "tests/test_{package}_engine.py",
    "stack.yaml": "stacks/Pulumi.{name}.yaml",
    "page.md": "docs/platforms/{name}.md",
}
"""Template -> where it goes."""
_NAME = re.compile(r"[a-z][a-z0-9]{1,15}")


class Refused(Exception):
    """A platform that can't be written; the text says why, and what works."""


def package_of(name: str) -> str:
    """The folder of a platform: its name, unless Python keeps that word for itself."""
    return f"{name}_cloud" if keyword.iskeyword(name) or keyword.issoftkeyword(name) else name


def rendered(text: str, name: str) -> str:
    """A template for that platform."""
    words = {"acme_pkg": package_of(name), "acme": name, "Acme": name.capitalize(), "ACME": name.upper()}
    return re.sub("|".join(words), lambda found: words[found[0]], text)


def registered(base: str, name: str) -> str:
    """The text of `providers/base.py` with the platform's line among `PLATFORMS`, in order.

    Raises:
        Refused: the platform is there, or the registry can't be found.
    """
    found = re.search(r"^PLATFORMS: .*? = \{\n(.*?)^\}", base, re.MULTILINE | re.DOTALL)
    if found is None:
        raise Refused("providers/base.py has no PLATFORMS to add a line to")
    lines = found[1].splitlines(keepends=True)
    if any(line.startswith(f'    "{name}":') for line in lines):
        raise Refused(f"{name} is a platform already; choose another name")
    added = sorted([*lines, f'    "{name}": "providers.{package_of(name)}",\n'])
    return base[: found.start(1)] + "".join(added) + base[found.end(1) :]


def write_platform(root: Path, name: str) -> list[str]:
    """Write everything under `root`; the paths, relative to it. Nothing is written when something is in the way.

    Raises:
        Refused: the name can't be one, or is taken, or there is no Ruff to put what is written in order.
    """
    if find_spec("ruff") is None:
        raise Refused("Ruff isn't there: `make tools` once, then `. tools/env.sh`, then again. Nothing was written")
    if not _NAME.fullmatch(name):
        raise Refused(f"{name} can't be a platform's name: 2 to 16 lower-case letters and digits, such as `acme`")
    registry = root / "providers" / "base.py"
    base = registered(registry.read_text(encoding="utf-8"), name)
    package = package_of(name)
    targets = {template: path.format(package=package, name=name) for template, path in FILES.items()}
    if taken := [path for path in targets.values() if (root / path).exists()]:
        raise Refused(f"{taken[0]} is there already")
    for template, path in targets.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(rendered((TEMPLATES / f"{template}.txt").read_text(encoding="utf-8"), name), encoding="utf-8")
    (root / "providers" / package / "__init__.py").touch()
    registry.write_text(base, encoding="utf-8")
    _tidy(root, [path for path in targets.values() if path.endswith(".py")])
    return [*targets.values(), "providers/base.py"]


def _tidy(root: Path, files: list[str]) -> None:
    """Imports in order and lines broken, which depends on the name's length."""
    for command in (["check", "--quiet", "--fix", "--select", "I"], ["format", "--quiet"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, *files], cwd=root, check=True)


def generate(root: Path) -> list[str]:
    """Write anew what is generated of all platforms: the schema of stack files, and pages; what was written."""
    # As programs of their own, which see the new platform.
    schema = subprocess.run(
        [sys.executable, "-c", "from ops.cli import main; main(['schema'])"],
        cwd=root,
        check=True,
        stdout=subprocess.PIPE,
    )
    (root / "docs" / "spec.schema.json").write_bytes(schema.stdout)
    subprocess.run([sys.executable, "-m", "tools.pages"], cwd=root, check=True)
    return ["docs/spec.schema.json", "docs/config.md"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/new_platform.py", description=__doc__)
    parser.add_argument("name", help="what `vllm-anywhere:provider` will take, such as `acme`")
    name = parser.parse_args().name
    try:
        written = [*write_platform(ROOT, name), *generate(ROOT)]
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    package = package_of(name)
    print("\n".join(written))
    print(f"\nIt works against its emulator: pytest tests/test_{package}.py tests/test_{package}_engine.py")
    print("Next: docs/add-a-platform.md says what to change, in which order")
    return 0


if __name__ == "__main__":
    sys.exit(main())
