"""What the Table service refused, or why there was no answer, in words of ours.

The SDK's errors hold the raw answer, objects of urllib3 and aiohttp, or a page about credentials.
Ours say what was tried, where, what the service said and what to do; they are also of the SDK's
classes that 0.7 let through, and have its error as `__cause__`.
"""

import errno
import socket
import ssl
from typing import Any

import azure.core  # noqa: F401 - before its parts: another thread may import it
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from infra_core.http.engine import NetworkSettings
from infra_core.runtime import error_chain, redact_secrets, sanitize_url

from .._access import access_remedy
from .._tokens import TokenTimeoutError, credential_problem
from ..exceptions import AzureTableError
from ._config import CONNECTION_VAR, TableConfig

__all__ = [
    "TableAccessError",
    "TableConnectionError",
    "TableNotFoundError",
    "TableRequestError",
    "is_outdated",
    "is_table_missing",
    "refusal_of",
    "table_error",
]


class TableRequestError(AzureTableError, HttpResponseError):
    """The Table service answered with an error.

    Attributes:
        status: HTTP status, 0 when the SDK gives none.
        code: The service's error code, such as `TableNotFound`.
        request_id: What the service calls the request, for support.
    """

    def __init__(
        self, message: str, *, status: int = 0, code: str = "", request_id: str = ""
    ) -> None:
        HttpResponseError.__init__(self, message)
        self.status = status
        self.status_code: int | None = status
        self.code = code
        self.error_code: str = code
        self.request_id = request_id


class TableNotFoundError(TableRequestError, ResourceNotFoundError):
    """There is no such table."""


class TableAccessError(TableRequestError, ClientAuthenticationError):
    """The service does not let us (401, 403), or there is no credential to ask with."""


class TableConnectionError(AzureTableError, ServiceRequestError, ServiceResponseError):
    """No answer came. Whether the service did what it was asked is not known."""

    def __init__(self, message: str) -> None:
        ServiceRequestError.__init__(self, message)


_ACCESS = (
    "check the account key or SAS token and whether it has expired, the role 'Storage Table Data "
    "Contributor' of this identity, and the account's network rules"
)
_OUTDATED = ("UpdateConditionNotSatisfied", "ResourceNotFound", "EntityNotFound")
_LATER = "the SDK has retried without success; try again later"
_REMEDIES = {
    "TableNotFound": "create the table, or close this store and open another: opening makes the "
    "table where the credential may",
    "TableBeingDeleted": "wait until it is gone, about 40 seconds, or choose another name",
    "InvalidResourceName": "check that the endpoint is that of a table service, such as "
    "https://ACCOUNT.table.core.windows.net",
    "ServerBusy": "the SDK has retried without success; slow down, or use more batches",
}


def is_table_missing(error: HttpResponseError) -> bool:
    """Whether a 404 is about the table rather than about a row."""
    return _code(error) == "TableNotFound"


def is_outdated(error: HttpResponseError) -> bool:
    """Whether a transaction was refused since a row has another version or is gone."""
    return error.status_code == 412 or _code(error) in _OUTDATED


def refusal_of(error: Exception) -> HttpResponseError | None:
    """Return the refusal that an error is, or comes of: the SDK fails to read some headers."""
    return next((e for e in error_chain(error) if isinstance(e, HttpResponseError)), None)


def table_error(error: Exception, doing: str, config: TableConfig) -> Exception:
    """Return the error to raise for one of the SDK's; any other is returned as it is."""
    # The endpoint, as far as the settings name it, and nothing that could be secret.
    where = sanitize_url(_endpoint(config))
    place = f"{doing} in the job table {config.table_name!r} at {where} failed"
    explained: Exception
    error = refusal_of(error) or error
    if isinstance(error, ClientAuthenticationError) and not error.status_code:
        explained = TableAccessError(f"{place}: {_credential_problem(error)}")
    elif isinstance(error, HttpResponseError):
        explained = _refusal(error, place, by_token=not config.connection_string)
    elif isinstance(error, (ServiceRequestError, ServiceResponseError)):
        proxy = _through_proxy(config)
        explained = TableConnectionError(f"{place}{proxy}: {_connection_problem(error)}")
    else:
        return error
    explained.__cause__ = error
    return explained


def _refusal(error: HttpResponseError, place: str, *, by_token: bool) -> TableRequestError:
    status, code = error.status_code or 0, _code(error)
    kind, remedy = TableRequestError, _REMEDIES.get(code, "")
    if code == "TableNotFound":
        kind = TableNotFoundError
    elif status in (401, 403):
        known = access_remedy(code, status if by_token else 0)
        kind, remedy = TableAccessError, remedy or known or _ACCESS
    elif status == 404:
        remedy = remedy or "check the account name and the endpoint"
    elif status >= 500 or status in (408, 429):
        remedy = remedy or _LATER
    elif status < 400:
        remedy = "no Table service answers so: check the endpoint and the proxies in between"
    remedy = remedy or access_remedy(code)
    text = error.message.partition("\n")[0].rstrip(".")
    if text.startswith("Operation returned"):  # the SDK's own text, which repeats the status
        text = error.reason or ""
    said = redact_secrets(": ".join(part for part in (code, text) if part))
    headers: Any = getattr(error.response, "headers", {})
    return kind(
        f"{place}{f' with status {status}' if status else ''}"
        f"{f' ({said})' if said else ''}{f'; {remedy}' if remedy else ''}",
        status=status,
        code=code,
        request_id=headers.get("x-ms-request-id", ""),
    )


def _code(error: HttpResponseError) -> str:
    code = getattr(error, "error_code", None)
    headers: Any = getattr(error.response, "headers", {})
    return str(getattr(code, "value", code) or headers.get("x-ms-error-code", ""))


def _credential_problem(error: ClientAuthenticationError) -> str:
    if type(error).__name__ == "AzureSigningError":
        return (
            "the AccountKey of the connection string is not base64; copy the connection string "
            "again from the portal, quotes and line breaks are often lost or added on the way"
        )
    said, remedy = credential_problem(error, f"a connection string in {CONNECTION_VAR}")
    return said if isinstance(error, TokenTimeoutError) else f"no credential ({said}); {remedy}"


def _connection_problem(error: AzureError) -> str:
    causes = list(error_chain(error, suppressed=True))
    check = "check the account name and the endpoint"
    for cause in causes:
        if isinstance(cause, socket.gaierror) or type(cause).__name__ == "NameResolutionError":
            return f"cannot resolve the host name (DNS); {check}"
        # aiohttp's own classes of these kinds have the texts in the error that they wrap, or none
        if isinstance(cause, ssl.SSLCertVerificationError):
            inner = getattr(cause, "certificate_error", cause)
            why = str(getattr(inner, "verify_message", "") or "it cannot be verified").rstrip(".")
            return (
                f"its certificate is not trusted ({why}); {check}, this machine's clock, and name "
                "the file of its authority in SSL_CERT_FILE"
            )
        if isinstance(cause, ssl.SSLError):
            reason = str(getattr(cause, "reason", None) or "no reason given").replace("_", " ")
            return (
                f"the TLS handshake failed ({reason.lower()}); check the endpoint: one that speaks "
                "plain HTTP, such as Azurite, begins with http://"
            )
    number = next((c.errno for c in causes if isinstance(c, OSError) and c.errno), None)
    network = "check the network in between"
    if number == errno.ECONNREFUSED:
        return f"the connection was refused; {check}, and that the service runs"
    if any("Timeout" in type(cause).__name__ for cause in causes):
        return f"no answer in time; {network} and the service"
    if number in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return f"there is no route to it; {network}"
    return f"the connection broke before the answer came; {network}"


def _through_proxy(config: TableConfig) -> str:
    """The proxy that the environment names for the endpoint, in words."""
    try:
        proxy = NetworkSettings.read().proxy_for(_endpoint(config))
    except ValueError:
        return ""
    return "" if proxy is None else f" through the proxy {proxy.where} of {proxy.variable}"


def _endpoint(config: TableConfig) -> str:
    parts = config.connection()  # it was read before anything could fail
    return str(parts.table_endpoint if parts else config.resolved_table_endpoint)
