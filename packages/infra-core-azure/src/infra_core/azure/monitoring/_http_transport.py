"""Posts batches to the ingestion endpoint, over the engine of `infra_core.http`.

The sender's thread has an event loop of its own, which runs while a batch is on its way. So
proxies, certificates and name look-ups are those of all other requests, and a request as a whole
has a bound, whatever the server does: an answer that trickles or never ends stops nothing.
"""

import asyncio
import contextlib
import gzip
import zlib
from collections.abc import Sequence
from urllib.parse import SplitResult, urljoin, urlsplit

from infra_core.runtime import clock, error_chain, parse_retry_after

from ._envelope import Item, encode_item
from ._ingestion import Answer

__all__ = ["IngestionTransport"]

_MAX_ANSWER = 1024 * 1024
_MAX_REDIRECTS = 3
_BODY_SECONDS = 5.0
_GZIP_OR_ZLIB = 47  # by its first bytes, which no JSON has
# Hosts of Azure Monitor in the public and sovereign clouds: a redirect elsewhere is not followed.
_TRUSTED = (".azure.com", ".azure.us", ".azure.cn", ".visualstudio.com")
_HEADERS = {
    "Content-Type": "application/json; charset=utf-8",
    "Content-Encoding": "gzip",
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": "infra-core-azure",
}
# Loops of a parent process: closing one in a child would reach into the parent's.
_inherited: list[object] = []


class IngestionTransport:
    """Connections to one endpoint; for one thread at a time.

    Follows 307 and 308 within Azure Monitor, as its stamps answer, and remembers them until
    nothing answers there any more. `timeout` bounds each step of a request: connecting, and each
    wait for bytes; `total` a request as a whole, redirects included.
    """

    def __init__(
        self, url: str, key: str = "", *, timeout: float = 15.0, total: float = 45.0
    ) -> None:
        # Here and not with the first batch: at the end of the interpreter nothing can be imported.
        from infra_core.http.engine import Engine

        self._make_engine = Engine
        self._home = self._url = url
        self._key = key
        self._timeout = timeout
        self._total = total
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine: Engine | None = None

    def encode(self, item: Item) -> bytes:
        """Write an item as an envelope."""
        return encode_item(item, self._key)

    def send(self, items: Sequence[bytes]) -> Answer:
        """Post a batch as a gzipped JSON array."""
        sending = self._post_whole(gzip.compress(b"[" + b",".join(items) + b"]", compresslevel=6))
        try:
            self._loop = self._loop or asyncio.new_event_loop()
            return self._loop.run_until_complete(sending)
        except Exception as error:  # noqa: BLE001 - every failure is one of the network
            self.close()
            self._url = self._home
            cause = next((e for e in error_chain(error) if type(e).__module__ == "builtins"), error)
            return Answer(0, error=type(cause).__name__)
        finally:
            sending.close()  # of no effect, unless it was never begun

    def close(self) -> None:
        """Close the connections; the next batch opens others."""
        engine, self._engine = self._engine, None
        loop, self._loop = self._loop, None
        if loop is not None:
            if engine is not None:
                loop.run_until_complete(engine.aclose())
            loop.close()

    def abandon(self) -> None:
        """Leave the connections to the parent process, whose they are."""
        _inherited.append((self._loop, self._engine))
        self._loop = self._engine = None

    async def _post_whole(self, body: bytes) -> Answer:
        async with clock.timeout(self._total):
            for _ in range(_MAX_REDIRECTS + 1):
                answer, location = await self._post(body)
                if location is None:
                    return answer
                target = urljoin(self._url, location)
                if not _may_follow(urlsplit(self._url), urlsplit(target)):
                    return answer
                self._url = target
            return answer

    async def _post(self, body: bytes) -> tuple[Answer, str | None]:
        if self._engine is None:
            self._engine = self._make_engine()
        response = await self._engine.send(
            "POST", self._url, headers=_HEADERS, timeout=self._timeout, body=body
        )
        content = b""  # of one that does not come whole: the status is there
        with contextlib.suppress(TimeoutError):
            async with clock.timeout(_BODY_SECONDS):
                content = await response.drain(_MAX_ANSWER)
        with contextlib.suppress(zlib.error):  # encoded by a proxy, which was asked not to
            content = zlib.decompressobj(_GZIP_OR_ZLIB).decompress(content, _MAX_ANSWER)
        redirected = response.status in (307, 308)
        location = response.headers.get("Location") if redirected else None
        retry_after = parse_retry_after(dict(response.headers))
        return Answer(response.status, content, retry_after), location


def _may_follow(origin: SplitResult, target: SplitResult) -> bool:
    if target.hostname == origin.hostname and target.scheme in (origin.scheme, "https"):
        return True
    return target.scheme == "https" and (target.hostname or "").endswith(_TRUSTED)
