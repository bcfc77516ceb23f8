"""The protocol of Durable Functions, without I/O: what a starter answers, and what to ask next.

Source: Microsoft, "HTTP API reference" of Durable Functions. A starter answers 202 with a JSON body
(`statusQueryGetUri`, `terminatePostUri`) and `Location`; the status URL answers 202 while the
instance runs and 200 when it has ended. The URLs carry a key (`code`) that opens every instance of
the app, so nothing here prints them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit, urlunsplit

from infra_core.runtime import sanitize_url

from ._checks import split_url
from ._durable_status import (
    DurableStatus,
    beginning_of,
    has_runtime_status,
    holder_of,
    is_result,
    json_of,
    retry_after_of,
    state_in,
    text_of,
)
from .exceptions import OrchestrationError

if TYPE_CHECKING:
    import httpx

__all__ = ["DurableInstance", "management_url", "read_start", "secure_url"]

# What an instance can be asked, and the members of a starter's answer that say where. Beside them
# all, the status URL leads there: with the verb behind it, or alone for `purge`.
_MANAGEMENT_URIS = {
    "terminate": "terminatePostUri", "suspend": "suspendPostUri", "resume": "resumePostUri",
    "rewind": "rewindPostUri", "raiseEvent": "sendEventPostUri", "purge": "purgeHistoryDeleteUri",
}  # fmt: skip
# The isolated worker of .NET writes its braces twice.
_PLACEHOLDER = re.compile(r"(\{|%7B)+(text|eventName)(\}|%7D)+", re.IGNORECASE)


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


def read_start(
    response: "httpx.Response", *, what: str, accept_result: bool = False
) -> DurableInstance:
    """Read the answer of a starter.

    A function that is not durable has ended when it answers. So without a status URL a 200 is an
    end where its body says so: by a `runtimeStatus`, or by a `status` of its own such as `success`
    or `failed`. A `status` beside an `instanceId` is none: it speaks of the start. With
    `accept_result` any JSON of a 200 is the output of an orchestration that has ended. `what` was
    called, for the error message.

    Raises:
        OrchestrationError: It names no status URL, and no end of an instance either.
    """
    body = json_of(response)
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
    fields = holder_of(body, "statusQueryGetUri") or (body if isinstance(body, Mapping) else {})
    instance_id = text_of(fields, "id", "instanceId")
    # The body's URL is the protocol's own; Location may be what a proxy in between made of it.
    status_url = text_of(fields, "statusQueryGetUri") or response.headers.get("location")
    if status_url:
        urls = {
            verb: _whole_url(response, url, instance_id, what)
            for verb, member in _MANAGEMENT_URIS.items()
            if (url := text_of(fields, member))
        }
        return DurableInstance(
            id=instance_id,
            status_url=_whole_url(response, status_url, instance_id, what),
            terminate_url=urls.pop("terminate", None),
            retry_after=retry_after_of(response),
            urls=urls,
        )
    if response.status_code == 202:
        raise OrchestrationError(
            f"{what} answered 202 with neither statusQueryGetUri nor Location, so its end cannot "
            "be followed; return create_check_status_response() from the starter"
        )
    status = state_in(response, body)
    if status is not None and status.is_terminal:
        # `{"status": "success", "instanceId": "7"}` says that it was started.
        named = text_of(holder_of(body, "instanceId") or {}, "instanceId")
        if status.failed or not named or has_runtime_status(body):
            return DurableInstance(id=status.instance_id, finished=status)
    elif accept_result and status is None and response.status_code == 200 and is_result(body):
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
    path = parts.path.rstrip("/") + ("" if verb == "purge" else f"/{verb}")
    if name:
        path += f"/{quote(name, safe='')}"
    query = [("reason", reason)] if reason else []
    query += parse_qsl(parts.query, keep_blank_values=True)
    return urlunsplit((parts.scheme, parts.netloc, path, urlencode(query), ""))
