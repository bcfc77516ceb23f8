"""The SDK's own clients of our container, for what this package does not wrap."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from infra_core.runtime import ForkGuard, LoopLocal

from .._blocking import run_blocking
from .._sdk_logs import tidy_sdk_logs
from .._tokens import AsyncSdkCredential, SdkCredential, TokenSource
from ._blobs import create_container
from ._service import BlobService

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient
    from azure.storage.blob.aio import ContainerClient as AsyncContainerClient

__all__ = ["SdkClients"]


class SdkClients:
    """One synchronous client per process and one asynchronous client per event loop.

    The SDK's retries are the only ones on these clients, and they follow our policy. A `with` block
    around one of them closes nothing: others use it as well, the mirror of a run log for one.
    """

    def __init__(self, service: BlobService, credential: Any = None) -> None:
        self._service = service
        self._config = service.config
        self._given = credential
        self._lock = threading.Lock()
        self._fork = ForkGuard()
        self._client: ContainerClient | None = None
        self._transport: Any = None
        self._credential: Any = None
        self._made = False
        self._async: LoopLocal[_AsyncPair] = LoopLocal(self._make_async, _AsyncPair.aclose)

    def sync(self, *, create: bool = True) -> "ContainerClient":
        """The synchronous client; with `create` the container is made first, where we may."""
        if create and not self._made:  # never under the lock, which `close` takes
            run_blocking(lambda: create_container(self._service), "container()")
            self._made = True
        return self._open()

    def _open(self) -> "ContainerClient":
        from azure.storage.blob import ContainerClient

        from .._network import sync_transport
        from ._sdk_retry import SdkRetry

        if self._fork.forked:  # connections are not shared with a forked child
            self._lock, self._client, self._fork = threading.Lock(), None, ForkGuard()
        with self._lock:
            if self._client is None:
                tidy_sdk_logs()
                if self._config.uses_credential and self._given is None:
                    self._credential = SdkCredential(TokenSource())
                arguments = self._arguments(SdkRetry(self._config.options), sync_transport)
                self._transport = arguments["transport"]
                self._transport.end = self._transport.close
                self._transport.close = lambda: None
                self._client = ContainerClient(
                    self._config.endpoint,
                    self._config.container,
                    credential=self._proof(self._given or self._credential),
                    **arguments,
                )
            return self._client

    async def asynchronous(self) -> "AsyncContainerClient":
        """The running loop's client; the container is made first, where we may."""
        if not self._made:
            await create_container(self._service)
            self._made = True
        return self._async.get().client

    def _make_async(self) -> "_AsyncPair":
        from azure.storage.blob.aio import ContainerClient

        from .._network import async_transport
        from ._sdk_retry import AsyncSdkRetry

        tidy_sdk_logs()
        credential = None
        if self._config.uses_credential and self._given is None:
            credential = AsyncSdkCredential(TokenSource())
        arguments = self._arguments(AsyncSdkRetry(self._config.options), async_transport)
        client = ContainerClient(
            self._config.endpoint,
            self._config.container,
            credential=self._proof(self._given or credential),
            **arguments,
        )
        return _AsyncPair(client, arguments["transport"], credential)

    def _proof(self, credential: Any) -> Any:
        if self._config.account_key is not None:
            return {
                "account_name": self._config.account_name,
                "account_key": self._config.account_key,
            }
        return self._config.sas_token or credential

    def _arguments(self, retry: Any, transport: Callable[..., object]) -> dict[str, Any]:
        options = self._config.options
        timeouts = {"connection_timeout": options.connect_timeout, "read_timeout": options.timeout}
        return {"retry_policy": retry, "transport": transport(**timeouts), **timeouts}

    def close(self) -> None:
        """Close the synchronous client and its credential."""
        with self._lock:
            client, self._client = self._client, None
            credential, self._credential = self._credential, None
            if self._fork.forked:
                return
            if client is not None:
                self._transport.end()
            if credential is not None:
                credential.close()

    async def aclose(self) -> None:
        """Close the running loop's client, those of ended loops, and the synchronous one."""
        await self._async.aclose()
        self.close()


class _AsyncPair:
    def __init__(self, client: "AsyncContainerClient", transport: Any, credential: Any) -> None:
        self.client = client
        self._end, transport.close = transport.close, _nothing
        self._credential = credential

    async def aclose(self) -> None:
        await self._end()
        if self._credential is not None:
            await self._credential.close()


async def _nothing() -> None:
    """In place of the `close` of what the storage client closes."""
