"""The protocol of Durable Functions, without I/O: what to ask next and what an answer means.

Source: Microsoft, "HTTP API reference" of Durable Functions. A starter answers 202 with a JSON body
(`statusQueryGetUri`, `terminatePostUri`) and `Location`; the status URL answers 202 while the
instance runs and 200 when it has ended. A failed instance answers 200 as well, or 500 when asked
so: the body decides, never the HTTP status alone. The URLs carry a key (`code`) that opens every
instance of the app, so nothing here prints them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit, urlunsplit

from infra_core.runtime import redact_secrets, sanitize_url

from .exceptions import OrchestrationError, OrchestrationFailedError

__all__ = [
    "DurableInstance",
    "DurableStatus",
    "Response",
    "failure_of",
    "read_start",
    "read_status",
    "terminate_url",
]

# What runs is everything else: Pending, Running, ContinuedAsNew, Suspended. The second half of
# each set is what status endpoints written by hand say.
_SUCCEEDED = frozenset({"completed", "succeeded", "success", "done"})
_FAILED = frozenset({"failed", "terminated", "canceled", "cancelled", "error", "timed_out"})
_UNDER_WAY = frozenset(
    {"pending", "running", "continuedasnew", "suspended", "queued", "scheduled", "started"}
    | {"in_progress", "inprogress", "accepted"}
)


class Response(Protocol):
    """What is read of an HTTP response; `httpx.Response` has it."""

    @property
    def status_code(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Any:
        """The header fields, by name in any letter case."""

    @property
    def content(self) -> bytes:
        """The body."""

    @property
    def url(self) -> Any:
        """Where it came from."""


@dataclass(frozen=True, kw_only=True)
class DurableStatus:
    """State of a durable instance, as its status URL told it.

    Attributes:
        runtime_status: `Pending`, `Running`, `Suspended`, `ContinuedAsNew`, `Completed`, `Failed`,
            `Terminated` or `Canceled`; what a status endpoint of another make calls it.
        instance_id: Id of the instance, `None` when the body does not say.
        output: What the orchestrator returned, or why it failed.
        custom_status: What the orchestrator reports on its way.
        body: The whole body.
        retry_after: Seconds that the host asks to wait, `None` when it does not.
    """

    runtime_status: str
    instance_id: str | None = None
    output: Any = None
    custom_status: Any = None
    body: Any = field(default=None, repr=False)
    retry_after: float | None = None

    @property
    def succeeded(self) -> bool:
        """Whether it ended with success."""
        return self.runtime_status.lower() in _SUCCEEDED

    @property
    def failed(self) -> bool:
        """Whether it ended without success."""
        return self.runtime_status.lower() in _FAILED

    @property
    def is_terminal(self) -> bool:
        """Whether it has ended."""
        return self.succeeded or self.failed


@dataclass(frozen=True, kw_only=True)
class DurableInstance:
    """A durable instance that was started; keep `status_url` to follow it later.

    Attributes:
        id: Its id, `None` when the starter did not tell.
        status_url: Where its state is asked for, with its key.
        terminate_url: Where it is told to end, with its key.
        retry_after: Seconds that the host asks to wait before the first question.
        finished: Its end, when the starter waited for it and answered with the result.
    """

    id: str | None = None
    status_url: str | None = None
    terminate_url: str | None = None
    retry_after: float | None = None
    finished: DurableStatus | None = None

    def __repr__(self) -> str:
        url = None if self.status_url is None else sanitize_url(self.status_url)
        return f"DurableInstance(id={self.id!r}, status_url={url!r})"


def read_start(response: Response, *, what: str) -> DurableInstance:
    """Read the answer of a starter.

    Args:
        response: The answer, a success.
        what: What was called, for the error message; without secrets.

    Raises:
        OrchestrationError: It names no status URL and is not the result either.
    """
    body = _json(response)
    fields = body if isinstance(body, Mapping) else {}
    instance_id = _text(fields, "id", "instanceId")
    # The body's URL is the protocol's own; Location may be what a proxy in between made of it.
    status_url = _text(fields, "statusQueryGetUri") or response.headers.get("location")
    if status_url:
        ending = _text(fields, "terminatePostUri")
        return DurableInstance(
            id=instance_id,
            status_url=urljoin(str(response.url), status_url),
            terminate_url=urljoin(str(response.url), ending) if ending else None,
            retry_after=_retry_after(response),
        )
    if response.status_code == 202:
        raise OrchestrationError(
            f"{what} answered 202 with neither statusQueryGetUri nor Location, so its end cannot "
            "be followed; return create_check_status_response() from the starter"
        )
    status = read_status(response)
    if status is None or not status.is_terminal:
        raise OrchestrationError(
            f"{what} answered {response.status_code} with neither a status URL nor a result; is "
            "it the starter of a durable function?"
        )
    return DurableInstance(id=instance_id or status.instance_id, finished=status)


def read_status(response: Response) -> DurableStatus | None:
    """Read the answer of a status URL, whatever its HTTP status.

    Returns:
        The state; `None` when the answer tells none and is no success.
    """
    body = _json(response)
    fields = body if isinstance(body, Mapping) else {}
    told = _text(fields, "runtimeStatus")
    by_hand = _text(fields, "status")
    if told is None and by_hand and by_hand.lower() in _SUCCEEDED | _FAILED | _UNDER_WAY:
        told = by_hand
    if told is None:
        if response.status_code == 202:
            told = "Running"
        elif 200 <= response.status_code < 300:
            # The general asynchronous pattern: the result itself stands at the status URL.
            return DurableStatus(runtime_status="Completed", output=body, body=body)
        else:
            return None
    return DurableStatus(
        runtime_status=told,
        instance_id=_text(fields, "instanceId", "id"),
        output=fields.get("output"),
        custom_status=fields.get("customStatus"),
        body=body,
        retry_after=_retry_after(response),
    )


def failure_of(status: DurableStatus, status_url: str | None) -> OrchestrationFailedError:
    """Return the error for an instance that ended without success."""
    name = "the orchestration" if status.instance_id is None else f"instance {status.instance_id!r}"
    reason = status.output if status.output is not None else status.custom_status
    told = "" if reason is None else f": {redact_secrets(_short(reason))}"
    return OrchestrationFailedError(
        f"{name} ended as {status.runtime_status}{told}; look into the logs of the function app "
        "for the cause, then start it again",
        status_url=status_url,
        last_status=status,
    )


def terminate_url(url: str, reason: str, *, is_status_url: bool) -> str:
    """Return the URL that ends an instance.

    Args:
        url: Its `terminatePostUri`, whose `{text}` stands for the reason, or its status URL.
        reason: Why; kept in the instance's history.
        is_status_url: Which of the two it is.
    """
    if not is_status_url:
        return url.replace("{text}", quote(reason, safe="")).replace(
            "%7Btext%7D", quote(reason, safe="")
        )
    parts = urlsplit(url)
    query = [("reason", reason), *parse_qsl(parts.query, keep_blank_values=True)]
    return urlunsplit(
        (parts.scheme, parts.netloc, parts.path.rstrip("/") + "/terminate", urlencode(query), "")
    )


def _json(response: Response) -> Any:
    if not response.content:
        return None
    try:
        return json.loads(response.content)
    except ValueError:
        return response.content.decode("utf-8", "replace")


def _text(fields: Mapping[str, Any], *names: str) -> str | None:
    for name in names:
        value = fields.get(name)
        if isinstance(value, str) and value:
            return value
    return None


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 500 else text[:500] + "..."


def _retry_after(response: Response) -> float | None:
    from infra_core.polling import retry_after

    return retry_after(response)
