"""The protocol of Durable Functions, without I/O: what an answer says, and what to ask next.

Source: Microsoft, "HTTP API reference" of Durable Functions. A starter answers 202 with a JSON body
(`statusQueryGetUri`, `terminatePostUri`) and `Location`; the status URL answers 202 while the
instance runs and 200 when it has ended. A failed instance answers 200 as well, or 500 when asked
so: the body decides, never the HTTP status alone, and a body that cannot be read is an error. The
URLs carry a key (`code`) that opens every instance of the app, so nothing here prints them.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit, urlunsplit

from infra_core.runtime import parse_retry_after, redact_secrets, sanitize_url

from ._checks import split_url
from ._function_answers import beginning_of, is_page, json_of, keys_in, plain, without_keys
from .exceptions import OrchestrationError, OrchestrationFailedError

if TYPE_CHECKING:
    import httpx

__all__ = [
    "DurableInstance", "DurableStatus", "failure_of", "management_url", "read_start",
    "read_status", "reason_of", "secure_url", "state_in",
]  # fmt: skip

# `OrchestrationRuntimeStatus` of the Durable extension: the number is the position. -1 is Unknown.
# https://learn.microsoft.com/dotnet/api/microsoft.azure.webjobs.extensions.durabletask.orchestrationruntimestatus
_STATUSES = (
    "Running", "Completed", "ContinuedAsNew", "Failed", "Canceled", "Terminated", "Pending",
    "Suspended",
)  # fmt: skip
_BY_NAME = {name.lower(): name for name in _STATUSES} | {"cancelled": "Canceled"}
# Beside them, what status endpoints written by hand and those of Azure Resource Manager say.
_SUCCEEDED = frozenset({"completed", "succeeded", "success", "done"})
_FAILED = frozenset({
    "failed", "terminated", "canceled", "cancelled", "error", "timedout", "aborted", "failure",
    "faulted",
})  # fmt: skip
_UNDER_WAY = frozenset({
    "pending", "running", "continuedasnew", "suspended", "queued", "scheduled", "started",
    "inprogress", "accepted", "notstarted", "processing", "waiting", "paused", "starting",
    "cancelling", "canceling",
})  # fmt: skip
_KNOWN = _SUCCEEDED | _FAILED | _UNDER_WAY
# Members in which gateways and functions written by hand wrap a status.
_WRAPPERS = ("data", "status", "result", "response", "value", "body", "instance", "state")
_OWN = ("input", "output", "customstatus", "historyevents")  # what the orchestrator wrote
_DEEPEST = 3  # envelopes around a status
_ENUM = re.compile(r"(^|\.)(orchestration)?(runtime)?(status|state)$", re.IGNORECASE)
# What an instance can be asked, and the members of a starter's answer that say where. Beside them
# all, the status URL leads there: with the verb behind it, or alone for `purge`.
_MANAGEMENT_URIS = {
    "terminate": "terminatePostUri", "suspend": "suspendPostUri", "resume": "resumePostUri",
    "rewind": "rewindPostUri", "raiseEvent": "sendEventPostUri", "purge": "purgeHistoryDeleteUri",
}  # fmt: skip
# The isolated worker of .NET writes its braces twice.
_PLACEHOLDER = re.compile(r"(\{|%7B)+(text|eventName)(\}|%7D)+", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class DurableStatus:
    """State of a durable instance, as its status URL answered it.

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
        return plain(self.runtime_status) in _SUCCEEDED

    @property
    def failed(self) -> bool:
        """Whether it ended without success."""
        return plain(self.runtime_status) in _FAILED

    @property
    def is_terminal(self) -> bool:
        """Whether it has ended."""
        return self.succeeded or self.failed


@dataclass(frozen=True, kw_only=True)
class DurableInstance:
    """A durable instance that was started; keep `status_url` to follow it later.

    Attributes:
        id: Its id, `None` when the starter did not say.
        status_url: Where its state is asked for, with its key.
        terminate_url: Where it is asked to end, with its key.
        retry_after: Seconds that the host asks to wait before the first question.
        finished: Its end, when the starter waited for it and answered with the result.
        urls: The other URLs that the starter named, with their keys, by what they are for:
            `suspend`, `resume`, `rewind`, `raiseEvent`, `purge`.
    """

    id: str | None = None
    status_url: str | None = None
    terminate_url: str | None = None
    retry_after: float | None = None
    finished: DurableStatus | None = None
    urls: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        url = None if self.status_url is None else sanitize_url(self.status_url)
        return f"DurableInstance(id={self.id!r}, status_url={url!r})"


def read_status(response: "httpx.Response") -> DurableStatus:
    """Read the answer of a status URL: a success, or an error in which `state_in` finds a state.

    Raises:
        OrchestrationError: No state can be read from it; the message shows how it begins.
    """
    body = json_of(response)
    status = state_in(response, body)
    if status is not None:
        return status
    if response.status_code == 202 and not isinstance(body, list) and not is_page(response):
        body = (response.text or None) if body is None else body
        after = parse_retry_after(response.headers)
        return DurableStatus(runtime_status="Running", body=body, retry_after=after)
    raise OrchestrationError(
        f"{sanitize_url(str(response.url))} answered {beginning_of(response)}, in which no "
        "runtimeStatus can be read; check that it is the status URL of a durable function, "
        "and that no proxy or sign-in page answers in its place",
        status_url=str(response.url),
    )


def state_in(response: "httpx.Response", body: Any) -> DurableStatus | None:
    """The state that stands in a body, `None` where there is none.

    It is a text (`Failed`), a text of an enum (`OrchestrationRuntimeStatus.Failed`) or the number
    of one (3), in a member `runtimeStatus` of any letter case, also where the status is wrapped
    (`{"data": {...}}`) or the only item of a list. Only such a state can mean an end.
    """
    said: list[tuple[Mapping[str, Any], str]] = []
    holder = _holder_of(body, "runtimeStatus")
    if holder is not None:
        states = {_state_of(value) for value in _named(holder, "runtimeStatus")}
        said = [(holder, state) for state in states if state and len(states) == 1]
    elif response.is_success and not _has_runtime_status(body):
        # Else a status by hand speaks of the request itself, or of what surrounds the instance:
        # `{"status": "success", "data": {"runtimeStatus": "Odd"}}`.
        said = _by_hand(body)
    # Of envelopes the innermost speaks of the instance, and any of them can deny a success.
    said = [each for each in said if not _is_success(each[1])][:1] or said[-1:]
    if not said:
        return None
    [(fields, state)] = said
    if _is_success(state):
        around = {plain(_status_by_hand(each) or "") for each in (body, fields)}
        accepted = response.status_code == 202 and holder is None
        if accepted or not _FAILED.isdisjoint(around):
            return None  # all that has succeeded is the request; or one of the two is wrong
    return DurableStatus(
        runtime_status=state,
        instance_id=_text_of(fields, "instanceId", "id"),
        output=next(iter(_named(fields, "output")), None),
        custom_status=next(iter(_named(fields, "customStatus")), None),
        body=body,
        retry_after=parse_retry_after(response.headers),
    )


def _is_success(state: str) -> bool:
    return plain(state) in _SUCCEEDED


def _state_of(value: Any) -> str | None:
    """The state that the value of a `runtimeStatus` means."""
    text = str(value).strip() if isinstance(value, (str, int, float)) else ""
    if re.fullmatch(r"[0-7](\.0*)?", text):
        return _STATUSES[int(text[0])]
    enum, dot, name = text.rpartition(".")
    if dot and not _ENUM.search(enum):
        return None  # not `OrchestrationRuntimeStatus.Failed`, but `Not.Completed`
    short = plain(name).removeprefix("orchestrationstatus")
    return _BY_NAME.get(short, name if short in _KNOWN else None)


def _status_by_hand(fields: Any) -> str | None:
    text = _text_of(fields, "status") if isinstance(fields, Mapping) else None
    return text if text and plain(text) in _KNOWN else None


def _named(fields: Mapping[str, Any], name: str) -> list[Any]:
    """The members of a name in any spelling; first the one that is spelled so."""
    names = [key for key in fields if plain(key) == name.lower()]
    return [fields[key] for key in sorted(names, key=name.__ne__)]


def _text_of(fields: Mapping[str, Any], *names: str) -> str | None:
    values = (value for name in names for value in _named(fields, name)[:1])
    return next((v.strip() for v in values if isinstance(v, str) and v.strip()), None)


def _mappings(body: Any) -> Iterator[tuple[Mapping[str, Any], bool, bool]]:
    """The mappings of a body from the outside in, but those that the orchestrator wrote.

    With each, whether nothing but wrappers and lists of one item stand around it; and whether a
    status by hand counts there: so it is, or a mapping with one stands around it.
    """
    waiting: list[tuple[Any, int, bool, bool]] = [(body, _DEEPEST, True, True)]
    while waiting:
        found, depth, wrapped, counts = waiting.pop()
        if isinstance(found, list):
            alone = len(found) == 1
            waiting += [(each, depth, wrapped and alone, counts and alone) for each in found[::-1]]
        elif isinstance(found, Mapping):
            yield found, wrapped, counts
            said = depth > 0 and counts and (not wrapped or _status_by_hand(found) is not None)
            for name, value in reversed([*found.items()]):
                known = depth > 0 and wrapped and name.lower() in _WRAPPERS
                if plain(name) not in _OWN:
                    waiting.append((value, depth - 1, known, known or said))


def _by_hand(body: Any) -> list[tuple[Mapping[str, Any], str]]:
    """What holds a status by hand, from the outside in, and that status."""
    reached = (fields for fields, _, counts in _mappings(body) if counts)
    return [(each, state) for each in reached if (state := _status_by_hand(each)) is not None]


def _has_runtime_status(body: Any) -> bool:
    """Whether a `runtimeStatus` stands anywhere in a body but in what the orchestrator wrote."""
    return any(_named(fields, "runtimeStatus") for fields, _, _ in _mappings(body))


def _holder_of(body: Any, name: str) -> Mapping[str, Any] | None:
    """The first mapping with a member of that name: the body, or what it wraps."""
    reached = (fields for fields, wrapped, _ in _mappings(body) if wrapped)
    return next((fields for fields in reached if _named(fields, name)), None)


def reason_of(status: DurableStatus, *keys: str | None) -> str:
    """Why an instance ended so, without secrets: what it says, else an `error` or `message`."""
    beside = status.body if isinstance(status.body, Mapping) else {}
    given = (status.output, status.custom_status, beside.get("error"), beside.get("message"), "")
    reason = next(each for each in given if each is not None)
    text = reason if isinstance(reason, str) else json.dumps(reason, default=str)
    return redact_secrets(without_keys(text, *keys))


def failure_of(
    status: DurableStatus, status_url: str | None, api_key: str | None = None
) -> OrchestrationFailedError:
    """Return the error for an instance that ended without success; it shows neither key."""
    name = "the orchestration" if status.instance_id is None else f"instance {status.instance_id!r}"
    reason = reason_of(status, *keys_in(status_url), api_key)
    if len(reason) > 500:
        reason = f"{reason[:500]}..."
    return OrchestrationFailedError(
        f"{name} ended as {status.runtime_status}{': ' if reason else ''}{reason}; look into the "
        "logs of the function app for the cause, then start it again",
        status_url=status_url,
        last_status=status,
    )


def read_start(
    response: "httpx.Response", *, what: str, accept_result: bool = False
) -> DurableInstance:
    """Read the answer of a starter; `what` was called, for the error message.

    A function that is not durable has ended when it answers. So without a status URL a 200 is an
    end where its body says so: by a `runtimeStatus`, or by a `status` of its own such as `success`
    or `failed`. A `status` beside an `instanceId` is none: it speaks of the start. With
    `accept_result` any JSON of a 200 is the output of an orchestration that has ended.

    Raises:
        OrchestrationError: It names no status URL, and no end of an instance either.
    """
    if any(
        each.status_code != 303 and each.request.method != response.request.method
        for each in response.history
    ):
        raise OrchestrationError(
            f"{what} was redirected to {sanitize_url(str(response.url))}, which makes a GET of it "
            f"and drops what was sent; the answer, {beginning_of(response)}, is neither a status "
            "URL nor the end of an instance of it; give the base URL that it leads to (https://), "
            "and check that no sign-in page answers"
        )
    body = json_of(response)
    fields = _holder_of(body, "statusQueryGetUri") or (body if isinstance(body, Mapping) else {})
    instance_id = _text_of(fields, "id", "instanceId")
    urls = {verb: _text_of(fields, member) for verb, member in _MANAGEMENT_URIS.items()}
    # The body's URL is the protocol's own; Location may be what a proxy in between made of it.
    urls["status"] = _text_of(fields, "statusQueryGetUri") or response.headers.get("location")
    if urls["status"]:
        whole = {
            verb: _whole_url(response, url, instance_id, what) for verb, url in urls.items() if url
        }
        return DurableInstance(
            id=instance_id,
            status_url=whole.pop("status"),
            terminate_url=whole.pop("terminate", None),
            retry_after=parse_retry_after(response.headers),
            urls=whole,
        )
    if response.status_code == 202:
        raise OrchestrationError(
            f"{what} answered 202 with neither statusQueryGetUri nor Location, so its end cannot "
            "be followed; return create_check_status_response() from the starter"
        )
    status = state_in(response, body)
    if status is not None and status.is_terminal:
        # `{"status": "success", "instanceId": "7"}` says that it was started.
        named = _text_of(_holder_of(body, "instanceId") or {}, "instanceId")
        if status.failed or not named or _has_runtime_status(body):
            return DurableInstance(id=status.instance_id, finished=status)
    elif (
        accept_result
        and response.status_code == 200
        and not (body is None or _holder_of(body, "runtimeStatus") or _by_hand(body))
    ):
        done = DurableStatus(runtime_status="Completed", output=body, body=body)
        return DurableInstance(id=instance_id, finished=done)
    raise OrchestrationError(
        f"{what} answered {beginning_of(response)}, with neither a status URL nor the end of an "
        "instance; check that it is the starter of a durable function (pass accept_result=True "
        "where it answers with the orchestrator's output itself)"
    )


def _whole_url(response: "httpx.Response", url: str, instance_id: str | None, what: str) -> str:
    """A URL of an instance as a whole."""
    try:
        whole = urljoin(str(response.url), url)
        split_url(whole)
    except ValueError as error:
        raise OrchestrationError(
            f"{what} answered {response.status_code} with {sanitize_url(url)!r:.200}, which is not "
            f"an http(s) URL that can be asked ({error}); check how the starter, or a proxy, makes "
            "its URLs"
        ) from None
    if " " in (instance_id or ""):
        # .NET writes a blank as `+` (azure-functions-durable-extension#2590), which no path means.
        path, mark, query = whole.partition("?")
        return path.replace("+", "%20") + mark + query
    return whole


def secure_url(url: str, base_url: str) -> str:
    """Return a management URL that may be asked: never in the clear for an app on https.

    An app behind a proxy that ends TLS writes `http://` into its own URLs.

    Raises:
        OrchestrationError: It is `http://` and not of the app's own host and default port.
    """
    parts, home = urlsplit(url), urlsplit(base_url)
    if parts.scheme != "http" or home.scheme != "https":
        return url
    if parts.hostname == home.hostname and parts.port in (None, 80, home.port):
        return urlunsplit(parts._replace(scheme="https", netloc=home.netloc))
    raise OrchestrationError(
        f"{sanitize_url(url)} is http:// while the function app is on https://, and its key must "
        "not travel in the clear; have the app answer with https:// URLs (a proxy in front of it "
        "should send X-Forwarded-Proto: https)",
        status_url=url,
    )


def management_url(
    instance: DurableInstance, verb: str, *, name: str = "", reason: str = ""
) -> str | None:
    """Return the URL at which an instance is asked for something; `None` where it has none.

    It is the starter's own for this verb, in which `{text}` stands for the reason and `{eventName}`
    for the name of the event, or else made from the status URL.
    """
    given = instance.terminate_url if verb == "terminate" else instance.urls.get(verb)
    if given is not None:
        text = quote(name or reason, safe="")
        return _PLACEHOLDER.sub(lambda _: text, given)
    if instance.status_url is None:
        return None
    parts = urlsplit(instance.status_url)
    below = "" if verb == "purge" else f"/{verb}" + (f"/{quote(name, safe='')}" if name else "")
    query = [("reason", reason)] if reason else []
    query += parse_qsl(parts.query, keep_blank_values=True)
    path = parts.path.rstrip("/") + below
    return urlunsplit(parts._replace(path=path, query=urlencode(query), fragment=""))
