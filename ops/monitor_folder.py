"""A folder of files that are written again and again: only what differs, each in one step, and nothing of others."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from ops.monitor_files import File
from ops.stack import OpsError

RECORD = ".vllm-anywhere.json"
"""Names what was written, so that nothing else in the folder is ever touched."""


def write(folder: Path, files: Mapping[str, File]) -> list[str]:
    """Make the folder hold `files`; what an earlier call wrote besides goes. Returns the names that changed.

    Raises:
        OpsError: a file of somebody else is in the way, or the folder can't be written.
    """
    try:
        ours = _recorded(folder)
        foreign = sorted(name for name in files if name not in ours and (folder / name).exists())
        if foreign:
            raise OpsError(
                f"--out {folder}: {', '.join(foreign)} there is not from here and stays as it is; take an empty folder"
            )
        gone = sorted(ours - set(files))
        # First, so that a call that is cut short leaves no file that the next one takes for somebody else's.
        _record(folder, ours | set(files))
        changed = [name for name, file in files.items() if _write(folder / name, file)]
        for name in gone:
            (folder / name).unlink(missing_ok=True)
        _record(folder, set(files))
    except OSError as error:
        raise OpsError(f"--out {folder}: {error.strerror}: {error.filename}") from None
    return sorted([*changed, *gone])


def _recorded(folder: Path) -> set[str]:
    try:
        names: list[str] = json.loads((folder / RECORD).read_text("utf-8"))
    except FileNotFoundError:
        return set()
    except ValueError:
        raise OpsError(f"--out {folder}: {RECORD} is damaged; delete the folder, or take another") from None
    return {name for name in names if not Path(name).is_absolute() and ".." not in Path(name).parts}


def _record(folder: Path, names: set[str]) -> None:
    _write(folder / RECORD, File(json.dumps(sorted(names), indent=2) + "\n"))


def _write(path: Path, file: File) -> bool:
    private = not file.mode & 0o077
    path.parent.mkdir(parents=True, exist_ok=True)
    if private:
        path.parent.chmod(0o700)
    if path.is_file() and path.read_text("utf-8") == file.text and path.stat().st_mode & 0o777 == file.mode:
        return False
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, file.mode), "w", encoding="utf-8") as out:
        # The umask takes bits that whoever runs Prometheus needs.
        os.fchmod(out.fileno(), file.mode)
        out.write(file.text)
    temporary.replace(path)
    return True
