"""Clients of HTTP-triggered Azure Functions, plain and durable, asynchronous and synchronous."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from infra_core.runtime import sanitize_url

from ._blocking import T, blocking, run_blocking  # noqa: F401 - T is a name of 0.7
from ._durable import DurableInstance, DurableStatus, read_start
from ._function_answers import json_or_error
from ._function_calls import FunctionClient, RequestOptions, checked_url
from ._function_durable import DurableClient, Instance, WaitOptions, answer_of, complete, json_body

if TYPE_CHECKING:
    import httpx
    from typing_extensions import Self, Unpack

__all__ = [
    "AzureFunctionAsyncClient",
    "AzureFunctionSyncClient",
    "DurableInstance",
    "DurableStatus",
    "RequestOptions",
    "WaitOptions",
    "wait_for_completion",
    "wait_for_completion_async",
]


class AzureFunctionAsyncClient(DurableClient):
    """Calls the functions of one app: key, retries and timeouts set once.

    The key goes into the header `x-functions-key` of requests to the origin of `base_url` only:
    neither an absolute URL of another origin nor a redirect to one takes it along. Requests are
    retried by the rules of `infra_core.http`: a POST is never sent twice unless the first surely
    did not run; when its answer is lost, `OutcomeUnknown` says so, also when the host cut it off
    at 230 seconds.

    Args:
        base_url: Of the app, such as `https://my-app.azurewebsites.net`, without a query.
        api_key: Function, host or master key.
        timeout: Seconds for each step of a request.
        http_client: Client to send through; it is not closed by `close()`. Without one the client
            has its own.
        default_headers: Headers of every request to this app.
        options: What holds for every request that does not say otherwise.
        cold_start_grace: Seconds during which 404 and 503 count as "not started yet" and are tried
            again, until the app has given any other answer. 0 for none: a 404 is an answer.

    Raises:
        ValueError: `base_url` is missing or no usable URL.

    Example:
        ::

            async with AzureFunctionAsyncClient(url, api_key=key) as client:
                answer = await client.post_json("/api/run", json={"batchId": "batch-1"})
    """

    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        data: Any = None,
        content: Any = None,
        options: RequestOptions | None = None,
    ) -> "httpx.Response":
        """Send a request and return a success, read to its end.

        Args:
            method: Any letter case.
            path: Below `base_url`, or an absolute URL.
            headers: Win over the default ones, in any letter case.
            params: Added to the query.
            json: Body, as JSON.
            data: Body, as a form.
            content: Body, as it is.
            options: Timeouts and retries of this call.

        Raises:
            httpx.HTTPStatusError: The last answer is not a success.
            httpx.TransportError: The connection failed.
            OutcomeUnknown: A request that must not run twice went out and its answer was lost,
                or the host gave up waiting for it (502, 504, a page with 500; also an
                `httpx.HTTPStatusError`).
        """
        fields = {"params": params, "json": json, "data": data, "content": content}
        return await self._send(method, path, headers=headers, options=options, **fields)

    async def request_json(self, /, method: str, path: str, **kwargs: Any) -> Any:
        """Send a request and return the JSON of the answer, `{}` when the body is empty.

        Args:
            method: As for `request`, and so are the others.
            path: As for `request`.
            **kwargs: As for `request`.

        Raises:
            ValueError: The answer is not JSON.
        """
        return json_or_error(await self.request(method, path, **kwargs))

    async def get_json(self, /, path: str, **kwargs: Any) -> Any:
        """GET, and return the JSON of the answer."""
        return await self.request_json("GET", path, **kwargs)

    async def post_json(self, /, path: str, *, json: Any, **kwargs: Any) -> Any:
        """POST JSON, and return the JSON of the answer."""
        return await self.request_json("POST", path, json=json, **kwargs)

    async def delete(self, /, path: str, **kwargs: Any) -> None:
        """DELETE; the answer's body is dropped."""
        await self.request("DELETE", path, **kwargs)

    async def start(
        self,
        /,
        path: str,
        *,
        json: Any = None,
        method: str = "POST",
        accept_result: bool = False,
        **kwargs: Any,
    ) -> DurableInstance:
        """Start a durable function and return what is needed to follow it.

        Args:
            path: Of the starter.
            json: Body, as JSON.
            method: Method of the starter.
            accept_result: Take any JSON of a 200 for the output of an orchestration that has
                ended: what `wait_for_completion_or_create_check_status_response` answers when it
                was quick. Without it only a status says that something has ended.
            **kwargs: As for `request`.

        Raises:
            OrchestrationError: The answer is not one of a durable function's starter.
        """
        response = await answer_of(self.request(method, path, json=json, **kwargs))
        what = f"{method} {sanitize_url(self._url(path))}"
        return read_start(response, what=what, accept_result=accept_result)

    async def wait_for_completion(
        self, /, instance: Instance, **options: "Unpack[WaitOptions]"
    ) -> DurableStatus:
        """Wait until a durable instance has ended, and return its last state.

        Args:
            instance: The instance, or its status URL as it was stored (absolute or below
                `base_url`). An `http://` URL of an app on https is asked over https.
            **options: See `WaitOptions`: `timeout`, `poll_interval`, `on_poll`,
                `terminate_on_timeout`, `raise_on_failure`.

        Raises:
            OrchestrationFailedError: It ended as failed, terminated or cancelled.
            OrchestrationTimeoutError: It did not end in time; `.status_url` to go on.
            OrchestrationError: What its status URL answers cannot be read.
            JobNotFoundError: The host does not know it, or no longer.
            httpx.HTTPError: Its state could not be had, several times in a row.
        """
        return await self._follow(instance, complete(options))

    async def start_and_wait(self, /, path: str, **kwargs: Any) -> DurableStatus:
        """Start a durable function and wait until it has ended: `start`, `wait_for_completion`.

        Args:
            path: Of the starter.
            **kwargs: What `start` takes, and `WaitOptions`.
        """
        names = WaitOptions.__annotations__.keys() & kwargs.keys()
        options: Any = {name: kwargs.pop(name) for name in names}
        complete(options)  # or an error, before anything is started
        return await self.wait_for_completion(await self.start(path, **kwargs), **options)

    async def terminate(
        self, instance: Instance, *, reason: str = "terminated by the client"
    ) -> bool:
        """Terminate a durable instance; `False` when it has ended already or is not known."""
        return await self._manage(instance, "terminate", reason=reason)

    async def get_status(self, instance: Instance) -> DurableStatus:
        """Ask for the state of a durable instance, once.

        Raises:
            JobNotFoundError: The host does not know it, or no longer.
            OrchestrationError: What its status URL answers cannot be read.
        """
        return await self._status(self._instance(instance))

    async def raise_event(self, instance: Instance, name: str, data: Any = None) -> bool:
        """Send an event to a durable instance; `False` when it has ended already.

        It is sent once: `OutcomeUnknown` when the answer is lost, as for every POST.

        Args:
            instance: The instance, or its status URL.
            name: What the orchestrator waits for.
            data: JSON types.

        Raises:
            JobNotFoundError: The host does not know the instance.
            ValueError: `name` is empty.
        """
        return await self._manage(instance, "raiseEvent", name=name, data=data)

    async def suspend(self, instance: Instance, *, reason: str = "suspended by the client") -> bool:
        """Have a durable instance pause; `False` when it has ended already.

        Raises:
            JobNotFoundError: The host does not know it.
        """
        return await self._manage(instance, "suspend", reason=reason)

    async def resume(self, instance: Instance, *, reason: str = "resumed by the client") -> bool:
        """Have a suspended instance go on; `False` when it has ended already.

        Raises:
            JobNotFoundError: The host does not know it.
        """
        return await self._manage(instance, "resume", reason=reason)

    async def rewind(self, instance: Instance, *, reason: str = "rewound by the client") -> bool:
        """Have a failed instance do again what failed; `False` when it did not fail.

        Raises:
            JobNotFoundError: The host does not know it.
        """
        return await self._manage(instance, "rewind", reason=reason)

    async def purge(self, instance: Instance) -> bool:
        """Delete the history of an instance that has ended; `False` when there was none."""
        return await self._manage(instance, "purge")

    async def read_entity(self, name: str, key: str, *, system_key: str | None = None) -> Any:
        """Return the state of a durable entity.

        Args:
            name: Name of the entity's function.
            key: Key of the entity.
            system_key: The app's system key of the extension `durabletask_extension`, where the
                client's own key is not that one or the master key.

        Raises:
            JobNotFoundError: The app has no entity of that name and key.
        """
        return await self._entity("GET", name, key, system_key)

    async def signal_entity(
        self,
        name: str,
        key: str,
        operation: str,
        data: Any = None,
        *,
        system_key: str | None = None,
    ) -> None:
        """Send a durable entity a signal, once; it makes the entity where there is none.

        Args:
            name: As for `read_entity`.
            key: As for `read_entity`.
            operation: What it is to do.
            data: JSON types.
            system_key: As for `read_entity`.

        Raises:
            OutcomeUnknown: The answer was lost.
        """
        params = {"op": operation}
        await self._entity("POST", name, key, system_key, params=params, **json_body(data))

    async def close(self) -> None:
        """Close the HTTP client, if it is this one's own."""
        if self._own is not None:
            await self._own.close()

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AzureFunctionSyncClient(FunctionClient):
    """`AzureFunctionAsyncClient` for synchronous code: the same settings, methods and errors.

    All clients of a process run on the one background event loop, which ends with the process;
    connections are kept between calls. Within a running event loop (a notebook, an async view)
    its methods work as well, and block that loop meanwhile.

    Example:
        ::

            with AzureFunctionSyncClient(url, api_key=key) as client:
                status = client.start_and_wait("/api/run", json={"batchId": "batch-1"})
    """

    @property
    def _async_client(self) -> AzureFunctionAsyncClient:
        client = AzureFunctionAsyncClient.__new__(AzureFunctionAsyncClient)
        client.__dict__ = self.__dict__  # one set of settings and connections
        return client

    @blocking(AzureFunctionAsyncClient.request, "_async_client")
    def request(self, *args: Any, **kwargs: Any) -> Any:
        """See `AzureFunctionAsyncClient.request`."""

    @blocking(AzureFunctionAsyncClient.request_json, "_async_client")
    def request_json(self, *args: Any, **kwargs: Any) -> Any:
        """See `AzureFunctionAsyncClient.request_json`."""

    @blocking(AzureFunctionAsyncClient.get_json, "_async_client")
    def get_json(self, *args: Any, **kwargs: Any) -> Any:
        """See `AzureFunctionAsyncClient.get_json`."""

    @blocking(AzureFunctionAsyncClient.post_json, "_async_client")
    def post_json(self, *args: Any, **kwargs: Any) -> Any:
        """See `AzureFunctionAsyncClient.post_json`."""

    @blocking(AzureFunctionAsyncClient.delete, "_async_client")
    def delete(self, *args: Any, **kwargs: Any) -> Any:
        """See `AzureFunctionAsyncClient.delete`."""

    @blocking(AzureFunctionAsyncClient.start, "_async_client")
    def start(self, *args: Any, **kwargs: Any) -> Any:
        """See `AzureFunctionAsyncClient.start`."""

    @blocking(AzureFunctionAsyncClient.wait_for_completion, "_async_client")
    def wait_for_completion(self, *args: Any, **kwargs: Any) -> Any:
        """See `AzureFunctionAsyncClient.wait_for_completion`."""

    @blocking(AzureFunctionAsyncClient.start_and_wait, "_async_client")
    def start_and_wait(self, *args: Any, **kwargs: Any) -> Any:
        """See `AzureFunctionAsyncClient.start_and_wait`."""

    @blocking(AzureFunctionAsyncClient.terminate, "_async_client")
    def terminate(self, *args: Any, **kwargs: Any) -> Any:
        """See `AzureFunctionAsyncClient.terminate`."""

    @blocking(AzureFunctionAsyncClient.get_status, "_async_client")
    def get_status(self, *args: Any, **kwargs: Any) -> Any:
        """See `AzureFunctionAsyncClient.get_status`."""

    @blocking(AzureFunctionAsyncClient.raise_event, "_async_client")
    def raise_event(self, *args: Any, **kwargs: Any) -> Any:
        """See `AzureFunctionAsyncClient.raise_event`."""

    @blocking(AzureFunctionAsyncClient.suspend, "_async_client")
    def suspend(self, *args: Any, **kwargs: Any) -> Any:
        """See `AzureFunctionAsyncClient.suspend`."""

    @blocking(AzureFunctionAsyncClient.resume, "_async_client")
    def resume(self, *args: Any, **kwargs: Any) -> Any:
        """See `AzureFunctionAsyncClient.resume`."""

    @blocking(AzureFunctionAsyncClient.rewind, "_async_client")
    def rewind(self, *args: Any, **kwargs: Any) -> Any:
        """See `AzureFunctionAsyncClient.rewind`."""

    @blocking(AzureFunctionAsyncClient.purge, "_async_client")
    def purge(self, *args: Any, **kwargs: Any) -> Any:
        """See `AzureFunctionAsyncClient.purge`."""

    @blocking(AzureFunctionAsyncClient.read_entity, "_async_client")
    def read_entity(self, *args: Any, **kwargs: Any) -> Any:
        """See `AzureFunctionAsyncClient.read_entity`."""

    @blocking(AzureFunctionAsyncClient.signal_entity, "_async_client")
    def signal_entity(self, *args: Any, **kwargs: Any) -> Any:
        """See `AzureFunctionAsyncClient.signal_entity`."""

    @blocking(AzureFunctionAsyncClient.close, "_async_client")
    def close(self, *args: Any, **kwargs: Any) -> Any:
        """See `AzureFunctionAsyncClient.close`."""

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def wait_for_completion_async(
    status_url: str, *, request_timeout: float = 30.0, **options: "Unpack[WaitOptions]"
) -> DurableStatus:
    """Wait for a durable instance from its stored status URL, without a client of its app.

    Args:
        status_url: `statusQueryGetUri`, with its key.
        request_timeout: Seconds for each step of one request.
        **options: See `WaitOptions`.

    Raises:
        OrchestrationFailedError: It ended without success.
        OrchestrationTimeoutError: It did not end in time.
        JobNotFoundError: The host does not know it.
        ValueError: `status_url` is not an absolute URL.
    """
    plain = status_url.partition("?")[0] if isinstance(status_url, str) else status_url
    base_url = checked_url(plain, "status_url")
    async with AzureFunctionAsyncClient(base_url, timeout=request_timeout) as client:
        return await client.wait_for_completion(status_url, **options)


def wait_for_completion(status_url: str, **kwargs: Any) -> DurableStatus:
    """Do what `wait_for_completion_async` does, from synchronous code.

    Args:
        status_url: As there.
        **kwargs: As there.
    """
    return run_blocking(
        lambda: wait_for_completion_async(status_url, **kwargs), "wait_for_completion()"
    )
