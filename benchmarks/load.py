"""Requests a second that a load generator drives before its own lateness shows, ours against its peers.

All of them drive the same stub server (`tests/stub_openai.py`: streamed answers with scripted latencies) at a constant
rate on this machine, in turns. What a tool reports as time to first token is held against what the stub itself
recorded: the server's scripted delay, its own lateness included. A tool keeps up at a rate when requests arrive at 95 %
of it or more and its reported median TTFT is at most `SLACK_MS` over the stub's. The rate doubles from `--from` until
that fails, then the gap is halved once. The figure is the better peer's highest rate over ours; the goal is 1/3.

That needs two cores that nobody else uses. What a tool's processes spend on a request when they are busy
(`STREAMS` at a time) is measured first and depends less on that: the difference between a long and a short run, so that
starting up is not in it.

Peers are found in environments of their own, which this script doesn't make:

    python -m venv guidellm && guidellm/bin/pip install guidellm
    python -m venv vllm && vllm/bin/pip install 'vllm[bench]'
    python benchmarks/load.py --guidellm guidellm/bin/guidellm --vllm vllm/bin/vllm
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import ROOT, conclude

GOAL = 1 / 3
SLACK_MS = 5.0
KEPT = 0.95
HALVINGS = 1
PIECES = 16
STREAMS = 200
SHORT, LONG = 400, 3200
WORDS = ("alpha", "beta", "gamma", "delta", "tree", "house", "river")
COMMAND = """
import argparse, sys
from ops.bench import add_bench
parser = argparse.ArgumentParser()
add_bench(parser.add_subparsers())
args = parser.parse_args(sys.argv[1:])
sys.exit(args.run(args))
"""


@dataclass(frozen=True)
class Trial:
    """One tool at one rate: what it reported, what the stub saw, and the CPU time of all its processes."""

    rate: float
    arrived: float
    reported_ms: float
    recorded_ms: float
    cpu_s: float

    @property
    def keeps_up(self) -> bool:
        """Whether neither the rate nor the latency shows the tool's own limit."""
        return self.arrived >= KEPT * self.rate and self.reported_ms - self.recorded_ms <= SLACK_MS


Tool = Callable[[str, float, int, Path], float]
"""(URL of the stub, rate, requests, scratch folder) -> the median TTFT that it reports, in ms.

An infinite rate is a closed loop of `STREAMS`.
"""


def main() -> None:
    """Climb with every tool in turns until each has failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guidellm", type=Path, help="its command")
    parser.add_argument("--vllm", type=Path, help="its command")
    parser.add_argument("--from", type=float, default=50.0, dest="low", metavar="RATE", help="the first rate")
    parser.add_argument("--seconds", type=float, default=6.0, help="of load at each rate")
    parser.add_argument("--check", action="store_true", help="exit 1 beyond the goal")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tools: dict[str, Tool] = {"vllm-anywhere bench": ours}
        if args.guidellm:
            tools["guidellm"] = lambda *given: guidellm(args.guidellm, *given)
        if args.vllm:
            tools["vllm bench serve"] = lambda *given: vllm(args.vllm, *given)
        for name, tool in tools.items():
            spent = cpu_per_request(tool, folder)
            print(f"{name}: {spent * 1000:.2f} ms of CPU a request, {STREAMS} at a time", flush=True)
        best = dict.fromkeys(tools, 0.0)
        failed: dict[str, float] = {}
        left = dict.fromkeys(tools, HALVINGS + 1)
        while any(left.values()):
            for name, tool in tools.items():
                if not left[name]:
                    continue
                rate = (best[name] + failed[name]) / 2 if name in failed else max(args.low, best[name] * 2)
                trial = tried(tool, rate, round(rate * args.seconds), folder)
                verdict = "keeps up" if trial.keeps_up else "late"
                print(
                    f"{name} at {rate:.0f}/s: {trial.arrived:.0f}/s arrived, median TTFT {trial.reported_ms:.1f} ms "
                    f"reported, {trial.recorded_ms:.1f} ms recorded: {verdict}",
                    flush=True,
                )
                if trial.keeps_up:
                    best[name] = rate
                else:
                    failed[name] = rate
                if name in failed:
                    left[name] -= 1
    for name, rate in best.items():
        print(f"{name}: {rate:.0f} requests a second of {PIECES} pieces")
    peers = [rate for name, rate in best.items() if tools[name] is not ours]
    if not peers:
        sys.exit("no peer was given: --guidellm, --vllm")
    conclude("the better peer's rate over ours", max(peers) / best["vllm-anywhere bench"], GOAL, args.check)


def tried(tool: Tool, rate: float, requests: int, folder: Path) -> Trial:
    """One tool against a fresh stub."""
    command = [sys.executable, str(ROOT / "tests" / "stub_openai.py"), "--pieces", str(PIECES)]
    stub = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert stub.stdout
    url = f"http://127.0.0.1:{int(stub.stdout.readline())}"
    before = _children_cpu_s()
    reported = tool(url, rate, requests, folder)
    cpu_s = _children_cpu_s() - before
    told, _ = stub.communicate()
    # Warm-ups come first, and are not what is measured.
    served: list[dict[str, Any]] = json.loads(told)[-requests:]
    arrivals = [one["arrived"] for one in served]
    took = (max(arrivals) - min(arrivals)) or 1e-9
    recorded = statistics.median((one["written"][0] - one["arrived"]) * 1000 for one in served if one["written"])
    return Trial(rate, (len(served) - 1) / took, reported, recorded, cpu_s)


def ours(url: str, rate: float, requests: int, folder: Path) -> float:
    """`vllm-anywhere bench`."""
    command = [sys.executable, "-c", COMMAND, "bench", "--url", f"{url}/v1", "--model", "stub"]
    load = ["--rate", f"{rate:g}", "--arrivals", "constant"] if rate < math.inf else ["--concurrency", str(STREAMS)]
    options = [*load, "--requests", str(requests), "--output-tokens", str(PIECES), "--json"]
    return float(json.loads(_run([*command, *options], folder))["median_ttft_ms"])


def guidellm(command: Path, url: str, rate: float, requests: int, folder: Path) -> float:
    """GuideLLM's constant or concurrent profile."""
    output = folder / "guidellm.json"
    _run(
        [
            str(command.absolute()),
            "run",
            *("--backend", f"kind=openai_http,target={url},model=stub"),
            *("--profile", f"kind=constant,rate={rate:g}" if rate < math.inf else f"kind=concurrent,streams={STREAMS}"),
            *("--constraint", f"kind=max_requests,count={requests}"),
            *("--data", f"kind=json_file,path={_prompts(folder, requests)}"),
            *("--output", f"kind=json,path={output}"),
            "--disable-console",
        ],
        folder,
    )
    benchmark = json.loads(output.read_text(encoding="utf-8"))["benchmarks"][0]
    return float(benchmark["metrics"]["time_to_first_token_ms"]["successful"]["median"])


def vllm(command: Path, url: str, rate: float, requests: int, folder: Path) -> float:
    """`vllm bench serve` with gaps all but constant."""
    output = folder / "vllm.json"
    _run(
        [
            *(str(command.absolute()), "bench", "serve", "--backend", "openai-chat", "--model", "stub"),
            *("--base-url", url, "--endpoint", "/v1/chat/completions", "--skip-tokenizer-init"),
            *("--dataset-name", "custom", "--dataset-path", str(_prompts(folder, requests))),
            *("--custom-output-len", str(PIECES), "--num-prompts", str(requests), "--disable-shuffle"),
            *("--request-rate", f"{rate:g}", "--burstiness", "1e6", "--disable-tqdm"),
            *(() if rate < math.inf else ("--max-concurrency", str(STREAMS))),
            *("--save-result", "--save-detailed", "--result-filename", str(output)),
        ],
        folder,
    )
    saved = json.loads(output.read_text(encoding="utf-8"))
    return statistics.median(ttft * 1000 for ttft in saved["ttfts"] if ttft > 0)


def cpu_per_request(tool: Tool, folder: Path) -> float:
    """CPU seconds that one more request costs the tool, in a closed loop."""
    short, long = (tried(tool, math.inf, requests, folder).cpu_s for requests in (SHORT, LONG))
    return (long - short) / (LONG - SHORT)


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _prompts(folder: Path, requests: int) -> Path:
    path = folder / "prompts.jsonl"
    draw = random.Random(0)
    lines = (json.dumps({"prompt": " ".join(draw.choices(WORDS, k=12))}) for _ in range(max(1000, 2 * requests)))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _run(command: list[str], folder: Path) -> str:
    env = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command[:4])} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
