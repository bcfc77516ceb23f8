"""What Application Insights answers, and what that means for each item of a batch.

Pure: no clock, no I/O. The rules are those of the Breeze endpoint as its SDKs apply them: 200 all
accepted, 206 some, 408/429/5xx try again, 402/439 a quota is used up, anything else refused. What
only a proxy or a sign-in page in between answers (3xx, 407) says nothing of the items.
"""

import json
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Answer", "Verdict", "judge"]

_RETRY = frozenset({*range(300, 307), 407, 408, 425, 429, *range(500, 600)})
_QUOTA = frozenset({402, 439})


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer to a batch, or why there is none."""

    status: int  # 0 when the connection failed, -1 when there is no use in trying again
    body: bytes = b""
    retry_after: float | None = None
    error: str = ""  # what went wrong then


@dataclass(slots=True)
class Verdict:
    """What becomes of the items of a batch, by index; each is named exactly once."""

    delivered: list[int] = field(default_factory=list)
    retry: list[int] = field(default_factory=list)
    dropped: dict[int, str] = field(default_factory=dict)  # they are lost, and why
    split: bool = False  # the batch was too large: send it again in halves
    reason: str = ""  # why those to be sent again were refused


def judge(answer: Answer, count: int) -> Verdict:
    """Decide what becomes of each of so many items."""
    everything = list(range(count))
    if answer.status == 0:
        return Verdict(retry=everything, reason=answer.error or "connection_error")
    if answer.status < 0:
        return Verdict(dropped=dict.fromkeys(everything, answer.error or "failed"))
    if answer.status in _RETRY or (answer.status in _QUOTA and answer.retry_after):
        return Verdict(retry=everything, reason=f"http_{answer.status}")
    if answer.status in _QUOTA:
        return Verdict(dropped=dict.fromkeys(everything, f"quota_http_{answer.status}"))
    if answer.status == 413 and count > 1:
        return Verdict(retry=everything, split=True, reason="http_413")
    if 200 <= answer.status < 300 or answer.status == 400:
        return _by_item(answer, count)
    return Verdict(dropped=dict.fromkeys(everything, f"http_{answer.status}"))


def _by_item(answer: Answer, count: int) -> Verdict:
    """Judge by the `errors` that the body lists; those not listed go with the batch."""
    document = _read(answer.body)
    if document is None and answer.body.strip() and answer.status != 400:
        # A page of some proxy, say: whether the service has taken anything is not known.
        return Verdict(retry=list(range(count)), reason=f"http_{answer.status}_unreadable")
    document = document or {}
    accepted = _whole(document.get("itemsAccepted"))
    if accepted is not None and not 0 <= accepted <= count:
        accepted = None
    refused, all_named = _refused(document, count, accepted)
    fewer = accepted < count if accepted is not None else bool(document.get("errors"))
    some_refused = answer.status == 206 or (fewer and answer.status != 400)
    unknown = some_refused and not all_named  # which they are
    verdict = Verdict(reason=f"http_{answer.status}_unreadable" if unknown else "")
    for index in range(count):
        status = refused.get(index)
        if status is None and unknown:
            verdict.retry.append(index)
        elif status is None and answer.status == 400:
            verdict.dropped[index] = "http_400"
        elif status is None or 200 <= status < 300:
            verdict.delivered.append(index)
        elif status in _RETRY:
            verdict.retry.append(index)
            verdict.reason = f"item_{status}"
        else:
            verdict.dropped[index] = f"item_{status}"
    return verdict


def _read(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _refused(
    document: dict[str, Any], count: int, accepted: int | None
) -> tuple[dict[int, int], bool]:
    """Status of each refused item by index, and whether the answer names all that were refused."""
    errors = document.get("errors")
    refused: dict[int, int] = {}
    readable = isinstance(errors, list)
    for error in errors if isinstance(errors, list) else ():
        fields = error if isinstance(error, dict) else {}
        index, status = _whole(fields.get("index")), _whole(fields.get("statusCode"))
        if index is None or status is None or not 0 <= index < count:
            readable = False
        else:
            refused[index] = status
    if accepted is not None:
        return refused, len(refused) == count - accepted
    return refused, readable


def _whole(value: object) -> int | None:
    """A whole number of an answer, `None` for anything else (NaN, Infinity, a text)."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
