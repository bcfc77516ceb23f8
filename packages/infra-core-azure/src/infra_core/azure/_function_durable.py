"""Following durable functions: the protocol of `_durable`, driven over HTTP and polling."""

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypedDict

from infra_core.runtime import clock, redact_secrets, sanitize_url

from ._checks import require_number
from ._durable import (
    DurableInstance,
    DurableStatus,
    json_of,
    read_status,
    secure_url,
    state_in,
)
from ._function_calls import FunctionClient, RequestOptions
from .exceptions import JobNotFoundError, OrchestrationError, OrchestrationTimeoutError

if TYPE_CHECKING:
    import httpx

    from infra_core.polling import PollingTimeoutError

    from ._function_manage import DurableManagement

__all__ = ["COLD", "OnPoll", "WaitOptions", "answer_of", "ask", "complete", "known", "wait"]

_log = logging.getLogger("infra_core.azure.client")

OnPoll = Callable[[DurableStatus], Awaitable[None] | None]

# One question is one request: the poll itself decides about the next, by the body, not the status.
_ASK_ONCE = RequestOptions(max_retries=0, retry_statuses=())
# A 404 of a management URL is an answer about the instance, not that of an app that starts.
COLD = frozenset({503})
# Questions that 404 may answer in a row before it counts: of an instance that was just started, and
# for so many seconds; of one that was seen (azure-functions-durable-extension#1346: it ran on).
_NEW_ANSWERS, _NEW_SECONDS, _SEEN_ANSWERS = 2, 10.0, 1
_OUTAGE_SECONDS = 30.0  # of a host that restarts, however often it is asked meanwhile
_PURGED = (
    "the host does not know the instance; its history may have been purged, or the URL is that of "
    "another app or task hub"
)


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


async def ask(client: FunctionClient, url: str, **fields: Any) -> DurableStatus:
    """Ask for the state of an instance, once."""
    asked = client._send("GET", url, options=_ASK_ONCE, cold=COLD, **fields)
    return read_status(await answer_of(asked))


async def wait(
    client: "DurableManagement",
    instance: DurableInstance,
    options: WaitOptions,
    *,
    new: bool,
) -> DurableStatus:
    """Wait for the end of an instance that has a status URL; `options` are complete.

    A `new` one was just started, and may not be known to its host yet.
    """
    import httpx

    from infra_core.polling import PollingTimeoutError, is_transient, poll_until_async

    url = secure_url(str(instance.status_url), client.base_url)
    seen, missing, began = False, 0, clock.monotonic()

    async def fetch() -> DurableStatus:
        nonlocal seen, missing
        status = await ask(client, url, _log_failure=False)  # the poll does, in a line
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
        terminate = client.terminate if options["terminate_on_timeout"] else None
        raise await _late(error, url, instance, timeout, terminate) from error


async def _late(
    error: "PollingTimeoutError",
    url: str,
    instance: DurableInstance,
    timeout: float,
    terminate: Callable[..., Awaitable[bool]] | None,
) -> OrchestrationTimeoutError:
    """Return the error for an instance that did not end in time, and have it end if asked so."""
    last, terminated = error.last_response, False
    remedy = "wait again with wait_for_completion(error.status_url)"
    if last is not None:
        seen_as, remedy = f"it is {last.runtime_status}", f"it goes on; {remedy}"
    else:
        answer = getattr(error.last_error, "response", None)
        seen_as = "the host never answered with its state"
        seen_as += f" (last answer: {answer.status_code})" if answer is not None else ""
        remedy = f"whether it runs is not known; check the status URL and the app, then {remedy}"
    if terminate is not None:
        try:
            terminated = await terminate(instance, reason=f"not done within {timeout:g} s")
            remedy = "it was asked to terminate" if terminated else "it had just ended"
        except Exception as failure:  # noqa: BLE001 - the timeout is what the caller must see
            kind, shown = type(failure).__name__, sanitize_url(url)
            remedy = f"telling it to end failed ({kind}), so it may go on"
            _log.warning(
                "could not terminate %s: %s: %s; terminate it in the portal if it must end",
                shown,
                kind,
                redact_secrets(str(failure)),
                extra={"url": shown},
            )
    name = sanitize_url(url) if instance.id is None else f"instance {instance.id!r}"
    return OrchestrationTimeoutError(
        f"{name} was not done within {timeout:g} s: {seen_as}; {remedy}",
        status_url=url,
        last_status=last,
        terminated=terminated,
    )
