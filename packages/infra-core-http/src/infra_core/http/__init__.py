"""Fetch and download by the thousand: retries that are honest, files that are verified."""

from typing import TYPE_CHECKING

from infra_core.runtime.lazy import lazy_exports

if TYPE_CHECKING:
    from ._errors import (
        ChecksumMismatchError as ChecksumMismatchError,
        DownloadDeadlineError as DownloadDeadlineError,
        DownloadDiskError as DownloadDiskError,
        DownloadError as DownloadError,
        DownloadTooLargeError as DownloadTooLargeError,
        HttpError as HttpError,
        IncompleteDownloadError as IncompleteDownloadError,
        InvalidRequestError as InvalidRequestError,
        OutcomeUnknown as OutcomeUnknown,
        ResponseTooLarge as ResponseTooLarge,
    )

__all__ = [
    "ChecksumMismatchError",
    "DownloadDeadlineError",
    "DownloadDiskError",
    "DownloadError",
    "DownloadTooLargeError",
    "HttpError",
    "IncompleteDownloadError",
    "InvalidRequestError",
    "OutcomeUnknown",
    "ResponseTooLarge",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "._errors": [
            "ChecksumMismatchError",
            "DownloadDeadlineError",
            "DownloadDiskError",
            "DownloadError",
            "DownloadTooLargeError",
            "HttpError",
            "IncompleteDownloadError",
            "InvalidRequestError",
            "OutcomeUnknown",
            "ResponseTooLarge",
        ],
    },
)
