"""Runs the command blocks of a page as a reader would: in one shell after the other, in a copy of the checkout.

A fence of `sh` is run. A fence of `text` right after it is what it prints: lines that follow one another in its output,
with `...` for what varies. A comment in front of the fence says what is special about it:

    <!-- not run: why -->        it can't be run here
    <!-- runs until: TEXT -->    it doesn't end by itself; once it has printed TEXT, it is stopped as by Ctrl-C
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine import ROOT
from markdown_it import MarkdownIt

from tools.setup import fingerprint

_MARK = re.compile(r"<!-- (?P<kind>not run|runs until): (?P<text>[^>]+) -->")
_LIMIT_S = 300.0
_READER = """
pulumi() {
    case "$*" in
        *--yes* | *--preview-only*) command pulumi "$@" ;;
        "up "* | "destroy "* | "refresh "* | "import "*) command pulumi "$@" --yes ;;
        *) command pulumi "$@" ;;
    esac
}
"""
"""The reader says yes where Pulumi asks."""
_COPIED = ("infra", "ops", "providers", "serving", "tools", "docs", "stacks")
_MINE = shutil.ignore_patterns("Pulumi.local.yaml", "Pulumi.dev.yaml")


@dataclass(frozen=True)
class Block:
    """Some commands of a page, with the line at which they begin; `prints` is "" where the page shows no output."""

    page: str
    line: int
    commands: str
    prints: str = ""
    not_run: str = ""
    until: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}\n{self.commands}"


def blocks_of(page: str) -> list[Block]:
    """The command blocks of a page, in order."""
    tokens = MarkdownIt().parse((ROOT / page).read_text(encoding="utf-8"))
    return list(_blocks(page, tokens))


def _blocks(page: str, tokens: Sequence[object]) -> Iterator[Block]:
    fences = [(getattr(token, "type", ""), getattr(token, "info", ""), token) for token in tokens]
    for at, (kind, info, token) in enumerate(fences):
        if kind != "fence" or info != "sh":
            continue
        mark = _MARK.search(fences[at - 1][2].content) if at and fences[at - 1][0] == "html_block" else None
        shown = fences[at + 1] if at + 1 < len(fences) else ("", "", None)
        yield Block(
            page,
            token.map[0] + 1,
            token.content,
            prints=shown[2].content if shown[:2] == ("fence", "text") else "",
            not_run=mark["text"] if mark and mark["kind"] == "not run" else "",
            until=mark["text"] if mark and mark["kind"] == "runs until" else "",
        )


def shows(output: str, expected: str) -> bool:
    """Whether the lines that a page shows are in the output, with any text for `...` and any width of columns."""
    pattern = ".*?".join(re.escape(_plain(part)) for part in _plain(expected).split("..."))
    return re.search(pattern, _plain(output), re.DOTALL) is not None


def _plain(text: str) -> str:
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines() if line.strip())


@dataclass
class Checkout:
    """A fresh clone, as it is after `make setup`, whose user has a home of their own."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    @classmethod
    def create(cls, at: Path, path: str, env: Mapping[str, str]) -> Checkout:
        folder = at / "vllm-anywhere"
        folder.mkdir()
        for name in _COPIED:
            # With their compiled modules, which a shell would have to make again.
            shutil.copytree(ROOT / name, folder / name, ignore=_MINE, symlinks=True)
        for file in ROOT.iterdir():
            if file.is_file():
                shutil.copy2(file, folder)
        (folder / ".venv").mkdir()
        for name in ("bin", "include", "lib", "lib64", "pyvenv.cfg"):
            if (ROOT / ".venv" / name).exists():
                (folder / ".venv" / name).symlink_to(ROOT / ".venv" / name)
        (folder / ".venv" / ".installed").write_text(fingerprint(folder, test=True))
        (at / "home").mkdir()
        return cls(
            folder,
            {
                "HOME": str(at / "home"),
                "PATH": path,
                "LANG": "C.UTF-8",
                "COLUMNS": "120",
                "PYTHONPATH": str(folder),
                **env,
            },
        )

    def shell(self, setup: str = "", replaced: Mapping[str, str] | None = None, typed: str = "") -> Shell:
        """A shell in the checkout's folder. `setup` is run first; `replaced` turns placeholders of a page into values,
        and `typed` is what is entered where a command asks."""
        shell = Shell(self, dict(replaced or {}), typed)
        if setup:
            shell.run(Block("(setup)", 0, setup))
        return shell

    def servers(self) -> Iterator[int]:
        """Process ids of servers of `local` that run out of this checkout."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().decode()
            except OSError:
                continue
            if "providers.local.server" in command and str(self.folder) in command:
                yield int(process.name)

    def close(self) -> None:
        for pid in self.servers():
            os.kill(pid, signal.SIGKILL)


class Shell:
    """What a reader's shell keeps from block to block: variables and the folder."""

    def __init__(self, checkout: Checkout, replaced: Mapping[str, str], typed: str) -> None:
        self._checkout = checkout
        self._replaced = replaced
        self._typed = typed
        self._kept = checkout.folder.parent / f"shell-{time.monotonic_ns()}"
        self._kept.write_text(f"cd {checkout.folder}\n")

    def run(self, block: Block) -> str:
        """Everything that the block prints.

        Raises:
            AssertionError: a command failed, or printed something else than the page shows.
        """
        commands = block.commands
        for placeholder, value in self._replaced.items():
            commands = commands.replace(placeholder, value)
        keep = f"{{ declare -px; echo cd \"'$PWD'\"; }} >{self._kept}"
        script = f"source {self._kept}\n{_READER}\nset -eo pipefail\n{commands}\n{{ set +e; }} 2>/dev/null\n{keep}\n"
        status, output = self._until(script, block.until) if block.until else self._to_the_end(script)
        assert status == 0, f"{block}exit status {status}\n{output}"
        assert not block.prints or shows(output, block.prints), f"{block}prints something else:\n{output}"
        return output

    def _to_the_end(self, script: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self._checkout.folder,
            env=self._checkout.env,
            input=self._typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
        return done.returncode, done.stdout

    def _until(self, script: str, text: str) -> tuple[int, str]:
        shell = subprocess.Popen(
            ["bash", "-c", script],
            cwd=self._checkout.folder,
            env=self._checkout.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert shell.stdout
        output: list[str] = []
        try:
            for line in shell.stdout:
                output.append(line)
                if text in line:
                    os.killpg(shell.pid, signal.SIGINT)
                    break
            else:
                return shell.wait(_LIMIT_S) or 1, "".join([*output, f"(ended without {text!r})"])
            output.append(shell.communicate(timeout=_LIMIT_S)[0])
        finally:
            if shell.poll() is None:
                os.killpg(shell.pid, signal.SIGKILL)
        return 0, "".join(output)


def pages() -> list[str]:
    """Every page with commands."""
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    names = [str(file.relative_to(ROOT)) for file in files]
    return [name for name in names if blocks_of(name)]
