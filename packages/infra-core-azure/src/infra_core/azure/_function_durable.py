"""Durable functions over HTTP: the protocol of `_durable`, driven by requests and polling."""

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from json import dumps
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict
from urllib.parse import quote

from infra_core.runtime import clock, redact_secrets, sanitize_url

from ._checks import require_number, type_name
from ._durable import (
    DurableInstance,
    DurableStatus,
    failure_of,
    management_url,
    read_status,
    secure_url,
    state_in,
)
from ._function_answers import beginning_of, is_page, json_of, json_or_error
from ._function_calls import FunctionClient, RequestOptions
from .exceptions import JobNotFoundError, OrchestrationError, OrchestrationTimeoutError

if TYPE_CHECKING:
    import httpx

    from infra_core.polling import PollingTimeoutError

__all__ = [
    "DurableClient", "Instance", "OnPoll", "WaitOptions", "answer_of", "complete", "json_body",
]  # fmt: skip

_log = logging.getLogger("infra_core.azure.client")

Instance: TypeAlias = DurableInstance | str
OnPoll = Callable[[DurableStatus], Awaitable[None] | None]

# One question is one request: the poll itself decides about the next, by the body, not the status.
_ASK_ONCE = RequestOptions(max_retries=0, retry_statuses=())
# A 404 of a management URL is an answer about the instance, not that of an app that starts.
_COLD = frozenset({503})
# Questions that 404 may answer in a row before it counts: of an instance that was just started, and
# for so many seconds; of one that was seen (azure-functions-durable-extension#1346: it ran on).
_NEW_ANSWERS, _NEW_SECONDS, _SEEN_ANSWERS = 2, 10.0, 1
_OUTAGE_SECONDS = 30.0  # of a host that restarts, however often it is asked meanwhile
_PURGED = (
    "the host does not know the instance; its history may have been purged, or the URL is that of "
    "another app or task hub"
)
# Asking for these twice does no harm; those that end an instance take an unknown one for ended.
_ENDING = frozenset({"terminate", "purge"})
_HARMLESS = _ENDING | {"suspend", "resume"}
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


_DEFAULTS = WaitOptions(
    timeout=600, poll_interval=5, on_poll=None, terminate_on_timeout=False, raise_on_failure=True
)


def complete(options: WaitOptions) -> WaitOptions:
    """Return options with the defaults of what they leave out.

    Raises:
        TypeError: A name is unknown, or a number is none.
        ValueError: A number is out of range.
    """
    for name in options.keys() - WaitOptions.__annotations__.keys():
        raise TypeError(f"waiting got an unexpected keyword argument {name!r}: see WaitOptions")
    options = {**_DEFAULTS, **options}
    require_number("timeout", options["timeout"], "seconds above 0", above=0)
    allowed = "seconds above 0, up to a day"
    require_number("poll_interval", options["poll_interval"], allowed, above=0, most=86_400)
    return options


@contextmanager
def known(url: str, otherwise: str = _PURGED) -> Iterator[None]:
    """Take 404 and 410 for the answer of a host that does not know what it is asked about.

    Raises:
        JobNotFoundError: The host answered so; `otherwise` says what that means.
    """
    import httpx

    try:
        yield
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status not in (404, 410):
            raise
        raise JobNotFoundError(f"{sanitize_url(url)} answered {status}: {otherwise}") from error


async def answer_of(request: "Awaitable[httpx.Response]") -> "httpx.Response":
    """Await an answer: a success, or an error that says how an instance is or has ended."""
    import httpx

    try:
        return await request
    except httpx.HTTPStatusError as error:
        if state_in(error.response, json_of(error.response)) is None:
            raise
        return error.response


class DurableClient(FunctionClient):
    """How `AzureFunctionAsyncClient` asks for durable functions.

    Source: Microsoft, "HTTP API reference" of Durable Functions.
    """

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

    async def _ask(self, url: str, **fields: Any) -> DurableStatus:
        """Ask a status URL for the state of its instance, once."""
        asked = self._send("GET", url, options=_ASK_ONCE, cold=_COLD, **fields)
        return read_status(await answer_of(asked))

    async def _status(self, instance: DurableInstance) -> DurableStatus:
        """Ask for the state of an instance, once."""
        if instance.status_url is None:
            return _finished(instance)
        url = secure_url(instance.status_url, self._base_url)
        with known(url):
            return await self._ask(url)

    async def _follow(self, instance: Instance, options: WaitOptions) -> DurableStatus:
        """Wait for the end of an instance, and judge it; `options` are complete."""
        # What start() gave may not be known to its host yet; what was stored must be.
        new, instance = isinstance(instance, DurableInstance), self._instance(instance)
        status = await self._poll(instance, options, new=new)
        if options["raise_on_failure"] and status.failed:
            raise failure_of(status, instance.status_url, self._api_key)
        return status

    async def _poll(
        self, instance: DurableInstance, options: WaitOptions, *, new: bool
    ) -> DurableStatus:
        """Wait for the end of an instance; a `new` one may not be known to its host yet."""
        import httpx

        from infra_core.polling import PollingTimeoutError, is_transient, poll_until_async

        if instance.status_url is None:
            return _finished(instance)
        url = secure_url(instance.status_url, self._base_url)
        seen, missing, began = False, 0, clock.monotonic()

        async def fetch() -> DurableStatus:
            nonlocal seen, missing
            status = await self._ask(url, _log_failure=False)  # the poll does, in a line
            seen, missing = True, 0
            return status

        def passes(error: Exception) -> bool:
            nonlocal missing
            if isinstance(error, OrchestrationError):  # not readable: a page of some proxy
                return seen
            if not isinstance(error, httpx.HTTPStatusError) or error.response.status_code != 404:
                return is_transient(error)
            missing += 1
            if seen:
                return missing <= _SEEN_ANSWERS
            return new and (missing <= _NEW_ANSWERS or clock.monotonic() - began < _NEW_SECONDS)

        timeout, interval = options["timeout"], options["poll_interval"]
        # The starter's own Retry-After is for the first question.
        first = instance.retry_after or 0.0
        try:
            with known(url):
                return await poll_until_async(
                    fetch,
                    lambda state: state.is_terminal,
                    timeout=timeout,
                    poll_interval=interval,
                    initial_delay=first if first < timeout else 0.0,
                    on_poll=options["on_poll"],
                    is_transient=passes,
                    max_consecutive_errors=max(5, int(_OUTAGE_SECONDS / interval)),
                    handle_404=False,
                    label=sanitize_url(url),
                )
        except PollingTimeoutError as error:
            raise await self._late(instance, url, options, error) from error

    async def _late(
        self,
        instance: DurableInstance,
        url: str,
        options: WaitOptions,
        error: "PollingTimeoutError",
    ) -> OrchestrationTimeoutError:
        """Return the error for an instance that did not end in time; terminate it if asked so."""
        last, terminated = error.last_response, False
        shown, within = sanitize_url(url), f"not done within {options['timeout']:g} s"
        remedy = "wait again with wait_for_completion(error.status_url)"
        if last is not None:
            seen_as, remedy = f"it is {last.runtime_status}", f"it goes on; {remedy}"
        else:
            answer = getattr(error.last_error, "response", None)
            seen_as = "the host never answered with its state"
            seen_as += f" (last answer: {answer.status_code})" if answer is not None else ""
            doubt = "whether it runs is not known; check the status URL and the app, then"
            remedy = f"{doubt} {remedy}"
        if options["terminate_on_timeout"]:
            try:
                terminated = await self._manage(instance, "terminate", reason=within)
                remedy = "it was asked to terminate" if terminated else "it had just ended"
            except Exception as failure:  # noqa: BLE001 - the timeout is what the caller must see
                remedy = f"telling it to end failed ({type(failure).__name__}), so it may go on"
                why = redact_secrets(f"{type(failure).__name__}: {failure}")
                said = "could not terminate %s: %s; terminate it in the portal if it must end"
                _log.warning(said, shown, why, extra={"url": shown})
        name = shown if instance.id is None else f"instance {instance.id!r}"
        return OrchestrationTimeoutError(
            f"{name} was {within}: {seen_as}; {remedy}",
            status_url=url,
            last_status=last,
            terminated=terminated,
        )

    async def _manage(
        self, instance: Instance, verb: str, *, name: str = "", reason: str = "", data: Any = None
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
        request = json_body(data) if verb == "raiseEvent" else {}
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
        """Read an entity, or signal it."""
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
        response = await self._send(method, path, cold=_COLD, **request)
        if response.request.method != method or is_page(response):
            raise OrchestrationError(
                f"{method} {sanitize_url(self._url(path))} has done nothing: "
                f"{sanitize_url(str(response.url))} answered {beginning_of(response)}; check that "
                "no proxy or sign-in page answers in its place, and that the URL is https://"
            )
        return response


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


def json_body(data: Any) -> dict[str, Any]:
    """The body that goes with an event or a signal: the host takes JSON only, also for nothing."""
    return {"content": dumps(data).encode(), "headers": {"Content-Type": "application/json"}}
