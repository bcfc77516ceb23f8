"""What all tests share: a run without a test fails, and a stand-in for Windows on Linux.

A test marked `as_windows` runs a second time on the stand-in, which refuses what Windows refuses.
One marked `posix` is about what Windows does not have: it runs neither there nor on the stand-in.
With `--as-windows` all others run on the stand-in alone.
"""

import asyncio
import errno
import importlib
import importlib.util
import os
import pathlib
import re
import signal
import struct
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(  # machines may be busy
    "infra-core", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("infra-core")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what this file reads."""
    parser.addoption("--as-windows", action="store_true", help="run on what stands in for Windows")
    parser.addoption("--uvloop", action="store_true", help="run on event loops of uvloop")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the event loop; hear Ctrl-C; pass over what 3.10 leaves open until it is collected.

    Its http.client the answer of a proxy that refuses a tunnel, its asyncio the transport of a
    handshake that failed.
    """
    # Below nohup, behind a shell's `&` and in some CI systems it is ignored, and children inherit.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--uvloop"):
        uvloop = importlib.import_module("uvloop")
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    if sys.version_info < (3, 11):
        for what in (r"<socket.socket \[closed\]", "transport <asyncio.sslproto._SSLProtocol"):
            config.addinivalue_line("filterwarnings", f"ignore:unclosed {what}:ResourceWarning")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Let a run fail in which every test was skipped: it has tested nothing."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(session.config, "workerinput"):
        return
    ran = any(reporter.stats.get(kind) for kind in ("passed", "failed", "error", "xfailed"))
    if exitstatus == pytest.ExitCode.OK and not ran and not session.config.option.collectonly:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the journals of storage clients out of the home folder, those of processes included."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked `as_windows` on this system and on the stand-in."""
    marked = metafunc.definition.get_closest_marker("as_windows") is not None
    marked = marked and not metafunc.config.option.as_windows
    # Hypothesis refuses fixtures that are set up once for all examples. One Python is enough, and
    # it is that of the tools.
    here = sys.platform == "linux" and sys.version_info[:2] == (3, 11)
    if marked and here and not hasattr(metafunc.function, "hypothesis"):
        metafunc.parametrize("system", ["posix", "windows"], indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out on Windows what it does not have."""
    items[:] = [item for item in items if not (_is_posix(item) and _on_windows(item))]


def _is_posix(item: pytest.Item) -> bool:
    return item.get_closest_marker("posix") is not None


def _on_windows(item: pytest.Item) -> bool:
    call = getattr(item, "callspec", None)
    stands_in = call is not None and call.params.get("system") == "windows"
    return os.name == "nt" or stands_in or item.config.option.as_windows


@pytest.fixture(autouse=True)
def system(request: pytest.FixtureRequest) -> None:
    """The system that the packages run on: this one, or what stands in for Windows."""
    if getattr(request, "param", "") == "windows" or request.config.option.as_windows:
        _stand_in(request.getfixturevalue("monkeypatch"))


# What `os` and `signal` have on Linux alone, as far as anybody might use it.
_POSIX_ONLY = re.compile(
    r"fork(pty)?|fchmod|f?chown|lchown|get(e?[ug]id|pgid|sid|groups|loadavg)|set(e?[ug]id|sid)"
    r"|killpg|uname|sysconf|statvfs|p(read|write)v?|posix_\w+|register_at_fork|sched_\w+|\w+xattr"
    r"|mkfifo|mknod|sync|fdatasync|waitid|W[A-Z]+|nice|pipe2|sendfile|lockf|POSIX_\w+"
    r"|O_(NOFOLLOW|CLOEXEC|DIRECTORY|NONBLOCK|SYNC|DSYNC|TMPFILE|NOATIME|PATH)"
    r"|SIG(KILL|HUP|USR\d|ALRM|STOP|CHLD|PIPE|QUIT)|alarm|setitimer|pthread_\w+"
)
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_REFUSED_NAME = re.compile(
    r'.*[<>:"|?*\x00-\x1f].*|.*[. ]|(con|prn|aux|nul|(com|lpt)\d)(\..*)?', re.IGNORECASE | re.DOTALL
)


class _Lacking(types.ModuleType):
    """A module as Windows has it."""

    def __init__(self, module: types.ModuleType, **values: object) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(values, _module=module)

    def __getattr__(self, name: str) -> Any:
        if _POSIX_ONLY.fullmatch(name):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} on Windows")
        return getattr(self._module, name)


def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the packages' modules run as on Windows, and the files be as they are there.

    What the standard library does with its own `os` is left alone, except that a file with an open
    handle cannot be renamed, replaced or removed: Python opens none with FILE_SHARE_DELETE.
    """
    import ctypes
    import signal

    for name in ("rename", "replace", "unlink", "remove"):
        refuse = _refusing(name, getattr(os, name))
        monkeypatch.setattr(os, name, refuse)
        if accessor := getattr(pathlib, "_normal_accessor", None):  # 3.10 has its own names of them
            monkeypatch.setattr(accessor, name, refuse, raising=False)
    monkeypatch.setattr(ctypes, "WinDLL", _kernel32, raising=False)
    monkeypatch.setattr(ctypes, "get_last_error", lambda: 87, raising=False)
    changed: dict[object, object] = {
        os: _Lacking(os, name="nt", O_BINARY=0, kill=_no_kill),
        sys: _Lacking(sys, platform="win32"),
        signal: _Lacking(signal),
        **_locks_of_windows(monkeypatch),
    }
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("infra_core."):
            for name, value in list(vars(module).items()):
                if isinstance(value, (types.ModuleType, types.FunctionType)) and value in changed:
                    monkeypatch.setattr(module, name, changed[value])


def _refusing(name: str, real: Callable[..., None]) -> Callable[..., None]:
    def call(path: Any, *others: Any, **options: Any) -> None:
        for used in (path, *others):
            if not isinstance(used, int) and _is_open(used):
                raise _in_use(used)
        for target in others:
            if _REFUSED_NAME.fullmatch(pathlib.PurePath(os.fsdecode(target)).name):
                raise OSError(errno.EINVAL, "The filename is incorrect", os.fspath(target))
            if name == "rename" and os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        real(path, *others, **options)

    return call


def _is_open(path: Any) -> bool:
    try:
        wanted = os.lstat(path)
    except OSError:
        return False
    for number in pathlib.Path("/proc/self/fd").iterdir():
        try:
            if os.path.samestat(os.fstat(int(number.name)), wanted):
                return True
        except OSError:  # that of the listing
            continue
    return False


def _in_use(path: Any) -> PermissionError:
    error = PermissionError(errno.EACCES, "The file is used by another process", os.fspath(path))
    error.winerror = 32  # type: ignore[attr-defined,unused-ignore]
    return error


def _kernel32(name: str, **options: bool) -> types.SimpleNamespace:
    """What Windows says of processes, from what Linux says."""

    def fields(pid: int) -> list[str]:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()

    def open_process(access: int, inherit: bool, pid: int) -> int:
        return pid if pathlib.Path(f"/proc/{pid}").exists() else 0

    def exit_code(process: Any, code: Any) -> bool:
        code._obj.value = 1 if fields(process.value)[0] in "ZXx" else 259
        return True

    def times(process: Any, began: Any, *others: Any) -> bool:
        began._obj.value = int(fields(process.value)[19])
        return True

    return types.SimpleNamespace(
        OpenProcess=open_process,
        GetExitCodeProcess=exit_code,
        GetProcessTimes=times,
        CloseHandle=lambda process: True,
    )


def _no_kill(pid: int, number: int) -> None:
    raise AssertionError(f"os.kill({pid}, {number}) ends the process on Windows")


def _locks_of_windows(monkeypatch: pytest.MonkeyPatch) -> dict[object, object]:
    """Import the module of locks once more, as on Windows, with locks on bytes of open files."""
    import fcntl

    from infra_core.fs import _locks

    fake = types.ModuleType("msvcrt")
    fake.LK_UNLCK, fake.LK_LOCK, fake.LK_NBLCK = 0, 1, 2  # type: ignore[attr-defined]

    def locking(fd: int, mode: int, count: int) -> None:
        kind = fcntl.F_WRLCK if mode else fcntl.F_UNLCK
        start = os.lseek(fd, 0, os.SEEK_CUR)
        lock = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, count, 0)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
        except BlockingIOError:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None

    fake.locking = locking  # type: ignore[attr-defined]
    spec = importlib.util.find_spec(_locks.__name__)
    assert spec is not None and spec.loader is not None  # noqa: S101
    theirs = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "msvcrt", fake)
        patch.setattr(sys, "platform", "win32")
        spec.loader.exec_module(theirs)
    names = ("lock_descriptor", "unlock_descriptor")
    return {getattr(_locks, name): getattr(theirs, name) for name in names}
