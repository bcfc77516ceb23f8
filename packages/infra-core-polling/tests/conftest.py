"""Fixtures that all polling tests share."""

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from infra_core.polling import _run
from infra_core.runtime.testing import FastTime, fast_time


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Iterator[FastTime]:
    """Waits return at once and are recorded; a last check may be slow."""
    monkeypatch.setattr(_run, "LAST_CHECK_GRACE", 20)
    with fast_time() as fake:
        yield fake


Drive = Callable[..., Coroutine[Any, Any, Any]]


@pytest.fixture(params=["sync", "async"])
def poll(request: pytest.FixtureRequest) -> Drive:
    """`poll_until` and `poll_until_async` behind one signature: they must not differ."""
    import asyncio

    from infra_core.polling import poll_until, poll_until_async

    async def drive(fetch: Callable[[], Any], *args: Any, **options: Any) -> Any:
        if request.param == "sync":
            return await asyncio.to_thread(poll_until, fetch, *args, **options)
        return await poll_until_async(fetch, *args, **options)

    return drive


class Script:
    """A fetch that plays a list: values are returned, exceptions raised, the last one repeats."""

    def __init__(self, *answers: object) -> None:
        self.answers = answers
        self.calls = 0

    def __call__(self) -> Any:
        answer = self.answers[min(self.calls, len(self.answers) - 1)]
        self.calls += 1
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.fixture
def script() -> type[Script]:
    """The class `Script`, for tests to make fetches with."""
    return Script


class HttpError(Exception):
    """Has the shape of httpx.HTTPStatusError and requests.HTTPError."""

    def __init__(self, status: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"HTTP {status}")
        self.response = type("Response", (), {"status_code": status, "headers": headers or {}})()


@pytest.fixture
def http_error() -> type[HttpError]:
    """The class `HttpError`."""
    return HttpError
