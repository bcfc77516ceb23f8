"""What an answer says of a durable instance, without I/O.

A failed instance answers 200 as well, or 500 when asked so: the body decides, never the HTTP status
alone. An instance counts as ended only where the body holds a state that means so; a body that
cannot be read is an error.
"""

import json
import re
from collections.abc import Iterator, Mapping
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
    "beginning_of",
    "failure_of",
    "has_runtime_status",
    "holder_of",
    "is_page",
    "is_result",
    "json_of",
    "read_json",
    "read_status",
    "reason_of",
    "retry_after_of",
    "state_in",
    "text_of",
]

# `OrchestrationRuntimeStatus` of the Durable extension: the number is the position. -1 is Unknown.
# https://learn.microsoft.com/dotnet/api/microsoft.azure.webjobs.extensions.durabletask.orchestrationruntimestatus
_STATUSES = (
    "Running", "Completed", "ContinuedAsNew", "Failed", "Canceled", "Terminated", "Pending",
    "Suspended",
)  # fmt: skip
_BY_NAME = {name.lower(): name for name in _STATUSES} | {"cancelled": "Canceled"}
# Beside them, what status endpoints written by hand and those of Azure Resource Manager say.
_SUCCEEDED = frozenset({"completed", "succeeded", "success", "done"})
_FAILED = frozenset(
    {"failed", "terminated", "canceled", "cancelled", "error", "timedout", "aborted", "failure"}
    | {"faulted"}
)
_UNDER_WAY = frozenset(
    {"pending", "running", "continuedasnew", "suspended", "queued", "scheduled", "started"}
    | {"inprogress", "accepted", "notstarted", "processing", "waiting", "paused", "starting"}
    | {"cancelling", "canceling"}
)
_KNOWN = _SUCCEEDED | _FAILED | _UNDER_WAY
# Members in which gateways and functions written by hand wrap a status.
_WRAPPERS = ("data", "status", "result", "response", "value", "body", "instance", "state")
_OWN = ("input", "output", "customstatus", "historyevents")  # what the orchestrator wrote
_DEEPEST = 3  # envelopes around a status
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
        return _plain(self.runtime_status) in _FAILED

    @property
    def is_terminal(self) -> bool:
        """Whether it has ended."""
        return self.succeeded or self.failed


def read_status(response: "httpx.Response") -> DurableStatus:
    """Read the answer of a status URL: a success, or an error in which `state_in` finds a state.

    The state is a text (`Failed`), a text of an enum (`OrchestrationRuntimeStatus.Failed`) or
    the number of one (3), in a member `runtimeStatus` of any letter case, also where the status
    is wrapped (`{"data": {...}}`) or the only item of a list. Only such a state can mean an end.

    Raises:
        OrchestrationError: No state can be read from it; the message shows how it begins.
    """
    body = json_of(response)
    status = state_in(response, body)
    if status is not None:
        return status
    if response.status_code == 202 and not isinstance(body, list) and not is_page(response):
        after = retry_after_of(response)
        return DurableStatus(runtime_status="Running", body=body, retry_after=after)
    raise OrchestrationError(
        f"{sanitize_url(str(response.url))} answered {beginning_of(response)}, in which no "
        "runtimeStatus can be read; check that it is the status URL of a durable function, "
        "and that no proxy or sign-in page answers in its place",
        status_url=str(response.url),
    )


def state_in(response: "httpx.Response", body: Any) -> DurableStatus | None:
    """The state that stands in a body, `None` where there is none."""
    fields = holder_of(body, "runtimeStatus")
    state = _runtime_state(fields)
    # A status by hand says something about the request itself where that failed, or where it comes
    # with a runtimeStatus: `{"status": "success", "data": {"runtimeStatus": "Odd"}}`.
    if state is None and response.is_success and not has_runtime_status(body):
        # The inner one of an envelope speaks of the instance.
        found: list[tuple[Mapping[str, Any] | None, str | None]] = [(None, None), *_by_hand(body)]
        fields, state = next((each for each in found[1:] if not _is_success(each[1])), found[-1])
        if response.status_code == 202 and _is_success(state):
            return None  # accepted, which is all that can have succeeded
    if fields is None or state is None:
        return None
    around = {_plain(_status_by_hand(each) or "") for each in (body, fields)}
    if _is_success(state) and not _FAILED.isdisjoint(around):
        return None  # one of the two is wrong
    return DurableStatus(
        runtime_status=state,
        instance_id=text_of(fields, "instanceId", "id"),
        output=_member(fields, "output"),
        custom_status=_member(fields, "customStatus"),
        body=body,
        retry_after=retry_after_of(response),
    )


def _is_success(state: str | None) -> bool:
    return state is not None and _plain(state) in _SUCCEEDED


def _runtime_state(fields: Mapping[str, Any] | None) -> str | None:
    """The state that the `runtimeStatus` of a mapping means, if its spellings agree on one."""
    given = [] if fields is None else [v for k, v in fields.items() if _plain(k) == "runtimestatus"]
    states = {_state_of(value) for value in given}
    return states.pop() if len(states) == 1 else None


def _state_of(value: Any) -> str | None:
    text = value.strip() if isinstance(value, str) else ""
    if isinstance(value, (int, float)):
        text = repr(value)
    if re.fullmatch(r"[0-7](\.0*)?", text):
        return _STATUSES[int(text[0])]
    enum, dot, name = text.rpartition(".")
    if dot and not _ENUM.search(enum):
        return None  # not `OrchestrationRuntimeStatus.Failed`, but `Not.Completed`
    plain = _plain(name).removeprefix("orchestrationstatus")
    return _BY_NAME.get(plain, name if plain in _KNOWN else None)


def _status_by_hand(fields: Any) -> str | None:
    text = text_of(fields, "status") if isinstance(fields, Mapping) else None
    return text if text and _plain(text) in _KNOWN else None


@lru_cache(maxsize=4096)  # the same names in each row of a result
def _plain(name: str) -> str:
    """A name as it is compared: `runtimeStatus`, `runtime_status` and `Runtime-Status` are one."""
    return re.sub(r"[\W_]", "", name).lower()


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
                if _plain(name) not in _OWN:
                    waiting.append((value, depth - 1, known, known or said))


def _has(fields: Mapping[str, Any], name: str) -> bool:
    return any(_plain(key) == name.lower() for key in fields)


def _by_hand(body: Any) -> list[tuple[Mapping[str, Any], str]]:
    """What holds a status by hand, from the outside in, and that status."""
    reached = (fields for fields, _, counts in _mappings(body) if counts)
    return [(each, state) for each in reached if (state := _status_by_hand(each)) is not None]


def has_runtime_status(body: Any) -> bool:
    """Whether a `runtimeStatus` stands anywhere in a body but in what the orchestrator wrote."""
    return any(_has(fields, "runtimeStatus") for fields, _, _ in _mappings(body))


def holder_of(body: Any, name: str) -> Mapping[str, Any] | None:
    """The first mapping with a member of that name: the body, or what it wraps."""
    reached = (fields for fields, wrapped, _ in _mappings(body) if wrapped)
    return next((fields for fields in reached if _has(fields, name)), None)


def is_result(body: Any) -> bool:
    """Whether a body can be an orchestrator's output: JSON, more than nothing, and no status."""
    if body is None or isinstance(body, _NoJson) or holder_of(body, "runtimeStatus"):
        return False
    return not _by_hand(body) or not has_runtime_status(body)


def reason_of(status: DurableStatus) -> str | None:
    """Why an instance ended so: what the orchestrator says, else an `error` or `message` beside."""
    beside = status.body if isinstance(status.body, Mapping) else {}
    given = (status.output, status.custom_status, beside.get("error"), beside.get("message"))
    reason = next((each for each in given if each is not None), None)
    if reason is None or isinstance(reason, str):
        return reason
    return json.dumps(reason, default=str)


def failure_of(
    status: DurableStatus, status_url: str | None, api_key: str | None = None
) -> OrchestrationFailedError:
    """Return the error for an instance that ended without success; it shows neither key."""
    name = "the orchestration" if status.instance_id is None else f"instance {status.instance_id!r}"
    reason = redact_secrets(without_keys(reason_of(status) or "", *keys_in(status_url), api_key))
    if len(reason) > 500:
        reason = f"{reason[:500]}..."
    return OrchestrationFailedError(
        f"{name} ended as {status.runtime_status}{': ' if reason else ''}{reason}; look into the "
        "logs of the function app for the cause, then start it again",
        status_url=status_url,
        last_status=status,
    )


class _NoJson(str):
    """A body that is not JSON."""

    __slots__ = ()


def json_of(response: "httpx.Response") -> Any:
    """The body: of JSON, text of another kind, or `None` where it is empty."""
    if not response.content.strip():
        return None
    try:
        value = read_json(response, object_pairs_hook=_object)
        if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
            value = json.loads(value, object_pairs_hook=_object)  # it was serialized twice
    except (ValueError, RecursionError):
        return _NoJson(response.content.decode("utf-8", "replace"))
    return value


def read_json(response: "httpx.Response", **options: Any) -> Any:
    """The JSON of an answer, also in the charset that it names against RFC 8259.

    Raises:
        ValueError: It is none.
    """
    try:
        return json.loads(response.content, **options)
    except UnicodeDecodeError:
        return json.loads(response.text, **options)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: It holds two statuses under one name.
    """
    fields = dict(pairs)
    for name, value in pairs if len(fields) < len(pairs) else ():
        if _plain(name) in ("runtimestatus", "status") and value != fields[name]:
            raise ValueError(name)
    return fields


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
    """A member by its name; by its name in another spelling where there is none."""
    if name in fields:
        return fields[name]
    return next((value for key, value in fields.items() if _plain(key) == name.lower()), None)


def text_of(fields: Mapping[str, Any], *names: str) -> str | None:
    values = (_member(fields, name) for name in names)
    return next((v.strip() for v in values if isinstance(v, str) and v.strip()), None)


def retry_after_of(response: "httpx.Response") -> float | None:
    from infra_core.polling import retry_after

    return retry_after(response)
