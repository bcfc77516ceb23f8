"""Poll until done, never past the deadline: sync, async, and ten thousand jobs at once.

Names are imported when they are first used.
"""

from typing import TYPE_CHECKING

from infra_core.runtime.lazy import lazy_exports

if TYPE_CHECKING:
    from ._config import PollingConfig as PollingConfig
    from ._errors import (
        PollingCancelledError as PollingCancelledError,
        PollingError as PollingError,
        PollingFailureError as PollingFailureError,
        PollingTimeoutError as PollingTimeoutError,
    )
    from ._many import poll_many_async as poll_many_async
    from ._outcome import PollOutcome as PollOutcome
    from ._poll import poll_until as poll_until, poll_until_async as poll_until_async
    from ._signals import is_transient as is_transient, retry_after as retry_after
    from ._status import (
        StatusExtractor as StatusExtractor,
        T_co as T_co,
        extract_status as extract_status,
        status_at as status_at,
    )
    from ._status_poller import StatusPoller as StatusPoller, T as T

__all__ = [
    "PollOutcome",
    "PollingCancelledError",
    "PollingConfig",
    "PollingError",
    "PollingFailureError",
    "PollingTimeoutError",
    "StatusExtractor",
    "StatusPoller",
    "T",
    "T_co",
    "extract_status",
    "is_transient",
    "poll_many_async",
    "poll_until",
    "poll_until_async",
    "retry_after",
    "status_at",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "._config": ["PollingConfig"],
        "._errors": [
            "PollingCancelledError",
            "PollingError",
            "PollingFailureError",
            "PollingTimeoutError",
        ],
        "._many": ["poll_many_async"],
        "._outcome": ["PollOutcome"],
        "._poll": ["poll_until", "poll_until_async"],
        "._signals": ["is_transient", "retry_after"],
        "._status": ["StatusExtractor", "T_co", "extract_status", "status_at"],
        "._status_poller": ["StatusPoller", "T"],
    },
)
