"""The protocol of Durable Functions, without I/O: what to ask next and what an answer means.

Source: Microsoft, "HTTP API reference" of Durable Functions. A starter answers 202 with a JSON body
(`statusQueryGetUri`, `terminatePostUri`) and `Location`; the status URL answers 202 while the
instance runs and 200 when it has ended. A failed instance answers 200 as well, or 500 when asked
so: the body decides, never the HTTP status alone. An instance counts as ended only where the body
holds a state that means so; a body that cannot be read is an error. The URLs carry a key (`code`)
that opens every instance of the app, so nothing here prints them.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit, urlunsplit

from infra_core.runtime import redact_secrets, sanitize_url

from .exceptions import OrchestrationError, OrchestrationFailedError

__all__ = [
    "DurableInstance",
    "DurableStatus",
    "Response",
    "beginning_of",
    "failure_of",
    "is_page",
    "management_url",
    "read_start",
    "read_status",
    "secure_url",
]

# `OrchestrationRuntimeStatus` of the Durable extension: the number is the position. -1 is Unknown.
# https://learn.microsoft.com/dotnet/api/microsoft.azure.webjobs.extensions.durabletask.orchestrationruntimestatus
_STATUSES = (
    "Running", "Completed", "ContinuedAsNew", "Failed", "Canceled", "Terminated", "Pending",
    "Suspended",
)  # fmt: skip
_BY_NAME = {name.lower(): name for name in _STATUSES} | {"cancelled": "Canceled"}
# The second half of each set is what status endpoints written by hand say.
_SUCCEEDED = frozenset({"completed", "succeeded", "success", "done"})
_FAILED = frozenset({"failed", "terminated", "canceled", "cancelled", "error", "timed_out"})
_UNDER_WAY = frozenset(
    {"pending", "running", "continuedasnew", "suspended", "queued", "scheduled", "started"}
    | {"in_progress", "inprogress", "accepted"}
)
# Members in which gateways and functions written by hand wrap a status.
_WRAPPERS = ("data", "status", "result", "response", "value", "body", "instance", "state")
# What an instance can be asked, and the members of a starter's answer that say where. Beside them
# all, the status URL leads there: with the verb behind it, or alone for `purge`.
_MANAGEMENT_URIS = {
    "terminate": "terminatePostUri", "suspend": "suspendPostUri", "resume": "resumePostUri",
    "rewind": "rewindPostUri", "raiseEvent": "sendEventPostUri", "purge": "purgeHistoryDeleteUri",
}  # fmt: skip
_PLACEHOLDER = re.compile(r"(\{|%7B)(text|eventName)(\}|%7D)", re.IGNORECASE)
_SHOWN = 200  # characters of an answer that stand in an error


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


def read_start(response: Response, *, what: str, accept_result: bool = False) -> DurableInstance:
    """Read the answer of a starter.

    A function that is not durable has ended when it answers. So without a status URL a 200 is an
    end where its body says so: by a `runtimeStatus`, or by a `status` of its own such as `success`
    or `failed`. A `status` beside an `instanceId` is none: it speaks of the start.

    Args:
        response: The answer, a success.
        what: What was called, for the error message; without secrets.
        accept_result: Take any JSON of a 200 for the output of an orchestration that has ended.

    Raises:
        OrchestrationError: It names no status URL, and no end of an instance either.
    """
    body = _json(response)
    fields = _unwrap(body, lambda found: _text(found, "statusQueryGetUri") is not None) or (
        body if isinstance(body, Mapping) else {}
    )
    instance_id = _text(fields, "id", "instanceId")
    # The body's URL is the protocol's own; Location may be what a proxy in between made of it.
    status_url = _text(fields, "statusQueryGetUri") or response.headers.get("location")
    if status_url:
        urls = {
            verb: url
            for verb, member in _MANAGEMENT_URIS.items()
            if (url := _whole_url(response, _text(fields, member), what))
        }
        return DurableInstance(
            id=instance_id,
            status_url=_whole_url(response, status_url, what),
            terminate_url=urls.pop("terminate", None),
            retry_after=_retry_after(response),
            urls=urls,
        )
    if response.status_code == 202:
        raise OrchestrationError(
            f"{what} answered 202 with neither statusQueryGetUri nor Location, so its end cannot "
            "be followed; return create_check_status_response() from the starter"
        )
    status = _state_in(response, body)
    if (
        status is not None
        and status.succeeded
        and not _has_runtime_status(body)
        and _unwrap(body, lambda found: _text(found, "instanceId") is not None)
    ):
        status = None  # `{"status": "success", "instanceId": "7"}` says that it was started
    if status is not None and status.is_terminal:
        return DurableInstance(id=status.instance_id, finished=status)
    if accept_result and status is None and response.status_code == 200 and _is_result(body):
        done = DurableStatus(runtime_status="Completed", output=body, body=body)
        return DurableInstance(id=instance_id, finished=done)
    raise OrchestrationError(
        f"{what} answered {beginning_of(response)}, with neither a status URL nor the end of an "
        "instance; check that it is the starter of a durable function (pass accept_result=True "
        "where it answers with the orchestrator's output itself)"
    )


def _whole_url(response: Response, url: str | None, what: str) -> str | None:
    """A URL of an instance as a whole, `None` where there is none."""
    if not url:
        return None
    try:
        whole = urljoin(str(response.url), url)
        parts = urlsplit(whole)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return whole
    except ValueError:
        pass
    raise OrchestrationError(
        f"{what} answered {response.status_code} with {sanitize_url(url)!r:.200}, which is no "
        "http(s) URL that can be asked; check how the starter, or a proxy, makes its URLs"
    )


def read_status(response: Response) -> DurableStatus | None:
    """Read the answer of a status URL, whatever its HTTP status.

    The state is a text (`Failed`), a text of an enum (`OrchestrationRuntimeStatus.Failed`) or
    the number of one (3), in a member `runtimeStatus` of any letter case, also where the status
    is wrapped (`{"data": {...}}`) or the only item of a list. Only such a state can mean an end.

    Returns:
        The state; `None` for an error answer in which there is none.

    Raises:
        OrchestrationError: It is a success and no state can be read from it; the message shows
            how it begins.
    """
    body = _json(response)
    status = _state_in(response, body)
    if status is not None:
        return status
    if response.status_code == 202 and (body is None or isinstance(body, Mapping)):
        return DurableStatus(
            runtime_status="Running", body=body, retry_after=_retry_after(response)
        )
    if 200 <= response.status_code < 300:
        raise OrchestrationError(
            f"{sanitize_url(str(response.url))} answered {beginning_of(response)}, in which no "
            "runtimeStatus can be read; check that it is the status URL of a durable function, "
            "and that no proxy or sign-in page answers in its place",
            status_url=str(response.url),
        )
    return None


def _state_in(response: Response, body: Any) -> DurableStatus | None:
    """The state that stands in a body, `None` where there is none."""
    fields = _unwrap(body, lambda found: _state(found) is not None)
    state = _state(fields) if fields is not None else None
    # A status by hand says something about the request itself where that failed, or where it comes
    # with a runtimeStatus: `{"status": "success", "data": {"runtimeStatus": "Odd"}}`.
    if state is None and 200 <= response.status_code < 300 and not _has_runtime_status(body):
        fields, state = _find_by_hand(body)
        if response.status_code == 202 and state is not None and state.lower() in _SUCCEEDED:
            return None  # accepted, which is all that can have succeeded
    if fields is None or state is None:
        return None
    return DurableStatus(
        runtime_status=state,
        instance_id=_text(fields, "instanceId", "id"),
        output=_member(fields, "output"),
        custom_status=_member(fields, "customStatus"),
        body=body,
        retry_after=_retry_after(response),
    )


def _state(fields: Mapping[str, Any]) -> str | None:
    value = _member(fields, "runtimeStatus")
    if isinstance(value, str):
        if re.fullmatch(r"\s*[0-7](\.0*)?\s*", value, re.ASCII):
            value = float(value)
        else:
            enum, dot, text = value.strip().rpartition(".")
            if dot and not enum.lower().endswith(("status", "state")):
                return None  # not `OrchestrationRuntimeStatus.Failed`, but `Not.Completed`
            plain = re.sub(r"[\s_-]", "", text).lower().removeprefix("orchestrationstatus")
            if plain in _BY_NAME:
                return _BY_NAME[plain]
            return text if text.lower() in _SUCCEEDED | _FAILED | _UNDER_WAY else None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value in range(8):
        return _STATUSES[int(value)]
    return None


def _find_by_hand(
    body: Any, depth: int = 3, *, anywhere: bool = False
) -> tuple[Mapping[str, Any] | None, str | None]:
    """A status by hand and where it stands.

    The inner one of an envelope speaks of the instance: what an envelope of success holds, in
    whichever member, decides unless it is a success as well.
    """
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    if not isinstance(body, Mapping):
        return None, None
    where: Mapping[str, Any] | None = body
    state = _state_by_hand(body)
    if depth and (state is None or state.lower() in _SUCCEEDED):
        anywhere = anywhere or state is not None
        for name, value in body.items():
            if _is_own(name) or not (anywhere or name.lower() in _WRAPPERS):
                continue
            inner = _find_by_hand(value, depth - 1, anywhere=anywhere)
            if inner[1] is None:
                continue
            where, state = inner
            if inner[1].lower() not in _SUCCEEDED:
                break
    return where, state


def _state_by_hand(fields: Mapping[str, Any]) -> str | None:
    text = _text(fields, "status")
    return text if text and text.lower() in _SUCCEEDED | _FAILED | _UNDER_WAY else None


def _is_own(name: str) -> bool:
    """Whether what the orchestrator wrote stands in a member of that name."""
    return name.replace("_", "").lower() in ("input", "output", "customstatus", "historyevents")


def _has_runtime_status(body: Any, depth: int = 4) -> bool:
    """Whether a `runtimeStatus` stands anywhere in a body but in what the orchestrator wrote."""
    if isinstance(body, list):
        return depth > 0 and any(_has_runtime_status(inner, depth - 1) for inner in body)
    if not isinstance(body, Mapping):
        return False
    for key, value in body.items():
        if key.replace("_", "").lower() == "runtimestatus":
            return True
        if not _is_own(key) and depth and _has_runtime_status(value, depth - 1):
            return True
    return False


def _unwrap(
    body: Any, found: Callable[[Mapping[str, Any]], bool], depth: int = 3
) -> Mapping[str, Any] | None:
    """The first mapping with what is looked for: the body, or what it wraps."""
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    if not isinstance(body, Mapping) or found(body):
        return body if isinstance(body, Mapping) else None
    if depth:
        for name in _WRAPPERS:
            inner = _unwrap(_member(body, name), found, depth - 1)
            if inner is not None:
                return inner
    return None


def _is_result(body: Any) -> bool:
    """Whether a body can be an orchestrator's output: JSON, and more than nothing."""
    return body is not None and not isinstance(body, _NoJson)


def failure_of(status: DurableStatus, status_url: str | None) -> OrchestrationFailedError:
    """Return the error for an instance that ended without success."""
    name = "the orchestration" if status.instance_id is None else f"instance {status.instance_id!r}"
    reason = status.output if status.output is not None else status.custom_status
    why = "" if reason is None else f": {redact_secrets(_short(reason))}"
    return OrchestrationFailedError(
        f"{name} ended as {status.runtime_status}{why}; look into the logs of the function app "
        "for the cause, then start it again",
        status_url=status_url,
        last_status=status,
    )


def secure_url(url: str, base_url: str) -> str:
    """Return a management URL that may be asked: never in the clear for an app on https.

    An app behind a proxy that ends TLS writes `http://` into its own URLs.

    Args:
        url: A status or terminate URL; its key opens every instance of the app.
        base_url: Of the app.

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

    Args:
        instance: The instance, with the URL of its starter for it, in which `{text}` stands for the
            reason and `{eventName}` for the event, or with its status URL alone.
        verb: `terminate`, `suspend`, `resume`, `rewind`, `raiseEvent` or `purge`.
        name: Of the event.
        reason: Why; kept in the instance's history.
    """
    given = instance.terminate_url if verb == "terminate" else instance.urls.get(verb)
    if given is not None:
        text = quote(name or reason, safe="")
        return _PLACEHOLDER.sub(lambda _: text, given)
    if instance.status_url is None:
        return None
    parts = urlsplit(instance.status_url)
    path = parts.path.rstrip("/") + ("" if verb == "purge" else f"/{verb}")
    if name:
        path += f"/{quote(name, safe='')}"
    query = [("reason", reason)] if reason else []
    query += parse_qsl(parts.query, keep_blank_values=True)
    return urlunsplit((parts.scheme, parts.netloc, path, urlencode(query), ""))


class _NoJson(str):
    """A body that is no JSON."""

    __slots__ = ()


def _json(response: Response) -> Any:
    """The body: of JSON, text of another kind, or `None` where it is empty."""
    if not response.content.strip():
        return None
    try:
        value = json.loads(response.content)
        if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
            value = json.loads(value)  # JSON that was serialized twice
    except (ValueError, RecursionError):
        return _NoJson(response.content.decode("utf-8", "replace"))
    return value


def beginning_of(response: Response) -> str:
    """How an answer begins, for an error: status, kind and first characters, without secrets."""
    kind = response.headers.get("content-type", "").partition(";")[0] or "no content type"
    text = response.content[: 8 * _SHOWN].decode("utf-8", "replace").lstrip("\ufeff")
    shown = " ".join(re.sub(r"[^\x20-\x7e\u00a0-\U0010ffff]", " ", text).split())
    shown = redact_secrets(shown)[:_SHOWN] if shown else ""
    status = response.status_code
    return f"{status} ({kind}): {shown!r}" if shown else f"{status} (empty)"


def is_page(response: Response) -> bool:
    """Whether an answer is a page for people, which no function app sends."""
    kind = response.headers.get("content-type", "").lower()
    return "html" in kind or response.content.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] == b"<"


def _member(fields: Mapping[str, Any], name: str) -> Any:
    """A member by its name; by its name in another letter case where there is none."""
    if name in fields:
        return fields[name]
    wanted = name.lower()
    for key, value in fields.items():
        if isinstance(key, str) and key.replace("_", "").lower() == wanted:
            return value
    return None


def _text(fields: Mapping[str, Any], *names: str) -> str | None:
    for name in names:
        value = _member(fields, name)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 500 else text[:500] + "..."


def _retry_after(response: Response) -> float | None:
    from infra_core.polling import retry_after

    return retry_after(response)
