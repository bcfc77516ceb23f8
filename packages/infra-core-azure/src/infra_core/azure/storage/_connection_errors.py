"""Messages for requests without an answer: what the engine says, and which setting to look at."""

from urllib.parse import urlsplit

import aiohttp
import httpx

from infra_core.runtime import is_permanent_transport_error, redact_secrets

from ._config import _AzureStorageConfig
from ._errors import StorageConnectionError, StorageTimeoutError, error_of

__all__ = ["connection_error", "deadline_error"]

# What the engine's errors are raised from, where its cause says no more than the network did.
_CHAINED = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError)


def connection_error(
    error: Exception,
    *,
    config: _AzureStorageConfig,
    limit: float,
    blob: str,
    operation: str,
) -> StorageConnectionError:
    """The error for what a request, given `limit` seconds, met instead of an answer."""
    timed_out = not isinstance(error, httpx.TransportError) or isinstance(
        error, httpx.TimeoutException
    )
    kind = StorageTimeoutError if timed_out else StorageConnectionError
    what, _, remedy = redact_secrets(str(error)).rpartition(": ")  # as the engine writes it
    if not isinstance(error, httpx.TransportError):
        what = f"{urlsplit(config.endpoint).netloc} was not done within {limit:g} s"
    if timed_out:
        connecting = isinstance(error, httpx.ConnectTimeout)
        setting = "connect_timeout" if connecting else "timeout"
        now = getattr(config.options, setting)
        remedy = f"check {config.endpoint_setting} and the network in between, or raise "
        remedy += f"{config.variable(setting)} ({now:g} s now) on slow links"
    elif " proxy " in what:
        remedy += "; check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
    else:
        remedy = remedy.partition(", or pass verify=")[0]  # which other callers can
        remedy += f"; check that {config.endpoint_setting} names the right account or endpoint"
    failure = error_of(kind, operation, blob, f"failed: {what}", remedy)
    # A name without address, a certificate that is not trusted: these stay so.
    failure.permanent = is_permanent_transport_error(error.__cause__ or error)
    failure.__cause__ = _root_cause(error)
    return failure


def deadline_error(
    config: _AzureStorageConfig, last: BaseException | None, *, blob: str, operation: str
) -> StorageTimeoutError:
    """The error for a request that its deadline cut off; `last` is what a try before it met."""
    options = config.options
    before = f"; the try before: {last}" if isinstance(last, StorageConnectionError) else ""
    return error_of(
        StorageTimeoutError,
        operation,
        blob,
        f"was not done within the deadline of {options.deadline:g} s, retries included{before}",
        f"raise {config.variable('deadline')}, or lower {config.variable('timeout')} "
        f"({options.timeout:g} s now) so that a silent server is asked again sooner",
    )


def _root_cause(error: Exception) -> Exception | None:
    """What may be shown, and pickled, of an error's cause: the system's own error."""
    if not isinstance(error, httpx.TransportError):
        return error
    below = error.__cause__
    if not isinstance(below, _CHAINED):
        return None
    return getattr(below, "certificate_error", None) or getattr(below, "os_error", None) or below
