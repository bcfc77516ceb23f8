"""Which failed HTTP calls are worth another try, with the libraries' own exceptions."""

import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from infra_core.runtime import (
    is_permanent_transport_error,
    should_retry_http_exception,
    should_retry_requests_exception,
)

# This package needs neither library; where they are not installed there is nothing to judge.
pytest.importorskip("httpx")
pytest.importorskip("requests")

import httpx
import requests
import urllib3.exceptions

RETRYABLE = (429, 500, 503)
REQUEST = httpx.Request("GET", "https://a.example/")


def http(exc: BaseException, predicate: Callable[[Exception], bool] = lambda exc: True) -> bool:
    return should_retry_http_exception(
        exc, retryable_statuses=RETRYABLE, transport_predicate=predicate
    )


def plain(exc: BaseException, predicate: Callable[[Exception], bool] = lambda exc: True) -> bool:
    return should_retry_requests_exception(
        exc, retryable_statuses=RETRYABLE, transport_predicate=predicate
    )


def never(exc: Exception) -> bool:
    raise AssertionError(f"the predicate must not be asked about {exc!r}")


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def httpx_status(code: int) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("x", request=REQUEST, response=httpx.Response(code))


def requests_status(code: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = code
    return requests.HTTPError("x", response=response)


@pytest.mark.parametrize(
    ("code", "expected"), [(429, True), (503, True), (404, False), (401, False), (501, False)]
)
def test_a_status_is_retried_when_it_is_listed(code: int, expected: bool) -> None:
    """4xx and everything that is not listed come through."""
    assert http(httpx_status(code), never) is expected
    assert plain(requests_status(code), never) is expected


def test_statuses_may_be_any_iterable() -> None:
    """A generator does as well."""
    assert should_retry_http_exception(
        httpx_status(503), retryable_statuses=iter([503]), transport_predicate=never
    )


@pytest.mark.parametrize(
    "error", [httpx.ReadTimeout("t"), httpx.ConnectTimeout("t"), httpx.PoolTimeout("t")]
)
def test_timeouts_of_httpx_are_retried(error: Exception) -> None:
    """Without asking the predicate, as in 0.7."""
    assert http(error, never)


@pytest.mark.parametrize(
    "error", [requests.Timeout("t"), requests.ReadTimeout("t"), requests.ConnectTimeout("t")]
)
def test_timeouts_of_requests_are_retried(error: Exception) -> None:
    """Without asking the predicate, as in 0.7."""
    assert plain(error, never)


@pytest.mark.parametrize("verdict", [True, False])
def test_a_lost_connection_is_the_predicates_decision(verdict: bool) -> None:
    """Resets, broken reads and half-finished bodies."""
    for error in (httpx.ReadError("reset"), httpx.RemoteProtocolError("cut")):
        assert http(error, lambda exc: verdict) is verdict
    for failure in (
        requests.ConnectionError("reset"),
        requests.exceptions.ChunkedEncodingError("cut"),
        requests.HTTPError("without a response"),
    ):
        assert plain(failure, lambda exc: verdict) is verdict


def max_retries_error(reason: Exception) -> urllib3.exceptions.MaxRetryError:
    return urllib3.exceptions.MaxRetryError(None, "/", reason)  # type: ignore[arg-type]


DNS = socket.gaierror(-2, "Name or service not known")
TLS = ssl.SSLCertVerificationError(1, "certificate verify failed")


@pytest.mark.parametrize(
    "error",
    [
        caused(httpx.ConnectError("x"), DNS),
        caused(httpx.ConnectError("x"), caused(OSError("wrapped"), DNS)),
        httpx.ConnectError("[Errno -2] Name or service not known"),
        httpx.ConnectError("[Errno 11001] getaddrinfo failed"),
        caused(httpx.ConnectError("x"), TLS),
        # in whatever words the system or the TLS library puts it
        caused(httpx.ConnectError("x"), socket.gaierror(socket.EAI_NONAME, "unbekannter Host")),
        caused(httpx.ConnectError("x"), ssl.SSLError(1, "[SSL] unsupported protocol")),
        httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"),
        httpx.InvalidURL("no host"),
        httpx.UnsupportedProtocol("ftp"),
        httpx.TooManyRedirects("20"),
    ],
)
def test_httpx_failures_that_would_fail_alike_are_not_retried(error: Exception) -> None:
    """DNS, TLS, malformed URLs and redirect loops, however deep the cause."""
    assert http(error, never) is False
    assert is_permanent_transport_error(error) is True


@pytest.mark.parametrize(
    "error",
    [
        requests.ConnectionError(
            max_retries_error(urllib3.exceptions.NameResolutionError("h", None, DNS))  # type: ignore[arg-type]
        ),
        requests.exceptions.SSLError(max_retries_error(urllib3.exceptions.SSLError(TLS))),
        requests.exceptions.SSLError("handshake"),
        requests.exceptions.InvalidURL("x"),
        requests.exceptions.MissingSchema("x"),
        requests.exceptions.InvalidSchema("x"),
        requests.exceptions.InvalidHeader("x"),
        requests.exceptions.TooManyRedirects("x"),
    ],
)
def test_requests_failures_that_would_fail_alike_are_not_retried(error: Exception) -> None:
    """The same, through the layers of urllib3."""
    assert not plain(error, never)
    assert is_permanent_transport_error(error)


BUSY = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


@pytest.mark.parametrize(
    "error",
    [
        caused(httpx.ConnectError("x"), BUSY),
        caused(httpx.ConnectError("x"), caused(OSError("wrapped"), BUSY)),
        caused(httpx.ConnectError("x"), socket.gaierror(socket.EAI_AGAIN, "Try again")),
        caused(httpx.ConnectError("x"), socket.gaierror(socket.EAI_MEMORY, "Out of memory")),
        httpx.ConnectError("[Errno -3] Temporary failure in name resolution"),
        requests.ConnectionError(
            max_retries_error(urllib3.exceptions.NameResolutionError("h", None, BUSY))  # type: ignore[arg-type]
        ),
        requests.ConnectionError(
            "Failed to establish: [Errno -3] Temporary failure in name resolution"
        ),
    ],
)
def test_a_name_server_that_cannot_answer_now_is_asked_again(error: Exception) -> None:
    """Unlike one that knows no such name."""
    assert is_permanent_transport_error(error) is False


def test_a_tls_stream_that_the_peer_dropped_is_a_lost_connection() -> None:
    """An EOF in mid-stream is no refused handshake."""
    dropped = ssl.SSLEOFError(8, "EOF occurred in violation of protocol")
    assert http(caused(httpx.ReadError("x"), dropped))
    assert plain(requests.exceptions.SSLError(max_retries_error(dropped)))


@pytest.mark.parametrize(
    "error", [ValueError("x"), OSError("x"), TimeoutError(), KeyboardInterrupt(), SystemExit()]
)
def test_what_is_not_of_the_library_is_not_retried(error: BaseException) -> None:
    """Neither predicate knows what to make of it."""
    assert not http(error, never)
    assert not plain(error, never)


def test_a_real_failed_lookup_is_permanent() -> None:
    """What the two libraries raise for a host that cannot exist (RFC 6761)."""
    with pytest.raises(httpx.ConnectError) as of_httpx:
        httpx.get("http://no-such-host.invalid/", trust_env=False)
    assert not http(of_httpx.value, never)
    session = requests.Session()
    session.trust_env = False
    with session, pytest.raises(requests.ConnectionError) as of_requests:
        session.get("http://no-such-host.invalid/")
    assert not plain(of_requests.value, never)


def test_an_untrusted_certificate_is_permanent() -> None:
    """A handshake against a server whose authority is unknown."""
    trustme = pytest.importorskip("trustme")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    def refuse(listener: socket.socket) -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection, suppress(OSError):  # the client hangs up in mid-handshake
                context.wrap_socket(connection, server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=refuse, args=(listener,))
        server.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(httpx.ConnectError) as of_httpx:
            httpx.get(url, trust_env=False)
        session = requests.Session()
        session.trust_env = False
        with session, pytest.raises(requests.ConnectionError) as of_requests:
            session.get(url)
        server.join()
    assert not http(of_httpx.value, never)
    assert not plain(of_requests.value, never)


def test_a_real_refused_connection_is_not_permanent() -> None:
    """Somebody may listen there soon."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        with pytest.raises(httpx.ConnectError) as of_httpx:
            httpx.get(url, trust_env=False)
        session = requests.Session()
        session.trust_env = False
        with session, pytest.raises(requests.ConnectionError) as of_requests:
            session.get(url)
    assert http(of_httpx.value)
    assert plain(of_requests.value)


def test_circular_causes_come_to_an_end() -> None:
    """An exception that is, in the end, its own cause."""
    one, two = OSError("one"), OSError("two")
    one.__cause__, two.__cause__ = two, one
    assert not is_permanent_transport_error(one)


def test_no_http_library_is_imported() -> None:
    """The classes can only matter when somebody imported the library before."""
    code = (
        "import sys, infra_core.runtime as r\n"
        "for judge in (r.should_retry_http_exception, r.should_retry_requests_exception):\n"
        "    assert not judge(OSError(), retryable_statuses=[], transport_predicate=bool)\n"
        "assert not {'httpx', 'requests', 'urllib3', 'aiohttp', 'ssl'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
