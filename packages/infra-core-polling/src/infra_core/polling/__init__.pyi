from ._config import PollingConfig as PollingConfig
from ._errors import (
    PollingCancelledError as PollingCancelledError,
    PollingError as PollingError,
    PollingFailureError as PollingFailureError,
    PollingTimeoutError as PollingTimeoutError,
)
from ._many import PollOutcome as PollOutcome, poll_many_async as poll_many_async
from ._poll import poll_until as poll_until, poll_until_async as poll_until_async
from ._signals import is_transient as is_transient, retry_after as retry_after
from ._status import (
    StatusExtractor as StatusExtractor,
    StatusPoller as StatusPoller,
    T as T,
    T_co as T_co,
    extract_status as extract_status,
    status_at as status_at,
)
