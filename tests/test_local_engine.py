"""The life of a local deployment, driven by the real Pulumi CLI."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import openai
import pytest
from engine import DEPLOYMENT, SERVER, Follower, Project, answers

pytestmark = pytest.mark.engine
LOCAL_SERVER = "vllm-anywhere:local:Server"


def test_up_answers_a_simple_question_over_the_openai_client(project: Project) -> None:
    project.up()
    out = project.outputs()
    client = openai.OpenAI(base_url=out["endpoint"], api_key=out["api_key"])
    stream = client.chat.completions.create(
        model=out["model"],
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        max_tokens=32,
        stream=True,
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert "Paris" in text
    assert out["endpoint"].endswith("/v1")
    assert out["provider"] == "local"
    assert "stand-in" in out["model"] and "SmolLM2" in out["model"]
    assert out["ready"]["first_token_s"] > 0
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=out["endpoint"], api_key="wrong").models.list()


def test_a_second_up_changes_nothing(project: Project) -> None:
    project.up()
    before = project.outputs()
    text = project.up()
    assert "5 unchanged" in text
    assert project.outputs() == before


def test_preview_shows_the_plan_under_the_deployment_and_creates_nothing(project: Project) -> None:
    text = project.preview()
    shown = text[text.index("Diagnostics:") :]
    assert "vllm-anywhere:index:Deployment (deployment):" in shown
    for word in ("platform", "this machine", "stand-in", "no charge", "vllm-anywhere:local:Server"):
        assert word in shown
    assert project.servers() == []


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("model.max_len", "many", "vllm-anywhere:model.max_len = many: a whole number"),
        ("model.nmae", "x", "vllm-anywhere:model.nmae = x: no such key. Did you mean `name`?"),
        ("hardwear.disk_gb", "9", "vllm-anywhere:hardwear: no such key. Did you mean `hardware`?"),
        ("local.engine", "vllm", "vllm-anywhere:local.engine"),
    ],
)
def test_a_config_error_fails_preview_against_its_key(project: Project, key: str, value: str, says: str) -> None:
    project.config(key, value)
    text = project.preview(ok=False)
    assert says in text
    assert "Traceback" not in text


def test_an_unknown_platform_fails_preview_with_what_there_is(project: Project) -> None:
    project.config("provider", "lokal")
    assert "vllm-anywhere:provider = lokal: no such platform. Did you mean `local`?" in project.preview(ok=False)


def test_refresh_sees_a_killed_server_and_up_starts_it_again(project: Project) -> None:
    project.up()
    before = project.outputs()
    (pid,) = project.servers()
    os.kill(pid, signal.SIGKILL)
    text = project.refresh()
    assert re.search(r"local:Server server .*status", text), text
    assert "2 updated" in project.up(), "the server, and Ready, which asks it again"
    after = project.outputs()
    assert after["endpoint"] == before["endpoint"]
    assert answers(after)


def test_a_running_server_can_be_imported(project: Project) -> None:
    project.up()
    (pid,) = project.servers()
    (server,) = project.resources(LOCAL_SERVER)
    project.pulumi("state", "delete", SERVER, "--target-dependents", "--yes", "-s", "test")
    project.pulumi(
        *("import", LOCAL_SERVER, "server", server["id"], "--parent", f"deployment={DEPLOYMENT}"),
        *("--protect=false", "--generate-code=false", "--yes", "-s", "test"),
    )
    project.up()
    assert project.servers() == [pid]
    assert answers(project.outputs())


def test_replacement_keeps_the_old_server_until_the_new_one_answers(project: Project) -> None:
    """A client that reads the outputs again when its endpoint is gone sees no failed request."""
    project.up()
    first = project.outputs()
    with Follower(project, first) as client:
        project.config("model.max_len", "4096")
        project.up()
        second = project.outputs()
        deadline = time.monotonic() + 30
        while second["endpoint"] not in client.served and time.monotonic() < deadline:
            time.sleep(0.05)
    assert client.failed == []
    assert client.served == {first["endpoint"], second["endpoint"]}
    assert first["endpoint"] != second["endpoint"]
    assert len(project.servers()) == 1


def test_a_rotation_without_grace_ends_the_old_key(project: Project) -> None:
    project.up()
    before = project.outputs()
    project.config("api_key.rotation", "2")
    project.config("api_key.keep_previous", "false")
    project.up()
    after = project.outputs()
    assert after["api_key"] != before["api_key"]
    assert answers(after)
    assert not answers(after, key=before["api_key"])


def test_a_new_server_that_never_answers_leaves_the_old_one_serving(project: Project, tmp_path: Path) -> None:
    project.up()
    before = project.outputs()
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"this is no model")
    project.config("local.gguf", str(broken))
    text = project.up(ok=False)
    assert "The model file can't be read." in text
    assert "vllm-anywhere:local.gguf" in text
    assert answers(before)
    assert len(project.servers()) == 1
    records = [file.parent.name for file in (project.folder / "state/local").rglob("want.json")]
    assert [name.partition("-")[0] for name in records] == ["1"], "the one that was not made is no orphan"


@pytest.mark.parametrize("when", ["before it listens", "while it loads"])
def test_kill_9_of_the_plugin_in_mid_create_leaves_one_server_after_the_next_up(project: Project, when: str) -> None:
    run = project.start("up", "--yes", "--skip-preview", "-s", "test")
    deadline = time.monotonic() + 60
    awaited = "1-*/want.json" if when == "before it listens" else "1-*/run.json"
    while not _recorded(project, awaited) and time.monotonic() < deadline:
        time.sleep(0.005)
    for plugin in _plugins_of(project):
        os.kill(plugin, signal.SIGKILL)
    assert run.wait(60) != 0
    project.up()
    assert len(project.servers()) == 1
    assert len(project.resources(LOCAL_SERVER)) == 1
    assert answers(project.outputs())
    project.destroy()
    assert project.servers() == []


def _recorded(project: Project, file: str) -> bool:
    return any((project.folder / "state/local/vllm-anywhere/test/server").glob(file))


def test_interrupting_up_stops_what_was_starting(project: Project) -> None:
    run = project.start("up", "--yes", "--skip-preview", "-s", "test")
    deadline = time.monotonic() + 60
    while not _recorded(project, "1-*/want.json") and time.monotonic() < deadline:
        time.sleep(0.005)
    run.send_signal(signal.SIGINT)
    run.wait(60)
    project.up()
    assert len(project.servers()) == 1


def test_destroy_leaves_nothing(project: Project) -> None:
    project.up()
    project.destroy()
    assert project.servers() == []
    assert not list((project.folder / "state").rglob("*.*"))
    assert project.resources(LOCAL_SERVER) == []


def test_no_secret_is_ever_in_clear(project: Project) -> None:
    secret = "hf_" + "x7Q9" * 6
    project.config("hf_token", secret, "--secret")
    printed = [project.preview(), project.preview("--diff"), project.up(), project.preview("--json")]
    key = project.outputs()["api_key"]
    printed += [project.exported(), project.refresh(), project.pulumi("stack", "output", "-s", "test", "--json")]
    printed += [file.read_text(errors="replace") for file in (project.folder / "backend").rglob("*.json*")]
    printed += [file.read_text(errors="replace") for file in (project.folder / "state").rglob("*.log")]
    (pid,) = project.servers()
    printed.append(Path(f"/proc/{pid}/cmdline").read_text())
    printed.append(Path(f"/proc/{pid}/environ").read_text())
    # A secret where none belongs is refused without being repeated.
    project.config("budget.monthly_usd", secret, "--secret")
    printed.append(project.preview(ok=False))
    assert "vllm-anywhere:budget.monthly_usd = [secret]: a number" in printed[-1]
    assert not [text for text in printed if key in text or secret in text]


def test_the_package_has_a_schema(project: Project) -> None:
    text = project.pulumi(
        "package", "get-schema", str(project.folder / "providers/plugin/pulumi-resource-vllm-anywhere")
    )
    assert '"vllm-anywhere:local:Server"' in text
    assert '"vllm-anywhere:index:getOffers"' in text


def test_the_examples_of_hello_work_as_they_are_pasted(project: Project) -> None:
    project.up()
    env = {**project.env, "PATH": f"{project.folder / '.venv/bin'}{os.pathsep}{project.env['PATH']}"}
    shown = _shell("vllm-anywhere hello -s test", project, env)
    pasted = shown[shown.index("vllm-anywhere chat") :]
    answers_shown = _shell(pasted, project, env)
    assert answers_shown.count("Paris") == 2
    assert '"object":"chat.completion"' in answers_shown


def _shell(script: str, project: Project, env: dict[str, str]) -> str:
    done = subprocess.run(["bash", "-e"], input=script, cwd=project.folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _plugins_of(project: Project) -> list[int]:
    """Provider processes whose state folder is this project's."""
    pids: list[int] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            environ = (process / "environ").read_bytes()
        except OSError:
            continue
        if b"providers.plugin" in command and str(project.folder / "state").encode() in environ:
            pids.append(int(process.name))
    return pids
