"""Gives a Pulumi CLI that can run Python programs; prints the folder to put on PATH, or that it is there already.

Three ways, the first that works is taken:

1. `pulumi` on PATH with its own Python language host, when it is recent enough: the user's own is never replaced.
2. The vendor's installer, through the Pulumi SDK, into this user's cache.
3. `go build` of the CLI from the Go module of `tools/`, for networks that reach package registries only. It comes
   without a language host, so `language_host.py` is put beside it.

Standard library only. What is in the cache is complete: a folder appears there by a rename, under a lock, and two
runs at once share one download or build.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

if __package__:
    from tools.steps import Progress, interruptible, run_step
else:  # started as a script, before the project is installed
    from steps import Progress, interruptible, run_step

Version = tuple[int, int, int]

# About a year of releases. The engine calls that the provider relies on are older (the last is the handshake of
# 3.143), but no older engine has been tried with the SDK of constraints.txt.
MINIMUM: Version = (3, 200, 0)
# The newest version whose module is served everywhere; must match tools/go.mod (a test compares them).
BUILT: Version = (3, 259, 0)
GO_MINIMUM: Version = (1, 25, 11)
GO_MODULE = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
VERSION_FLAG = "-X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version"

HERE = Path(__file__).resolve().parent
LANGUAGE_HOST = ("pulumi-language-python", "language_host.py", "language_program.py")

# Name look-ups have no time limit of their own, so the vendor is asked in a process that can be ended.
REACH_LIMIT_S = 5.0
INSTALL_LIMIT_S = 600.0
REACH = """
import sys, urllib.request
try:
    urllib.request.urlopen("https://get.pulumi.com/install.sh", timeout=4).close()
except OSError as error:
    sys.exit(f"get.pulumi.com can't be reached: {getattr(error, 'reason', error)}")
"""
INSTALL = """
import subprocess, sys
from pulumi.automation import PulumiCommand
from semver import VersionInfo
try:
    PulumiCommand.install(root=sys.argv[1], version=VersionInfo.parse(sys.argv[2]))
except subprocess.CalledProcessError as error:
    sys.exit((error.output or b"").decode(errors="replace").strip() or str(error))
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


class NotThisWay(Exception):
    """One way doesn't work here; the text says why and, where there is something, what would help."""


@dataclass(frozen=True)
class Pulumi:
    """A usable CLI: the folder that holds `pulumi` and its language host, its version, and which way gave it."""

    bin: Path
    version: Version
    way: str


@dataclass(frozen=True)
class Setting:
    """Where to look and what to call; the tests put stand-ins here.

    `reach` and `install` are argv prefixes; `install` gets the target folder and the version appended.
    """

    env: Mapping[str, str]
    cache: Path
    sdk_version: str
    reach: Sequence[str]
    install: Sequence[str]

    @staticmethod
    def of_this_machine() -> Setting:
        env = dict(os.environ)
        base = env.get("XDG_CACHE_HOME") or Path(env.get("HOME") or Path.home()) / ".cache"
        return Setting(
            env=env,
            cache=Path(base) / "vllm-anywhere" / "pulumi",
            sdk_version=_installed_sdk(),
            reach=[sys.executable, "-c", REACH],
            install=[sys.executable, "-c", INSTALL],
        )

    def which(self, name: str) -> Path | None:
        """`name` on PATH, not counting what this tool has put there itself."""
        folders = [
            folder
            for folder in self.env.get("PATH", "").split(os.pathsep)
            if folder and not Path(folder).is_relative_to(self.cache)
        ]
        found = shutil.which(name, path=os.pathsep.join(folders))
        return Path(found) if found else None


def _installed_sdk() -> str:
    try:
        return importlib.metadata.version("pulumi")
    except importlib.metadata.PackageNotFoundError:
        return ""


def parse_version(text: str) -> Version | None:
    """The first x.y.z in what a program says about its version."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def dotted(version: Version) -> str:
    return ".".join(map(str, version))


def _said_version(program: Path, arguments: Sequence[str], env: Mapping[str, str]) -> Version | None:
    try:
        said = subprocess.run(
            [program, *arguments],
            env={**env, "PULUMI_SKIP_UPDATE_CHECK": "true"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_version(said.stdout) if said.returncode == 0 else None


def on_path(setting: Setting) -> Pulumi:
    """Way 1. Raises NotThisWay."""
    program = setting.which("pulumi")
    if program is None:
        raise NotThisWay("there is no `pulumi` on PATH")
    version = _said_version(program, ["version"], setting.env)
    if version is None:
        raise NotThisWay(f"`{program} version` doesn't answer with a version")
    if version < MINIMUM:
        raise NotThisWay(f"{program} is {dotted(version)}, older than {dotted(MINIMUM)}; update it to use it here")
    beside = program.resolve().parent / LANGUAGE_HOST[0]
    if not beside.is_file() and setting.which(LANGUAGE_HOST[0]) is None:
        raise NotThisWay(f"{program} has no Python language host ({LANGUAGE_HOST[0]} is neither beside it nor on PATH)")
    return Pulumi(program.parent, version, "PATH")


def from_vendor(setting: Setting) -> Pulumi:
    """Way 2. Raises NotThisWay."""
    if not setting.sdk_version:
        raise NotThisWay("the Pulumi SDK isn't installed in this Python; run `make setup`")
    version = parse_version(setting.sdk_version)
    if version is None:
        raise NotThisWay(f"the Pulumi SDK's version {setting.sdk_version!r} isn't one the vendor releases")
    home = setting.cache / dotted(version) / "vendor"
    if not (home / "bin" / "pulumi").is_file():
        reached = run_step("Asking for the vendor's installer", setting.reach, env=setting.env, limit_s=REACH_LIMIT_S)
        if reached.status is None:
            raise NotThisWay(f"the vendor didn't answer within {REACH_LIMIT_S:.0f} s")
        if not reached.ok:
            raise NotThisWay(reached.tail(1))
        with _made_whole(home) as unfinished:
            installed = run_step(
                f"Installing the Pulumi CLI {dotted(version)}",
                [*setting.install, str(unfinished), dotted(version)],
                env=setting.env,
                limit_s=INSTALL_LIMIT_S,
            )
            if installed.status is None:
                raise NotThisWay(f"the vendor's installer didn't end within {INSTALL_LIMIT_S:.0f} s")
            if not installed.ok or not (unfinished / "bin" / "pulumi").is_file():
                raise NotThisWay(f"the vendor's installer failed: {installed.tail(3) or 'no pulumi came of it'}")
    return Pulumi(home / "bin", version, "vendor")


def from_source(setting: Setting) -> Pulumi:
    """Way 3. Raises NotThisWay."""
    home = setting.cache / dotted(BUILT) / "source"
    if not (home / "bin" / "pulumi").is_file():
        go = setting.which("go")
        if go is None:
            raise NotThisWay(f"there is no `go` on PATH; install Go {dotted(GO_MINIMUM)} or later")
        version = _said_version(go, ["version"], setting.env)
        if version is None or version < GO_MINIMUM:
            found = dotted(version) if version else "of no known version"
            raise NotThisWay(f"{go} is {found}, too old; install Go {dotted(GO_MINIMUM)} or later")
        with _made_whole(home) as unfinished:
            _build(go, unfinished, setting)
    _put_language_host(home / "bin")
    return Pulumi(home / "bin", BUILT, "source")


def _build(go: Path, target: Path, setting: Setting) -> None:
    module = target / "module"
    module.mkdir()
    for name in ("go.mod", "go.sum"):
        shutil.copy(HERE / name, module / name)
    (target / "bin").mkdir()
    argv = [
        str(go),
        "build",
        "-mod=readonly",
        f"-ldflags=-s -w {VERSION_FLAG}={dotted(BUILT)}",
        "-o",
        str(target / "bin" / "pulumi"),
        GO_MODULE,
    ]
    # GOFLAGS and workspaces of the user's own are for their own modules.
    env = {**setting.env, "GOFLAGS": "", "GOWORK": "off", "GOTOOLCHAIN": "local"}
    label = f"Building the Pulumi CLI {dotted(BUILT)} from source (once per user, some minutes)"
    built = run_step(label, argv, cwd=module, env=env)
    if not built.ok:
        raise NotThisWay(f"`go build` failed:\n{built.tail(6)}")
    shutil.rmtree(module)


def _put_language_host(folder: Path) -> None:
    for name in LANGUAGE_HOST:
        source, target = HERE / name, folder / name
        if target.is_file() and target.read_bytes() == source.read_bytes():
            continue
        # Another checkout's engine may be starting it right now.
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(source.read_bytes())
        Path(file.name).chmod(0o755)
        Path(file.name).replace(target)


@contextmanager
def _made_whole(home: Path) -> Generator[Path]:
    """A folder to fill that becomes `home` when the block ends well, and is removed when it doesn't."""
    home.parent.mkdir(parents=True, exist_ok=True)
    # The lock is ours, so whatever is still there was left by a run that was killed.
    for abandoned in home.parent.glob(f".{home.name}-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{home.name}-", dir=home.parent))
    try:
        yield unfinished
        shutil.rmtree(home, ignore_errors=True)
        unfinished.chmod(0o755)
        unfinished.rename(home)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _locked(cache: Path) -> Generator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        progress = Progress("Waiting for another run that gets the Pulumi CLI")
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress.tick()
                time.sleep(0.2)
        yield


def ready(setting: Setting) -> Pulumi | None:
    """What can be used at once, without the network and without building."""
    try:
        return on_path(setting)
    except NotThisWay:
        pass
    version = parse_version(setting.sdk_version)
    if version is not None and (setting.cache / dotted(version) / "vendor" / "bin" / "pulumi").is_file():
        return from_vendor(setting)
    if (setting.cache / dotted(BUILT) / "source" / "bin" / "pulumi").is_file():
        return from_source(setting)
    return None


WAYS: Sequence[tuple[str, Callable[[Setting], Pulumi]]] = (
    ("the `pulumi` on PATH", on_path),
    ("the vendor's installer", from_vendor),
    ("building it from source with Go", from_source),
)


def get(setting: Setting) -> Pulumi:
    """A CLI by the first way that works. Raises NotThisWay with all three reasons."""
    found = ready(setting)
    if found is not None:
        return found
    reasons: list[str] = []
    with _locked(setting.cache):
        for name, way in WAYS:
            try:
                return way(setting)
            except NotThisWay as reason:
                reasons.append(f"  {len(reasons) + 1}. {name}: {reason}")
    raise NotThisWay(
        "There is no way to get the Pulumi CLI here. Tried:\n"
        + "\n".join(reasons)
        + f"\nInstall Pulumi {dotted(MINIMUM)} or later (with its Python language host), or Go "
        f"{dotted(GO_MINIMUM)} or later, put it on PATH, and run `make setup` again."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="get_pulumi.py", description="Get a Pulumi CLI and print its folder on stdout."
    )
    parser.add_argument("--ready", action="store_true", help="only what needs no download and no build")
    parsed = parser.parse_args(arguments)
    setting = Setting.of_this_machine()
    if parsed.ready:
        found = ready(setting)
        if found is None:
            return 1
    else:
        try:
            found = get(setting)
        except NotThisWay as reasons:
            print(reasons, file=sys.stderr)
            return 1
    print(found.bin)
    return 0


if __name__ == "__main__":
    sys.exit(interruptible(main))
