"""Following durable functions: the protocol of `_durable`, driven over HTTP and polling."""

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import quote

from infra_core.runtime import redact_secrets, sanitize_url

from ._checks import require_number, type_name
from ._durable import DurableInstance, management_url, read_start, secure_url
from ._durable_status import DurableStatus, failure_of, read_status
from ._function_calls import FunctionCaller, RequestOptions, checked_url
from .exceptions import JobNotFoundError, OrchestrationError, OrchestrationTimeoutError

if TYPE_CHECKING:
    import httpx
    from typing_extensions import Unpack

__all__ = [
    "DurableCaller",
    "WaitOptions",
    "check_wait",
    "wait_for_completion",
    "wait_for_completion_async",
]

_log = logging.getLogger("infra_core.azure.client")

OnPoll = Callable[[DurableStatus], Awaitable[None] | None]

# One question is one request: the poll itself decides about the next, by the body, not the status.
_ASK_ONCE = RequestOptions(max_retries=0, retry_statuses=())
_TIMEOUT, _POLL_INTERVAL = 600.0, 5.0  # seconds
_LONGEST = 86_400  # seconds between two questions; more is a mistake
# Asking for these twice does no harm.
_HARMLESS = frozenset({"terminate", "suspend", "resume", "purge"})
_GONE = (404, 410)
# A 404 of a management URL is an answer about the instance, not that of an app that starts.
_COLD = frozenset({503})
_UNKNOWN_ANSWERS = 3  # 404 in a row after which an instance that was just started is gone
_ENTITIES = "/runtime/webhooks/durabletask/entities"


class WaitOptions(TypedDict, total=False):
    """How to wait for the end of a durable instance: the keyword arguments of every wait.

    Attributes:
        timeout: Seconds until `OrchestrationTimeoutError` (600).
        poll_interval: Seconds between two questions, unless the host's `Retry-After` says
            otherwise (5).
        on_poll: Called with every state.
        terminate_on_timeout: Terminate the instance when the time is up. Without it the
            instance goes on, and can be waited for again.
        raise_on_failure: Raise when it ended without success (default); otherwise its state is
            returned.
    """

    timeout: float
    poll_interval: float
    on_poll: OnPoll | None
    terminate_on_timeout: bool
    raise_on_failure: bool


def check_wait(options: WaitOptions) -> None:
    """Refuse options that no wait has, or that are out of range.

    Raises:
        TypeError: A name is unknown, or a number is none.
        ValueError: A number is out of range.
    """
    for name in options.keys() - WaitOptions.__annotations__.keys():
        raise TypeError(f"waiting got an unexpected keyword argument {name!r}: see WaitOptions")
    require_number("timeout", options.get("timeout", _TIMEOUT), "seconds above 0", above=0)
    allowed = "seconds above 0, up to a day"
    interval = options.get("poll_interval", _POLL_INTERVAL)
    require_number("poll_interval", interval, allowed, above=0, most=_LONGEST)


class DurableCaller:
    """Starts, follows and ends the durable functions of one app."""

    def __init__(self, calls: FunctionCaller) -> None:
        self._calls = calls

    async def start(
        self, path: str, *, method: str, accept_result: bool, **kwargs: Any
    ) -> DurableInstance:
        """Start an instance; see `AzureFunctionAsyncClient.start`."""
        response = await self._calls.send(method, path, **kwargs)
        what = f"{method} {sanitize_url(self._calls.url(path))}"
        return read_start(response, what=what, accept_result=accept_result)

    async def ask(self, url: str) -> DurableStatus:
        """Ask for the state of an instance, once."""
        import httpx

        try:
            response = await self._calls.send("GET", url, options=_ASK_ONCE, cold=_COLD)
        except httpx.HTTPStatusError as error:
            status = read_status(error.response)
            if status is None:
                raise
            return status
        status = read_status(response)
        assert status is not None  # noqa: S101 - read_status raises for a success without a state
        return status

    async def wait(self, instance: "DurableInstance | str", options: WaitOptions) -> DurableStatus:
        """Wait for the end of an instance; see `AzureFunctionAsyncClient.wait_for_completion`."""
        check_wait(options)
        # What start() gave may not be known to its host yet; what was stored must be.
        new = isinstance(instance, DurableInstance)
        instance = self._instance(instance)
        url = instance.status_url
        if url is None:
            status = _finished(instance)
        else:
            url = secure_url(url, self._calls.base_url)
            status = await self._follow(instance, url, options, new=new)
        if options.get("raise_on_failure", True) and status.failed:
            raise failure_of(status, url, self._calls.api_key)
        return status

    async def _follow(
        self, instance: DurableInstance, url: str, options: WaitOptions, *, new: bool
    ) -> DurableStatus:
        import httpx

        from infra_core.polling import PollingTimeoutError, is_transient, poll_until_async

        seen, unknown = False, 0

        async def ask() -> DurableStatus:
            nonlocal seen
            status = await self.ask(url)
            seen = True
            return status

        def passes(error: Exception) -> bool:
            nonlocal unknown
            if isinstance(error, OrchestrationError):  # not readable: a page of some proxy
                return seen
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == 404:
                unknown += 1
                return new and not seen and unknown < _UNKNOWN_ANSWERS
            return is_transient(error)

        timeout = options.get("timeout", _TIMEOUT)
        # The starter's own Retry-After is for the first question.
        first = instance.retry_after or 0.0
        try:
            return await poll_until_async(
                ask,
                lambda state: state.is_terminal,
                timeout=timeout,
                poll_interval=options.get("poll_interval", _POLL_INTERVAL),
                initial_delay=first if first < timeout else 0.0,
                on_poll=options.get("on_poll"),
                is_transient=passes,
                handle_404=False,
                label=sanitize_url(url),
            )
        except PollingTimeoutError as error:
            raise await self._timed_out(instance, url, options, error) from error
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in _GONE:
                raise
            raise _not_found(url, error) from error

    def _instance(self, instance: "DurableInstance | str") -> DurableInstance:
        if isinstance(instance, str) and instance.strip():
            return DurableInstance(status_url=self._calls.url(instance))
        if isinstance(instance, DurableInstance):
            return instance
        what = "empty" if isinstance(instance, str) else type_name(instance)
        raise TypeError(
            f"instance is {what}: pass the DurableInstance that start() returned, or its status "
            "URL as text"
        )

    async def _timed_out(
        self,
        instance: DurableInstance,
        url: str,
        options: WaitOptions,
        error: Any,
    ) -> BaseException:
        import httpx

        last, timeout = error.last_response, options.get("timeout", _TIMEOUT)
        seen = "the host never answered with its state"
        if last is not None:
            seen = f"it is {last.runtime_status}"
        elif isinstance(error.last_error, httpx.HTTPStatusError):
            seen += f" (last answer: {error.last_error.response.status_code})"
        terminated = False
        again = "wait again with wait_for_completion(error.status_url)"
        remedy = f"it goes on; {again}"
        if last is None:
            remedy = f"whether it runs is not known; check the status URL and the app, then {again}"
        if options.get("terminate_on_timeout"):
            try:
                terminated = await self.terminate(instance, f"not done within {timeout:g} s")
            except Exception as failure:  # noqa: BLE001 - the timeout is what the caller must see
                remedy = f"telling it to end failed ({type(failure).__name__}), so it may go on"
                _log.warning(
                    "could not terminate %s: %s: %s; terminate it in the portal if it must end",
                    sanitize_url(url),
                    type(failure).__name__,
                    redact_secrets(str(failure)),
                    extra={"url": sanitize_url(url)},
                )
            else:
                remedy = "it was asked to terminate" if terminated else "it had just ended"
        name = sanitize_url(url) if instance.id is None else f"instance {instance.id!r}"
        return OrchestrationTimeoutError(
            f"{name} was not done within {timeout:g} s: {seen}; {remedy}",
            status_url=url,
            last_status=last,
            terminated=terminated,
        )

    async def terminate(self, instance: "DurableInstance | str", reason: str) -> bool:
        """Terminate an instance; see `AzureFunctionAsyncClient.terminate`."""
        try:
            return await self.manage(instance, "terminate", reason=reason)
        except JobNotFoundError:
            return False

    async def manage(
        self,
        instance: "DurableInstance | str",
        verb: str,
        *,
        name: str = "",
        reason: str = "",
        **request: Any,
    ) -> bool:
        """Ask an instance for something; see `management_url` for what.

        Returns:
            False when it is over, so that this is not possible any more.

        Raises:
            JobNotFoundError: The host does not know it.
            OrchestrationError: It has no URL for this.
            ValueError: An event has no name.
        """
        import httpx

        instance = self._instance(instance)
        for what, text in (("reason", reason), ("name", name)):
            if not isinstance(text, str):
                raise TypeError(f"{what}={text!r:.80} is no text: pass str() of it")
        if verb == "raiseEvent" and not name.strip():
            raise ValueError(
                f"name={name!r:.80} names no event: pass the name that the orchestrator waits for"
            )
        url = management_url(instance, verb, name=name, reason=reason)
        if url is None:
            _finished(instance)  # or an error: there is nothing to ask
            return False
        url = secure_url(url, self._calls.base_url)
        method = "DELETE" if verb == "purge" else "POST"
        options = RequestOptions(idempotent=True) if verb in _HARMLESS else None
        try:
            await self._calls.send(method, url, options=options, cold=_COLD, **request)
        except httpx.HTTPStatusError as error:
            if error.response.status_code == 404:
                raise _not_found(url, error) from error
            if error.response.status_code == 410:
                return False
            raise
        return True

    async def status(self, instance: "DurableInstance | str") -> DurableStatus:
        """Ask for the state of an instance; see `AzureFunctionAsyncClient.get_status`."""
        import httpx

        instance = self._instance(instance)
        if instance.status_url is None:
            return _finished(instance)
        url = secure_url(instance.status_url, self._calls.base_url)
        try:
            return await self.ask(url)
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in _GONE:
                raise
            raise _not_found(url, error) from error

    async def entity(
        self, method: str, name: str, key: str, system_key: str | None, **request: Any
    ) -> Any:
        """Read an entity, or send it a signal; see `AzureFunctionAsyncClient`."""
        import httpx

        for what, text in (("name", name), ("key", key)):
            if not isinstance(text, str) or not text:
                raise ValueError(f"{what}={text!r:.80} names no entity: pass text")
        path = f"{_ENTITIES}/{quote(name, safe='')}/{quote(key, safe='')}"
        params = {**request.pop("params", {}), **({"code": system_key} if system_key else {})}
        try:
            response = await self._calls.send(method, path, params=params, cold=_COLD, **request)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != 404:
                raise
            raise JobNotFoundError(
                f"the app has no entity {name!r} with the key {key!r}, or no durable functions; "
                "check the name, the key and the base URL"
            ) from error
        return self._calls.json_of(response)


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


def _not_found(url: str, error: "httpx.HTTPStatusError") -> JobNotFoundError:
    return JobNotFoundError(
        f"{sanitize_url(url)} answered {error.response.status_code}: the host does not know the "
        "instance; its history may have been purged, or the URL is that of another app or task hub"
    )


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
        ValueError: `status_url` is no absolute URL.
    """
    plain = status_url.partition("?")[0] if isinstance(status_url, str) else status_url
    calls = FunctionCaller(checked_url(plain, "status_url"), timeout=request_timeout)
    try:
        return await DurableCaller(calls).wait(status_url, options)
    finally:
        await calls.close()


def wait_for_completion(status_url: str, **kwargs: Any) -> DurableStatus:
    """Do what `wait_for_completion_async` does, from synchronous code.

    Args:
        status_url: As there.
        **kwargs: As there.
    """
    from ._blocking import run_blocking

    return run_blocking(
        lambda: wait_for_completion_async(status_url, **kwargs), "wait_for_completion()"
    )
