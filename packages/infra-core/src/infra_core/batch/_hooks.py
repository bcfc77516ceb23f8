"""What the caller of a batch hears of it while it runs."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from inspect import iscoroutinefunction

from ._items import BatchItem, Rejected
from ._results import BatchProgress, BatchResult, BatchRetry

__all__ = ["Hooks", "call"]

_logger = logging.getLogger("infra_core.batch")


@dataclass(frozen=True)
class Hooks:
    """Functions of the caller's, see `run_batch_async`; each is called in the event loop.

    Raises:
        TypeError: One is an async function, or no function.
    """

    on_result: Callable[[BatchResult], object] | None = None
    on_retry: Callable[[BatchRetry], object] | None = None
    on_progress: Callable[[BatchProgress], object] | None = None
    on_rejected: Callable[[Rejected], object] | None = None
    on_duplicate: Callable[[BatchItem], object] | None = None
    on_event: Callable[[str, str], object] | None = None

    def __post_init__(self) -> None:
        for name, hook in vars(self).items():
            if iscoroutinefunction(hook) or iscoroutinefunction(getattr(hook, "__call__", None)):  # noqa: B004 - not whether it can be called
                raise TypeError(
                    f"{name} is an async function, and nothing would await it: pass a plain one, "
                    "which may start a task (asyncio.create_task) or fill a queue"
                )
            if hook is not None and not callable(hook):
                raise TypeError(f"{name} must be a function, got {hook!r:.80}")


def call(hook: Callable[..., object] | None, *arguments: object) -> None:
    """Call a hook; what it raises is logged and ends nothing."""
    if hook is None:
        return
    try:
        hook(*arguments)
    except Exception:
        _logger.exception("a hook of the batch raised")
