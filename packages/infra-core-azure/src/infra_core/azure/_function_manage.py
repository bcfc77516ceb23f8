"""What durable functions and entities are asked for: methods of the client of an app."""

from collections.abc import Awaitable, Callable
from json import dumps
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from infra_core.runtime import sanitize_url

from ._checks import type_name
from ._durable import (
    DurableInstance,
    DurableStatus,
    failure_of,
    json_of,
    management_url,
    read_start,
    secure_url,
)
from ._function_answers import beginning_of, is_page, json_or_error
from ._function_calls import FunctionClient, RequestOptions
from ._function_durable import COLD, WaitOptions, answer_of, ask, complete, known, wait
from .exceptions import OrchestrationError

if TYPE_CHECKING:
    import httpx
    from typing_extensions import Unpack

__all__ = ["DurableManagement"]

Instance: TypeAlias = DurableInstance | str
# Asking for these twice does no harm; those that end an instance take an unknown one for ended.
_ENDING = frozenset({"terminate", "purge"})
_HARMLESS = _ENDING | {"suspend", "resume"}
_JSON = {"Content-Type": "application/json"}  # which the host wants also for nothing
_ENTITIES = "/runtime/webhooks/durabletask/entities"


class DurableManagement(FunctionClient):
    """The methods of `AzureFunctionAsyncClient` for durable functions.

    An instance is given as `start` returned it, or as its status URL.
    Source: Microsoft, "HTTP API reference" of Durable Functions.
    """

    request: "Callable[..., Awaitable[httpx.Response]]"

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
        options = complete(options)
        # What start() gave may not be known to its host yet; what was stored must be.
        new, instance = isinstance(instance, DurableInstance), self._instance(instance)
        url = instance.status_url
        if url is None:
            status = _finished(instance)
        else:
            status = await wait(self, instance, options, new=new)
        if options["raise_on_failure"] and status.failed:
            raise failure_of(status, url, self._api_key)
        return status

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
        instance = self._instance(instance)
        if instance.status_url is None:
            return _finished(instance)
        url = secure_url(instance.status_url, self._base_url)
        with known(url):
            return await ask(self, url)

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
        body = dumps(data).encode()
        return await self._manage(instance, "raiseEvent", name=name, content=body, headers=_JSON)

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
        body, params = dumps(data).encode(), {"op": operation}
        await self._entity(
            "POST", name, key, system_key, params=params, content=body, headers=_JSON
        )

    async def _manage(
        self, instance: Instance, verb: str, *, name: str = "", reason: str = "", **request: Any
    ) -> bool:
        """Ask an instance for something; see `management_url` for what.

        Returns:
            False when it is over, so that this is not possible any more.
        """
        import httpx

        instance = self._instance(instance)
        for what, text in (("reason", reason), ("name", name)):
            if not isinstance(text, str):
                raise TypeError(f"{what}={text!r:.80} is not text: pass str() of it")
        if verb == "raiseEvent" and name.strip() in ("", ".", ".."):  # of a path: where it is
            raise ValueError(
                f"name={name!r:.80} names no event: pass the name that the orchestrator waits for"
            )
        url = management_url(instance, verb, name=name, reason=reason)
        if url is None:
            _finished(instance)  # or an error: there is nothing to ask
            return False
        method = "DELETE" if verb == "purge" else "POST"
        if verb in _HARMLESS:
            request["options"] = RequestOptions(idempotent=True)
        url = secure_url(url, self._base_url)
        with known(url):
            try:
                answer = await self._command(method, url, **request)
            except httpx.HTTPStatusError as error:
                status = error.response.status_code
                # The host answers 500 to the rewinding of what runs.
                runs = verb == "rewind" and "only supported on failed" in error.response.text
                if status == 410 or runs or (status == 404 and verb in _ENDING):
                    return False
                raise
        deleted = json_of(answer) if verb == "purge" else None
        return not (isinstance(deleted, dict) and deleted.get("instancesDeleted") == 0)

    async def _entity(
        self, method: str, name: str, key: str, system_key: str | None, **request: Any
    ) -> Any:
        for what, text in (("name", name), ("key", key)):
            if not isinstance(text, str) or text in ("", ".", "..") or set(text) & set("/\\#?"):
                raise ValueError(
                    f"{what}={text!r:.80} names no entity: pass text without / \\ # ?, as Durable "
                    "Functions wants it"
                )
        path = f"{_ENTITIES}/{quote(name, safe='')}/{quote(key, safe='')}"
        params = {**request.pop("params", {}), **({"code": system_key} if system_key else {})}
        otherwise = (
            f"the app has no entity {name!r} with the key {key!r}, or no durable functions; check "
            "the name, the key and the base URL"
        )
        with known(self._url(path), otherwise):
            return json_or_error(await self._command(method, path, params=params, **request))

    async def _command(self, method: str, path: str, **request: Any) -> "httpx.Response":
        """Send a request of the durable extension, and return what the extension answers.

        Raises:
            OrchestrationError: A sign-in page answers, or a redirect has made a GET of the request.
        """
        response = await self._send(method, path, cold=COLD, **request)
        if response.request.method != method or is_page(response):
            raise OrchestrationError(
                f"{method} {sanitize_url(self._url(path))} has done nothing: "
                f"{sanitize_url(str(response.url))} answered {beginning_of(response)}; check that "
                "no proxy or sign-in page answers in its place, and that the URL is https://"
            )
        return response

    def _instance(self, instance: Instance) -> DurableInstance:
        if isinstance(instance, str) and instance.strip():
            return DurableInstance(status_url=self._url(instance))
        if isinstance(instance, DurableInstance):
            return instance
        what = "empty" if isinstance(instance, str) else type_name(instance)
        raise TypeError(
            f"instance is {what}: pass the DurableInstance that start() returned, or its status "
            "URL as text"
        )


def _finished(instance: DurableInstance) -> DurableStatus:
    """The end of an instance without a status URL, as its starter answered it.

    Raises:
        OrchestrationError: The starter answered no end either.
    """
    if instance.finished is None:
        raise OrchestrationError(
            "the instance has no status URL; pass the DurableInstance that start() returned, or "
            "its status URL as text"
        )
    return instance.finished
