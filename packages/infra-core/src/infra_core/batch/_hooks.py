"""Whom a batch tells what happens."""

import logging
from collections.abc import Callable

from ._items import BatchItem, Rejected
from ._results import BatchProgress, BatchResult, BatchRetry

__all__ = ["Hooks", "call"]

_logger = logging.getLogger("infra_core.batch")


class Hooks:
    """What the caller wants to be told; each is called in the event loop and must not block.

    Args:
        on_result: Of each URL, when it has come to its end and is recorded.
        on_retry: Of each failed attempt that is followed by another.
        on_progress: Every half second while URLs come to their end, and once at the end.
        on_rejected: Of each entry of the list that is no URL.
        on_duplicate: Of each item whose URL stood in the list before.
        on_event: Of what else a person wants to see: a word and a text.
    """

    def __init__(
        self,
        *,
        on_result: Callable[[BatchResult], object] | None = None,
        on_retry: Callable[[BatchRetry], object] | None = None,
        on_progress: Callable[[BatchProgress], object] | None = None,
        on_rejected: Callable[[Rejected], object] | None = None,
        on_duplicate: Callable[[BatchItem], object] | None = None,
        on_event: Callable[[str, str], object] | None = None,
    ) -> None:
        self.on_result = on_result
        self.on_retry = on_retry
        self.on_progress = on_progress
        self.on_rejected = on_rejected
        self.on_duplicate = on_duplicate
        self.on_event = on_event


def call(hook: Callable[..., object] | None, *arguments: object) -> None:
    """Call a hook; what it raises is logged and ends nothing."""
    if hook is None:
        return
    try:
        hook(*arguments)
    except Exception:
        _logger.exception("a hook of the batch raised")
