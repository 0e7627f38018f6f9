"""The three ways to a Pulumi CLI, with stand-ins on PATH, and the one this machine really takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import get_pulumi
from tools.get_pulumi import BUILT, GO_MINIMUM, MINIMUM, NotThisWay, Setting, dotted, get, parse_version, ready

TOOLS = Path(get_pulumi.__file__).parent


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def setting(
    tmp_path: Path, *, sdk: str = "3.272.0", reach: str = "raise SystemExit('no route')", install: str = ""
) -> Setting:
    """A machine whose PATH holds `tmp_path/bin` and the basic tools, with a stand-in for the vendor."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    return Setting(
        env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)},
        cache=tmp_path / "cache",
        sdk_version=sdk,
        reach=[sys.executable, "-c", reach],
        install=[sys.executable, "-c", install],
    )


def own_pulumi(tmp_path: Path, version: str, *, host: bool = True) -> None:
    script(tmp_path / "bin/pulumi", f"echo v{version}")
    if host:
        script(tmp_path / "bin/pulumi-language-python", "exit 0")


def own_go(tmp_path: Path, version: str = "1.26.0", *, works: bool = True) -> None:
    # Stands in for the compiler: writes a `pulumi` where -o says, and what it was called with beside it.
    build = 'echo "$@" >"$HOME/built-with"; pwd >"$HOME/built-in"; echo once >>"$HOME/builds"\n'
    build += (
        'while [ "$1" != -o ]; do shift; done; printf "#!/bin/sh\\necho v3.259.0\\n" >"$2"; chmod +x "$2"'
        if works
        else 'echo "no space left on device" >&2; exit 1'
    )
    script(
        tmp_path / "bin/go",
        f'if [ "$1" = version ]; then echo "go version go{version} linux/amd64"; exit; fi\n{build}',
    )


INSTALLS = """
import sys, pathlib
target = pathlib.Path(sys.argv[1]) / "bin"
target.mkdir()
(target / "pulumi").write_text(sys.argv[2])
"""


def test_the_users_own_recent_pulumi_is_taken(tmp_path: Path) -> None:
    own_pulumi(tmp_path, dotted(MINIMUM))
    found = get(setting(tmp_path))
    assert (found.way, found.bin, found.version) == ("PATH", tmp_path / "bin", MINIMUM)
    assert not (tmp_path / "cache").exists()


def test_a_pulumi_of_the_user_that_is_too_old_is_left_alone(tmp_path: Path) -> None:
    own_pulumi(tmp_path, "3.100.0")
    own_go(tmp_path)
    found = get(setting(tmp_path))
    assert found.way == "source"
    assert (tmp_path / "bin/pulumi").read_text() == "#!/bin/sh\necho v3.100.0\n"


def test_a_pulumi_without_a_python_language_host_is_not_enough(tmp_path: Path) -> None:
    own_pulumi(tmp_path, "3.272.0", host=False)
    with pytest.raises(NotThisWay, match="no Python language host"):
        get(setting(tmp_path))


def test_the_vendors_installer_comes_second_and_is_asked_once(tmp_path: Path) -> None:
    own_go(tmp_path)
    found = get(setting(tmp_path, reach="", install=INSTALLS))
    assert (found.way, found.version) == ("vendor", (3, 272, 0))
    assert (found.bin / "pulumi").read_text() == "3.272.0"
    assert not (tmp_path / "builds").exists()
    again = get(setting(tmp_path, reach="raise SystemExit('asked again')"))
    assert again == found


def test_a_vendor_install_that_breaks_off_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    broken = INSTALLS + "\nsys.exit('connection reset by peer')"
    with pytest.raises(NotThisWay, match="connection reset by peer"):
        get(setting(tmp_path, reach="", install=broken))
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [".lock"]
    assert ready(setting(tmp_path)) is None


def test_a_vendor_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_pulumi, "REACH_LIMIT_S", 0.2)
    with pytest.raises(NotThisWay, match="the vendor didn't answer within 0 s"):
        get(setting(tmp_path, reach="import time; time.sleep(600)"))


def test_building_from_source_is_the_last_way_and_leaves_the_checkout_as_it_is(tmp_path: Path) -> None:
    own_go(tmp_path)
    before = (TOOLS / "go.mod").read_bytes(), (TOOLS / "go.sum").read_bytes()
    found = get(setting(tmp_path))
    assert (found.way, found.version) == ("source", BUILT)
    assert sorted(path.name for path in found.bin.iterdir()) == [
        "language_host.py",
        "language_program.py",
        "pulumi",
        "pulumi-language-python",
    ]
    assert os.access(found.bin / "pulumi-language-python", os.X_OK)
    assert f"version.Version={dotted(BUILT)}" in (tmp_path / "built-with").read_text()
    assert (tmp_path / "built-in").read_text().startswith(str(tmp_path / "cache"))
    assert ((TOOLS / "go.mod").read_bytes(), (TOOLS / "go.sum").read_bytes()) == before


def test_two_runs_at_once_share_one_build(tmp_path: Path) -> None:
    own_go(tmp_path)
    program = (
        "import sys, pathlib, tools.get_pulumi as g\n"
        "where = pathlib.Path(sys.argv[1])\n"
        "s = g.Setting({'PATH': f'{where}/bin:/usr/bin:/bin', 'HOME': str(where)}, where / 'cache', '',\n"
        "              [sys.executable, '-c', ''], [])\n"
        "print(g.get(s).bin)\n"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], cwd=TOOLS.parent, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    answers = [run.communicate()[0] for run in runs]
    assert len(set(answers)) == 1 and answers[0]
    assert (tmp_path / "builds").read_text() == "once\n"


def test_a_new_language_host_reaches_a_cli_that_is_already_built(tmp_path: Path) -> None:
    own_go(tmp_path)
    found = get(setting(tmp_path))
    (found.bin / "language_host.py").write_text("an older one")
    assert ready(setting(tmp_path)) == found
    assert (found.bin / "language_host.py").read_bytes() == (TOOLS / "language_host.py").read_bytes()


def test_what_this_tool_put_on_path_is_not_taken_for_the_users_own(tmp_path: Path) -> None:
    own_go(tmp_path)
    there = setting(tmp_path)
    found = get(there)
    sourced = Setting(
        {**there.env, "PATH": f"{found.bin}:{there.env['PATH']}"}, there.cache, "", there.reach, there.install
    )
    assert get(sourced).way == "source"


@pytest.mark.parametrize(
    ("go", "complaint"),
    [
        (None, "there is no `go` on PATH; install Go 1.25.11 or later"),
        ("1.22.5", "is 1.22.5, too old; install Go 1.25.11 or later"),
    ],
)
def test_when_no_way_works_the_error_names_all_three_and_what_to_do(
    tmp_path: Path, go: str | None, complaint: str
) -> None:
    if go:
        own_go(tmp_path, go)
    own_pulumi(tmp_path, "3.5.1")
    with pytest.raises(NotThisWay) as raised:
        get(setting(tmp_path, reach="raise SystemExit('the vendor is out of reach')"))
    text = str(raised.value)
    assert re.search(r"1\. the `pulumi` on PATH: .* is 3\.5\.1, older than 3\.200\.0", text)
    assert "2. the vendor's installer: the vendor is out of reach" in text
    assert f"3. building it from source with Go: {complaint}" in text.replace(f"{tmp_path}/bin/go ", "")
    assert "run `make setup` again" in text
    assert "Traceback" not in text


def test_a_build_that_fails_says_so_in_the_compilers_words(tmp_path: Path) -> None:
    own_go(tmp_path, works=False)
    with pytest.raises(NotThisWay, match="no space left on device"):
        get(setting(tmp_path))
    assert ready(setting(tmp_path)) is None


def test_what_a_killed_build_left_is_cleared_away(tmp_path: Path) -> None:
    own_go(tmp_path)
    left = tmp_path / "cache" / dotted(BUILT) / ".source-abandoned"
    (left / "bin").mkdir(parents=True)
    get(setting(tmp_path))
    assert not left.exists()


def test_the_version_built_is_that_of_the_go_module() -> None:
    text = (TOOLS / "go.mod").read_text()
    assert f"github.com/pulumi/pulumi/pkg/v3 v{dotted(BUILT)}" in text
    assert re.search(r"^go (\S+)$", text, re.M)[1] == dotted(GO_MINIMUM)  # type: ignore[index]


@pytest.mark.parametrize(
    ("said", "version"),
    [("v3.272.0", (3, 272, 0)), ("go version go1.26 linux/amd64", (1, 26, 0)), ("dev", None)],
)
def test_a_version_is_read_from_what_a_program_says(said: str, version: tuple[int, int, int] | None) -> None:
    assert parse_version(said) == version


@pytest.mark.engine
def test_the_pulumi_of_this_machine_answers(pulumi_cli: str) -> None:
    found = get(Setting.of_this_machine())
    said = subprocess.run(
        [found.bin / "pulumi", "version"], check=True, capture_output=True, text=True, env=dict(os.environ)
    )
    assert parse_version(said.stdout) == found.version
    assert found.version >= MINIMUM
