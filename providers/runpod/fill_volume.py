"""Runs on RunPod, in the pod that fills a volume: `python - MODEL REVISION`. Says on its output how far it is."""

import fnmatch
import os
import sys
import threading
import time
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download  # pyright: ignore

SKIPPED = ["*.bin", "*.pt", "*.pth", "*.gguf", "*.onnx", "original/*"]
FINAL = (401, 403, 404)
ATTEMPTS = 20


def say(text: str) -> None:
    print(f"weights: {text}", flush=True)


def size_of(file: Path) -> int:
    """Bytes; none of a part that has got its own name since it was listed."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def tell(folder: str, total: int) -> None:
    """Every second, how much of it has come: parts of files too."""
    while True:
        there = sum(size_of(file) for file in Path(folder).glob("*"))
        say(f"{there // 10**6} of {total // 10**6} MB")
        time.sleep(1)


def load(model: str, revision: str) -> None:
    """What came before an interruption is on the volume, and is not loaded again."""
    files = HfApi().model_info(model, revision=revision, files_metadata=True).siblings
    wanted = [file for file in files if not any(fnmatch.fnmatch(file.rfilename, pattern) for pattern in SKIPPED)]
    folder = f"{os.environ['HF_HOME']}/hub/models--{model.replace('/', '--')}/blobs"
    threading.Thread(target=tell, args=(folder, sum(file.size or 0 for file in wanted)), daemon=True).start()
    snapshot_download(model, revision=revision, ignore_patterns=SKIPPED)


def main() -> None:
    model, revision = sys.argv[1:]
    for attempt in range(ATTEMPTS):
        try:
            load(model, revision)
        except Exception as error:  # whatever it was, it has to be told
            status = getattr(getattr(error, "response", None), "status_code", None)
            say(f"{type(error).__name__} {status or ''}".strip())
            if status in FINAL:
                break
            time.sleep(min(60, 2**attempt))
        else:
            say("complete")
            return
    say("failed")


if __name__ == "__main__":
    main()
