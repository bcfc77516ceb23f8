"""Posts batches to the ingestion endpoint over one kept-alive connection.

`http.client` rather than requests or httpx: a process that sends a handful of events should not
import an HTTP library for it, libraries that patch or trace requests must neither swallow
telemetry nor produce more of it, and one thread with one connection needs no pool.
"""

import gzip
import http.client
import ssl
from collections.abc import Mapping, Sequence
from urllib.parse import SplitResult, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from infra_core.runtime import parse_retry_after

from ._ingestion import Answer

__all__ = ["IngestionTransport"]

_MAX_ANSWER = 1024 * 1024
_MAX_REDIRECTS = 3
# Hosts of Azure Monitor in the public and sovereign clouds: a redirect elsewhere is not followed.
_TRUSTED = (".azure.com", ".azure.us", ".azure.cn", ".visualstudio.com")


class IngestionTransport:
    """A connection to one endpoint; for one thread.

    Honours `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, follows 307 and 308 within Azure Monitor
    and remembers them.

    Args:
        url: The track endpoint.
        timeout: Seconds for connecting, and for each wait for bytes.
    """

    def __init__(self, url: str, *, timeout: float = 15.0) -> None:
        self._url = url
        self._timeout = timeout
        self._connection: http.client.HTTPConnection | None = None

    def send(self, items: Sequence[bytes]) -> Answer:
        """Post a batch as a gzipped JSON array."""
        body = gzip.compress(b"[" + b",".join(items) + b"]", compresslevel=6)
        try:
            for _ in range(_MAX_REDIRECTS + 1):
                answer, location = self._post_again_if_stale(body)
                if location is None:
                    return answer
                target = urljoin(self._url, location)
                if not _may_follow(urlsplit(self._url), urlsplit(target)):
                    return Answer(answer.status)
                self._url = target
                self.close()
            return Answer(answer.status)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            return Answer(0, error=type(error).__name__)

    def close(self) -> None:
        """Close the connection; the next batch opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def abandon(self) -> None:
        """Leave the connection to the parent process, whose it is."""
        self.close()  # only our copy of the descriptor: nothing is said on the wire

    def _post_again_if_stale(self, body: bytes) -> tuple[Answer, str | None]:
        """Post; once more at once when a connection that had been idle turns out to be closed."""
        reused = self._connection is not None
        try:
            return self._post(body)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            self.close()
            if not reused:
                raise
            return self._post(body)

    def _post(self, body: bytes) -> tuple[Answer, str | None]:
        split = urlsplit(self._url)
        if self._connection is None:
            self._connection = _connect(split, self._timeout)
        connection = self._connection
        connection.request(
            "POST",
            _request_target(split, connection),
            body=body,
            headers={
                "Content-Type": "application/json; charset=utf-8",
                "Content-Encoding": "gzip",
                "Accept": "application/json",
                "User-Agent": "infra-core-azure",
            },
        )
        response = connection.getresponse()
        content = response.read(_MAX_ANSWER)
        if response.will_close or not response.isclosed():
            self.close()
        location = response.headers.get("Location") if response.status in {307, 308} else None
        retry_after = parse_retry_after(dict(response.headers))
        return Answer(response.status, content, retry_after), location


def _connect(split: SplitResult, timeout: float) -> http.client.HTTPConnection:
    host = split.hostname or ""
    secure = split.scheme == "https"
    port = split.port or (443 if secure else 80)
    proxy = _proxy_for(split.scheme, host)
    if proxy is None:
        if secure:
            return http.client.HTTPSConnection(host, port, timeout=timeout, context=_ssl_context())
        return http.client.HTTPConnection(host, port, timeout=timeout)
    proxy_host, proxy_port = proxy.hostname or "", proxy.port or 80
    if secure:
        tunnel = http.client.HTTPSConnection(
            proxy_host, proxy_port, timeout=timeout, context=_ssl_context()
        )
        tunnel.set_tunnel(host, port, headers=_proxy_headers(proxy))
        return tunnel
    return http.client.HTTPConnection(proxy_host, proxy_port, timeout=timeout)


def _request_target(split: SplitResult, connection: http.client.HTTPConnection) -> str:
    path = split.path + (f"?{split.query}" if split.query else "")
    direct = connection.host == split.hostname or split.scheme == "https"
    return path if direct else split.geturl()


def _proxy_for(scheme: str, host: str) -> SplitResult | None:
    proxy = getproxies().get(scheme)
    if not proxy or proxy_bypass(host):
        return None
    return urlsplit(proxy if "://" in proxy else f"http://{proxy}")


def _proxy_headers(proxy: SplitResult) -> Mapping[str, str]:
    if not proxy.username:
        return {}
    from base64 import b64encode
    from urllib.parse import unquote

    credentials = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + b64encode(credentials.encode()).decode("ascii")}


def _ssl_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not context.get_ca_certs() and not (paths.cafile or paths.capath):
        try:  # Pythons without a certificate store of their own; azure-core brings certifi
            import certifi

            context.load_verify_locations(certifi.where())
        except (ImportError, OSError):
            pass
    return context


def _may_follow(origin: SplitResult, target: SplitResult) -> bool:
    if target.hostname == origin.hostname and target.scheme == origin.scheme:
        return True
    return target.scheme == "https" and (target.hostname or "").endswith(_TRUSTED)
