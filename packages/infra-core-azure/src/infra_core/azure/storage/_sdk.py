"""The SDK's own clients of our container, for what this package does not wrap."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from infra_core.runtime import LoopLocal, after_fork_in_child

from .._blocking import run_blocking
from .._sdk_logs import tidy_sdk_logs
from .._tokens import AsyncSdkCredential, SdkCredential, TokenSource, is_async
from ._blobs import create_container
from ._service import BlobService
from ._settings import TransferOptions

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
        self._made = False
        self._async: LoopLocal[_Held] = LoopLocal(self._make_async, _Held.aclose)
        self._begin()
        after_fork_in_child(self._begin)

    def _begin(self) -> None:
        """Begin without connections: a forked child does not share those of its parent."""
        self._lock = threading.Lock()
        self._held: _Held | None = None

    def sync(self, *, create: bool = True) -> "ContainerClient":
        """The synchronous client; with `create` the container is made first, where we may."""
        if create and not self._made:  # never under the lock, which `close` takes
            run_blocking(lambda: create_container(self._service), "container()")
            self._made = True
        from azure.storage.blob import ContainerClient

        from .._network import sync_transport
        from ._sdk_retry import SdkRetry

        with self._lock:
            if self._held is None:
                self._held = self._make(
                    ContainerClient, SdkRetry, sync_transport, SdkCredential, lambda: None
                )
            client: ContainerClient = self._held.client
            return client

    async def asynchronous(self) -> "AsyncContainerClient":
        """The running loop's client; the container is made first, where we may."""
        if not self._made:
            await create_container(self._service)
            self._made = True
        client: AsyncContainerClient = self._async.get().client
        return client

    def _make_async(self) -> "_Held":
        from azure.storage.blob.aio import ContainerClient

        from .._network import async_transport
        from ._sdk_retry import AsyncSdkRetry

        return self._make(
            ContainerClient, AsyncSdkRetry, async_transport, AsyncSdkCredential, _nothing
        )

    def _make(
        self,
        kind: Any,
        retry: Callable[[TransferOptions], object],
        make_transport: Callable[..., Any],
        make_credential: Callable[[TokenSource], Any],
        nothing: Callable[[], object],
    ) -> "_Held":
        tidy_sdk_logs()
        config, options = self._config, self._config.options
        own, given = None, self._given
        if config.uses_credential and (
            not hasattr(given, "get_token")
            or (is_async(given) and make_credential is SdkCredential)
        ):
            own = make_credential(TokenSource(given))
        credential = config.sas_token or own or given
        if config.account_key is not None:
            credential = {"account_name": config.account_name, "account_key": config.account_key}
        timeouts = {"connection_timeout": options.connect_timeout, "read_timeout": options.timeout}
        transport = make_transport(refused=own and own.refused, **timeouts)
        client = kind(
            config.endpoint,
            config.container,
            credential=credential,
            retry_policy=retry(options),
            transport=transport,
            **timeouts,
        )
        end, transport.close = transport.close, nothing
        return _Held(client, end, own)

    def close(self) -> None:
        """Close the synchronous client and its credential."""
        with self._lock:
            held, self._held = self._held, None
        if held is not None:
            held.end()
            if held.credential is not None:
                held.credential.close()

    async def aclose(self) -> None:
        """Close the running loop's client, those of ended loops, and the synchronous one."""
        await self._async.aclose()
        self.close()


class _Held(NamedTuple):
    """A client, how its connections are closed, and a credential of its own."""

    client: Any
    end: Callable[[], Any]
    credential: Any

    async def aclose(self) -> None:
        """Close those of an asynchronous client."""
        await self.end()
        if self.credential is not None:
            await self.credential.close()


async def _nothing() -> None:
    """In place of the `close` of what the storage client closes."""
