"""Errors of the storage client.

The tree (the classes of `azure.core.exceptions` in brackets are further bases, so that code
written for 0.7, which let the SDK's errors through, goes on working)::

    AzureServiceError
      StorageError                     .blob, .operation
        StorageRequestError            the service refused [HttpResponseError] .status, .code
          BlobNotFoundError            no such blob or container [ResourceNotFoundError]
          BlobConflictError            it exists, or another client changed it [ResourceExistsError]
          StorageAccessError           401, 403 [ClientAuthenticationError]
        StorageConnectionError         no answer: reset, refused, cut off [ServiceRequestError]
          StorageTimeoutError          no answer in time [TimeoutError]
        IntegrityError                 the bytes are not those that were stored
        LocalFileChangedError             the local file changed while it was read
        UnsafeNamesError               names that must not become files or blobs [ValueError]
        TreeTransferError              some files of a tree failed .report
        JournalError                   the journal of pending uploads cannot be read or written
"""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import azure.core  # noqa: F401 - before its parts: another thread may import it
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServiceRequestError,
)

from .._access import access_remedy
from ..exceptions import AzureServiceError
from ._refusals import (
    CONDITIONS,
    CONDITIONS_REMEDIES,
    LIMITS_OF_A_TOKEN,
    REMEDIES,
    is_permanent,
)

Ending = Literal["pending", "refused", "dropped"]

if TYPE_CHECKING:
    from ._tree_types import TreeReport

__all__ = [
    "BlobConflictError",
    "BlobNotFoundError",
    "Ending",
    "IntegrityError",
    "JournalError",
    "LocalFileChangedError",
    "StorageAccessError",
    "StorageConnectionError",
    "StorageError",
    "StorageRequestError",
    "StorageTimeoutError",
    "TreeTransferError",
    "UnsafeNamesError",
    "describe",
    "ending_of",
    "error_of",
    "local_error",
    "request_error",
]


class StorageError(AzureServiceError):
    """Root of what goes wrong with blobs.

    Attributes:
        blob: Name of the blob, or of the container.
        operation: What was tried, such as `upload`.
        attempts: How often it was tried.
        remedy: What to do about it, as the message ends; empty where that is all in the message.
    """

    attempts = 1

    def __init__(
        self, message: str, *, blob: str = "", operation: str = "", remedy: str = ""
    ) -> None:
        self.blob = blob
        self.operation = operation
        self.remedy = remedy
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        tried = f" ({self.attempts} attempts)" if self.attempts > 1 else ""
        return f"{self.message}{tried}; {self.remedy}" if self.remedy else f"{self.message}{tried}"


E = TypeVar("E", bound=StorageError)


class StorageRequestError(StorageError, HttpResponseError):
    """The service answered with an error.

    Attributes:
        status: HTTP status.
        code: The service's error code, such as `ContainerNotFound`.
        request_id: What the service calls the request, for support.
        retry_after: Seconds that the service asked to wait, if it did.
        permanent: Whether the same request will be refused for ever, as far as the answer says.
    """

    permanent = False

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str = "",
        blob: str = "",
        operation: str = "",
        request_id: str = "",
        retry_after: float | None = None,
        remedy: str = "",
    ) -> None:
        super().__init__(message, blob=blob, operation=operation, remedy=remedy)
        self.status = status
        self.status_code: int | None = status
        self.code = code
        self.error_code = code
        self.request_id = request_id
        self.retry_after = retry_after


class BlobNotFoundError(StorageRequestError, ResourceNotFoundError):
    """There is no such blob, or no such container."""


class BlobConflictError(StorageRequestError, ResourceExistsError):
    """The blob exists with other content, or another client changed it since it was looked at."""

    @property
    def by_condition(self) -> bool:
        """Whether `overwrite` forbids it; other conflicts have other reasons, such as a lease."""
        return self.code in CONDITIONS


class StorageAccessError(StorageRequestError, ClientAuthenticationError):
    """The service does not allow it: wrong key, expired SAS token, missing role or permission.

    Attributes:
        challenge: What a token must be asked for with to be accepted, where the service says so:
            `claims` (JSON) and `tenant_id`.
    """

    challenge: Mapping[str, str] = MappingProxyType({})

    @property
    def by_permission(self) -> bool:
        """Whether the credential is accepted, and only this operation is beyond it."""
        return self.code in LIMITS_OF_A_TOKEN


class StorageConnectionError(StorageError, ServiceRequestError):
    """No answer came: the connection was refused, reset or cut off.

    Attributes:
        permanent: Whether trying again is of no use (unknown host, certificate not trusted).
    """

    permanent = False


class StorageTimeoutError(StorageConnectionError, TimeoutError):
    """No answer came in time."""


class JournalError(StorageError):
    """The journal of pending uploads cannot be read or written."""


class IntegrityError(StorageError):
    """What came is not what was stored: length, hash or range differ.

    Attributes:
        permanent: Whether it will be so every time: the same bytes came twice.
    """

    permanent = False


class LocalFileChangedError(StorageError):
    """The local file changed while it was being uploaded, or since it was compared."""


class UnsafeNamesError(StorageError, ValueError):
    """Names that must not become files (or blobs); nothing of the tree was touched.

    Attributes:
        names: Each name with the reason against it.
    """

    def __init__(
        self,
        names: Mapping[str, str],
        *,
        operation: str,
        more: int = 0,
        remedy: str = "rename them at the source, exclude them, or pass on_unsafe='skip' to "
        "transfer all others",
    ) -> None:
        self.names: dict[str, str] = dict(names)
        listed = "; ".join(f"{_short(name)}: {reason}" for name, reason in [*names.items()][:10])
        hidden = len(names) + more - 10
        rest = f"; and {hidden} more" if hidden > 0 else ""
        many = "unsafe names" if len(names) + more > 1 else "an unsafe name"
        super().__init__(
            f"refused to {operation} {many}: {listed}{rest}", operation=operation, remedy=remedy
        )


def _short(name: str) -> str:
    """A name for a message; names may have a thousand characters."""
    return repr(name) if len(name) <= 120 else f"{name[:117]!r}..."


class TreeTransferError(StorageError):
    """Some files of a tree could not be transferred; all others were.

    Attributes:
        report: The whole outcome, failures included.
    """

    def __init__(self, message: str, *, report: "TreeReport", operation: str) -> None:
        super().__init__(message, operation=operation)
        self.report = report


def error_of(
    kind: type[E], operation: str, blob: str, what: str, remedy: str = "", **more: Any
) -> E:
    """The error of an operation on a blob that met `what`."""
    text = f"{operation} of {blob!r} {what}"
    return kind(text, blob=blob, operation=operation, remedy=remedy, **more)


def request_error(
    status: int,
    code: str,
    text: str,
    *,
    blob: str,
    operation: str,
    request_id: str = "",
    retry_after: float | None = None,
    access: str = "check key, SAS token or role, and whether they have expired",
    by_role: bool = False,
) -> StorageRequestError:
    """The error of the class that fits a status, with the remedy where there is one.

    `access` is the remedy for what is not allowed; for `by_role` see `is_permanent`.
    """
    kind = StorageRequestError
    remedy = REMEDIES.get(code, "") or access_remedy(code)
    permanent = is_permanent(status, code, by_role=by_role)
    if status == 404:
        kind = BlobNotFoundError
        remedy = remedy or "check the account, the container and the name"
    elif status in (401, 403):
        kind = StorageAccessError
        remedy = remedy or access
    elif status in (409, 412):
        kind = BlobConflictError
        if code in CONDITIONS:
            remedy = CONDITIONS_REMEDIES.get(operation, CONDITIONS_REMEDIES["upload"])
        waiting = "waiting does not help" if permanent else "it passes by itself: try again later"
        remedy = remedy or f"look the code up in Azure's documentation; {waiting}"
    elif status == 407:
        remedy = "the proxy wants a user name and a password; set both in HTTP_PROXY or HTTPS_PROXY"
    elif status == 413:
        remedy = remedy or REMEDIES["RequestBodyTooLarge"]
    elif status < 400:
        remedy = "check that the endpoint is a blob service: one answers by itself, this elsewhere"
    elif status in (408, 429) or status >= 500:
        asked = "" if retry_after is None else f" in {retry_after:g} s"
        remedy = f"the service is busy or down: try again{asked or ' later'}, with more retries"
    elif not remedy:
        remedy = "this request will be refused again: look the code up in Azure's documentation"
    said = f"{code or 'no error code'}{': ' + text if text else ''}"
    error = error_of(
        kind,
        operation,
        blob,
        f"failed with status {status} ({said})",
        remedy,
        status=status,
        code=code,
        request_id=request_id,
        retry_after=retry_after,
    )
    error.permanent = permanent
    return error


def ending_of(error: BaseException) -> Ending:
    """What becomes of an upload that failed of this.

    `pending`: it may pass, and is made up for. `refused`: the service will never take it, and it
    stays listed. `dropped`: `overwrite` or its name forbids it, or there is no such file.
    """
    if isinstance(error, BlobConflictError) and error.by_condition:
        return "dropped"
    hopeless = (FileNotFoundError, IsADirectoryError, NotADirectoryError, UnsafeNamesError)
    if isinstance(error, hopeless):
        return "dropped"
    if isinstance(error, StorageRequestError) and error.permanent:
        return "refused"
    return "pending"


def describe(error: BaseException, operation: str, name: str) -> str:
    """An error for a log, with operation and name exactly once."""
    if isinstance(error, StorageError) and error.operation:
        return str(error)
    return f"{operation} of {name!r} failed: {error}"


_LOCAL = {
    errno.ENOENT: "there is no such file; write it first, or correct the path",
    errno.EISDIR: "it is a folder; upload_tree takes folders",
    errno.ENOTDIR: "a part of its path is a file; correct the path",
    errno.EACCES: "let this user read it",
    errno.EPERM: "let this user read it",
    errno.EINVAL: "a pipe or a device has no end: write what it gives to a file, and upload that",
}


def local_error(error: OSError, path: str | Path, what: str = "file to upload") -> OSError:
    """The same error, of the same class, with what could not be read and what to do."""
    reason = error.strerror or str(error)
    remedy = _LOCAL.get(error.errno or 0, "check the disk and try again")
    if what == "folder":
        remedy += ", or leave it out with exclude (--exclude)"
    return OSError(
        error.errno or errno.EIO, f"cannot read the {what} ({reason}); {remedy}", os.fspath(path)
    )
