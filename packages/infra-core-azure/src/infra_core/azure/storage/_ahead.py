"""A listing that is asked for while the engine is imported, which takes as long as the answer.

Beside the engine, since it is aiohttp that takes the time: over `http.client`, in a thread, once.
Whatever goes wrong is left to the request that would have been sent without it.
"""

import asyncio
import threading
from concurrent.futures import Future
from contextlib import suppress
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import urlsplit

from infra_core.runtime import clock

from ._service import BlobService, Request, Response, is_of_service

__all__ = ["Ahead"]

_PATIENCE = 5.0  # seconds; a service that is slower is asked again


class Ahead:
    """A request that is on its way, whose answer the next one of the service takes if it is it.

    Through no proxy, and with no token, which may have to be fetched.
    """

    def __init__(self, service: BlobService, request: Request) -> None:
        self._request = request
        self._answer: Future[Response | None] = Future()
        connection = None if service.config.uses_credential else _connection_to(service)
        if connection is None:
            self._answer.set_result(None)
            return
        threading.Thread(
            target=self._ask, args=(service, connection), name="infra-core-ahead", daemon=True
        ).start()

    def _ask(self, service: BlobService, connection: HTTPConnection) -> None:
        answer = None
        with suppress(Exception):
            sent: dict[str, str] = {}
            asked = asyncio.run(service.prepare(self._request, sent))
            connection.request(self._request.method, asked, headers=sent)
            response = connection.getresponse()
            body = response.read()
            headers = {name.lower(): value for name, value in response.getheaders()}
            if response.status == 200 and is_of_service(headers):
                answer = Response(200, headers, body)
        connection.close()
        with suppress(Exception):  # it may be cancelled, no caller waits for it then
            self._answer.set_result(answer)

    async def answer(self, request: Request) -> Response | None:
        """The answer to a request, `None` where it is another one or there is no good answer."""
        if request != self._request:
            return None
        with suppress(TimeoutError):
            async with clock.timeout(_PATIENCE):
                return await asyncio.wrap_future(self._answer)
        return None


def _connection_to(service: BlobService) -> HTTPConnection | None:
    """A connection that is not open yet, `None` where the engine would do it otherwise."""
    from infra_core.http.engine import NetworkSettings, trust

    url = urlsplit(service.config.endpoint)
    settings = NetworkSettings.read()
    if settings.has_proxies or url.hostname is None:
        return None
    if url.scheme != "https":
        return HTTPConnection(url.hostname, url.port, timeout=_PATIENCE)
    try:
        context = trust(settings)
    except OSError:
        return None
    return HTTPSConnection(url.hostname, url.port, timeout=_PATIENCE, context=context)
