from . import clock as clock, lazy as lazy, testing as testing
from ._background_loop import (
    in_background_loop as in_background_loop,
    on_background_close as on_background_close,
    refuse_running_loop as refuse_running_loop,
    run_sync as run_sync,
)
from ._dask import DaskTaskRuntime as DaskTaskRuntime
from ._exceptions import (
    add_note as add_note,
    error_chain as error_chain,
    name_call as name_call,
)
from ._forks import ForkGuard as ForkGuard, after_fork_in_child as after_fork_in_child
from ._loop_local import LoopBoundAsyncLock as LoopBoundAsyncLock, LoopLocal as LoopLocal
from ._outcomes import (
    RuntimeStats as RuntimeStats,
    TaskOutcome as TaskOutcome,
    TaskStatus as TaskStatus,
)
from ._printable import printable as printable
from ._rate import RateLimit as RateLimit
from ._redaction import (
    REDACTED as REDACTED,
    is_secret_name as is_secret_name,
    redact_headers as redact_headers,
    redact_sas_tokens as redact_sas_tokens,
    redact_secrets as redact_secrets,
    sanitize_url as sanitize_url,
)
from ._retry import (
    RetryDeadlineError as RetryDeadlineError,
    retry_async as retry_async,
    retry_sync as retry_sync,
)
from ._retry_policy import (
    RetryDetails as RetryDetails,
    RetryPolicy as RetryPolicy,
    parse_retry_after as parse_retry_after,
)
from ._secret_filter import (
    SecretFilter as SecretFilter,
    redact_library_logs as redact_library_logs,
)
from ._signals import SignalState as SignalState, handle_signals as handle_signals
from ._task_errors import (
    RuntimeCancellationError as RuntimeCancellationError,
    RuntimeDrainedError as RuntimeDrainedError,
    TaskTimeoutError as TaskTimeoutError,
)
from ._task_options import RuntimeConfig as RuntimeConfig
from ._task_runtime import TaskRuntime as TaskRuntime
from ._task_stream import TaskStream as TaskStream
from ._thread_batcher import ThreadBatcher as ThreadBatcher
from ._threads import (
    ThreadPool as ThreadPool,
    in_thread as in_thread,
    until_done as until_done,
    until_set as until_set,
)
from ._trace import trace_fields as trace_fields
from ._transport_errors import (
    is_permanent_transport_error as is_permanent_transport_error,
    should_retry_http_exception as should_retry_http_exception,
    should_retry_requests_exception as should_retry_requests_exception,
)
from ._values import is_async_function as is_async_function, is_number as is_number
from .clock import timeout as timeout
