"""Ctrl-C, SIGTERM and SIGHUP outside of the batch: before it begins, and while it is concluded."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from infra_core import _start

__all__ = ["Ending", "ending_in_order"]

_PATIENCE = 3  # signals while a batch concludes, after which the process ends at once


class Ending:
    """What is to become of a signal.

    Before the batch begins it ends the command, with a summary of nothing. While the batch
    runs, the batch has handlers of its own. After that, what is left (the manifest, the summary)
    is done first, unless further signals come.

    Attributes:
        begun: Whether the batch has begun to read its list.
        received: The first signal that came, None while there was none.
    """

    def __init__(self) -> None:
        self.begun = False
        self.received: signal.Signals | None = None
        self._count = 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.received = self.received or signal.Signals(number)
        if not self.begun:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        self._count += 1
        if self._count >= _PATIENCE:
            os._exit(128 + number)


@contextmanager
def ending_in_order() -> Iterator[Ending]:
    """Handle what asks the process to end, for as long as a command runs."""
    ending = Ending()
    previous: dict[int, Any] = {}
    try:
        for number in _start.heard_signals():
            previous[number] = signal.signal(number, ending.handle)
    except ValueError:  # called in another thread than the main one
        pass
    try:
        yield ending
    finally:
        for taken, former in previous.items():
            signal.signal(taken, former)
