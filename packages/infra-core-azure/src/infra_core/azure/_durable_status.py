"""What an answer says of a durable instance, without I/O.

A failed instance answers 200 as well, or 500 when asked so: the body decides, never the HTTP status
alone. An instance counts as ended only where the body holds a state that means so; a body that
cannot be read is an error.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from infra_core.runtime import redact_secrets, sanitize_url

from ._function_keys import keys_in, keys_sent, without_keys
from .exceptions import OrchestrationError, OrchestrationFailedError

if TYPE_CHECKING:
    import httpx

__all__ = [
    "DurableStatus",
    "as_text",
    "beginning_of",
    "failure_of",
    "has_runtime_status",
    "is_page",
    "is_result",
    "json_of",
    "read_status",
    "retry_after_of",
    "state_in",
    "text_of",
    "unwrap",
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
_ENUM = re.compile(r"(^|\.)(orchestration)?(runtime)?(status|state)$", re.IGNORECASE)
_SHOWN = 200  # characters of an answer that stand in an error


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
        return _is_success(self.runtime_status)

    @property
    def failed(self) -> bool:
        """Whether it ended without success."""
        return self.runtime_status.lower() in _FAILED

    @property
    def is_terminal(self) -> bool:
        """Whether it has ended."""
        return self.succeeded or self.failed


def read_status(response: "httpx.Response") -> DurableStatus | None:
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
    body = json_of(response)
    status = state_in(response, body)
    if status is not None:
        return status
    if response.status_code == 202 and (body is None or isinstance(body, Mapping)):
        return DurableStatus(
            runtime_status="Running", body=body, retry_after=retry_after_of(response)
        )
    if 200 <= response.status_code < 300:
        raise OrchestrationError(
            f"{sanitize_url(str(response.url))} answered {beginning_of(response)}, in which no "
            "runtimeStatus can be read; check that it is the status URL of a durable function, "
            "and that no proxy or sign-in page answers in its place",
            status_url=str(response.url),
        )
    return None


def state_in(response: "httpx.Response", body: Any) -> DurableStatus | None:
    """The state that stands in a body, `None` where there is none."""
    fields = unwrap(body, _state)
    state = _state(fields) if fields is not None else None
    # A status by hand says something about the request itself where that failed, or where it comes
    # with a runtimeStatus: `{"status": "success", "data": {"runtimeStatus": "Odd"}}`.
    if state is None and 200 <= response.status_code < 300 and not has_runtime_status(body):
        fields = _find_by_hand(body)
        state = _state_by_hand(fields)
        if response.status_code == 202 and _is_success(state):
            return None  # accepted, which is all that can have succeeded
    if fields is None or state is None:
        return None
    around = (_state_by_hand(body) or "", _state_by_hand(fields) or "")
    if _is_success(state) and not _FAILED.isdisjoint(map(str.lower, around)):
        return None  # one of the two is wrong
    return DurableStatus(
        runtime_status=state,
        instance_id=text_of(fields, "instanceId", "id"),
        output=_member(fields, "output"),
        custom_status=_member(fields, "customStatus"),
        body=body,
        retry_after=retry_after_of(response),
    )


def _state(fields: Mapping[str, Any]) -> str | None:
    value = _member(fields, "runtimeStatus")
    if isinstance(value, str):
        if re.fullmatch(r"\s*[0-7](\.0*)?\s*", value, re.ASCII):
            value = float(value)
        else:
            enum, dot, text = value.strip().rpartition(".")
            if dot and not _ENUM.search(enum):
                return None  # not `OrchestrationRuntimeStatus.Failed`, but `Not.Completed`
            plain = re.sub(r"[\s_-]", "", text).lower().removeprefix("orchestrationstatus")
            if plain in _BY_NAME:
                return _BY_NAME[plain]
            return text if text.lower() in _SUCCEEDED | _FAILED | _UNDER_WAY else None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value in range(8):
        return _STATUSES[int(value)]
    return None


def _find_by_hand(body: Any, depth: int = 3, *, anywhere: bool = False) -> Mapping[str, Any] | None:
    """What holds the status by hand that counts, `None` where there is none.

    The inner one of an envelope speaks of the instance: what an envelope of success holds, in
    whichever member, decides unless it is a success as well.
    """
    body = _single(body)
    state = _state_by_hand(body)
    where = None if state is None else body
    if isinstance(body, Mapping) and depth and (state is None or _is_success(state)):
        anywhere = anywhere or state is not None
        for name, value in body.items():
            if _is_own(name) or not (anywhere or name.lower() in _WRAPPERS):
                continue
            inner = _find_by_hand(value, depth - 1, anywhere=anywhere)
            where = where if inner is None else inner
            if inner is not None and not _is_success(_state_by_hand(inner)):
                break
    return where


def _state_by_hand(fields: Any) -> str | None:
    text = text_of(fields, "status") if isinstance(fields, Mapping) else None
    return text if text and text.lower() in _SUCCEEDED | _FAILED | _UNDER_WAY else None


def _is_success(state: str | None) -> bool:
    return state is not None and state.lower() in _SUCCEEDED


def _single(body: Any) -> Any:
    """The only item of a list that has one."""
    return body[0] if isinstance(body, list) and len(body) == 1 else body


def _is_own(name: str) -> bool:
    """Whether what the orchestrator wrote stands in a member of that name."""
    return _plain(name) in ("input", "output", "customstatus", "historyevents")


@lru_cache(maxsize=4096)  # the same names in each row of a result
def _plain(name: str) -> str:
    """A name as it is compared: `runtimeStatus`, `runtime_status` and `Runtime-Status` are one."""
    return re.sub(r"[\W_]", "", name).lower()


def _has_runtime_status(fields: Mapping[str, Any]) -> bool:
    return any(_plain(name) == "runtimestatus" for name in fields)


def has_runtime_status(body: Any) -> bool:
    """Whether a `runtimeStatus` stands anywhere in a body but in what the orchestrator wrote."""
    waiting = [body]
    while waiting:
        found = waiting.pop()
        if isinstance(found, list):
            waiting.extend(found)
        elif isinstance(found, Mapping):
            if _has_runtime_status(found):
                return True
            waiting.extend(value for name, value in found.items() if not _is_own(name))
    return False


def unwrap(body: Any, found: Callable[[Mapping[str, Any]], object]) -> Mapping[str, Any] | None:
    """The first mapping with what is looked for: the body, or what it wraps."""
    return next(filter(found, _wrapped(body)), None)


def _wrapped(body: Any, depth: int = 3) -> Iterator[Mapping[str, Any]]:
    body = _single(body)
    if isinstance(body, Mapping):
        yield body
        for name in _WRAPPERS if depth else ():
            yield from _wrapped(_member(body, name), depth - 1)


def is_result(body: Any) -> bool:
    """Whether a body can be an orchestrator's output: JSON, more than nothing, and no status."""
    if body is None or isinstance(body, _NoJson) or unwrap(body, _has_runtime_status):
        return False
    return _find_by_hand(body) is None or not has_runtime_status(body)


def failure_of(
    status: DurableStatus, status_url: str | None, api_key: str | None = None
) -> OrchestrationFailedError:
    """Return the error for an instance that ended without success; it shows neither key."""
    name = "the orchestration" if status.instance_id is None else f"instance {status.instance_id!r}"
    reason = status.output if status.output is not None else status.custom_status
    shown = _short(redact_secrets(without_keys(as_text(reason), *keys_in(status_url), api_key)))
    why = "" if reason is None else f": {shown}"
    return OrchestrationFailedError(
        f"{name} ended as {status.runtime_status}{why}; look into the logs of the function app "
        "for the cause, then start it again",
        status_url=status_url,
        last_status=status,
    )


class _NoJson(str):
    """A body that is no JSON."""

    __slots__ = ()


def json_of(response: "httpx.Response") -> Any:
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


def beginning_of(response: "httpx.Response") -> str:
    """How an answer begins, for an error: status, kind and first characters, without secrets."""
    kind = response.headers.get("content-type", "").partition(";")[0] or "no content type"
    text = response.content[: 8 * _SHOWN].decode("utf-8", "replace").lstrip("\ufeff")
    shown = " ".join(re.sub(r"[^\x20-\x7e\u00a0-\U0010ffff]", " ", text).split())
    for asked in (*response.history, response):  # a redirect takes the key off the request
        shown = without_keys(shown, *keys_sent(asked.request))
    shown = redact_secrets(shown)[:_SHOWN]
    status = response.status_code
    return f"{status} ({kind}): {shown!r}" if shown else f"{status} (empty)"


def is_page(response: "httpx.Response") -> bool:
    """Whether an answer is a page for people, which no function app sends."""
    kind = response.headers.get("content-type", "").lower()
    return "html" in kind or response.content.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] == b"<"


def _member(fields: Mapping[str, Any], name: str) -> Any:
    """A member by its name; by its name in another letter case where there is none."""
    if name in fields:
        return fields[name]
    wanted = name.lower()
    for key, value in fields.items():
        if _plain(key) == wanted:
            return value
    return None


def text_of(fields: Mapping[str, Any], *names: str) -> str | None:
    for name in names:
        value = _member(fields, name)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _short(text: str) -> str:
    return text if len(text) <= 500 else text[:500] + "..."


def retry_after_of(response: "httpx.Response") -> float | None:
    from infra_core.polling import retry_after

    return retry_after(response)
