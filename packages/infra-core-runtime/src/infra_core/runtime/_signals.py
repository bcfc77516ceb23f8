"""Ctrl-C and SIGTERM end a run in order: stop intake, drain, then cancel and await cleanup."""

import asyncio
import logging
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ._loop_local import running_loop
from ._task_runtime import TaskRuntime
from ._values import is_number

__all__ = ["SignalState", "handle_signals"]

logger = logging.getLogger("infra_core.task_runtime")


class SignalState:
    """What `handle_signals` has seen.

    Attributes:
        received: The first signal, `None` while there was none. A shell expects the exit status
            `128 + received`.
        count: How many have come.
    """

    received: signal.Signals | None = None
    count: int = 0


# The blocks that handle a signal, and its handler from before the first of them. Blocks that run at
# the same time end in any order: each putting back what it found would leave one that is over.
_blocks: dict[int, list["_Handler"]] = {}
_former: dict[int, Any] = {}


def _on_signal(number: int, frame: FrameType | None) -> None:
    for block in list(_blocks.get(number, ())):  # acts in its event loop, soon
        block.loop.call_soon_threadsafe(block.act, number)


class _Handler(SignalState):
    """One `with` block's worth of handling."""

    def __init__(self, runtime: TaskRuntime, signals: Iterable[int], grace: float) -> None:
        if not (is_number(grace) and grace >= 0):
            raise ValueError(f"grace={grace!r} is not 0 or more: pass the seconds to finish in")
        self._runtime = runtime
        self.loop = running_loop(": use handle_signals in the async function that runs the tasks")
        self._grace = grace
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        try:
            for number in signals:
                if signal.getsignal(number) is signal.SIG_IGN:
                    continue  # by `nohup`, or a shell's `&`
                # Not loop.add_signal_handler: it does not return what it replaces, so that nothing
                # could be restored, and Windows does not have it.
                if not _blocks.get(number):
                    _former[number] = signal.signal(number, _on_signal)
                _blocks.setdefault(number, []).append(self)
        except (OSError, ValueError, TypeError) as error:
            self._restore()
            raise ValueError(
                f"signals={signals!r} cannot be handled here ({error}): pass a list such as "
                "[signal.SIGINT, signal.SIGTERM]"
            ) from error

    def act(self, number: int) -> None:
        """Stop the intake at the first signal, cancel at the second."""
        if self._closed:
            return
        self.count += 1
        name = signal.Signals(number).name
        if self.count == 1:
            self.received = signal.Signals(number)
            logger.warning(
                "%s: no further tasks are begun; those under way (%d) have %g s to finish, another "
                "signal cancels them at once",
                name,
                self._runtime.stats.in_flight,
                self._grace,
                extra={"signal": name},
            )
            self._runtime.stop()
            self._timer = self.loop.call_later(self._grace, self._cancel, "the grace is over")
        elif self.count == 2:
            self._cancel(f"{name} again")
            self._restore()  # a third one goes to the handler before ours

    def _cancel(self, why: str) -> None:
        if self._runtime.stats.in_flight:
            logger.warning("%s: the tasks under way are cancelled", why)
        self._runtime.cancel()

    def _restore(self) -> None:
        """Let go of the signals; the last block puts the former handlers back."""
        for number, blocks in _blocks.items():
            if self in blocks:
                blocks.remove(self)
                if not blocks:
                    former = _former.pop(number)
                    # None: it was not installed from Python and cannot be put back from here.
                    signal.signal(number, signal.SIG_DFL if former is None else former)

    def close(self) -> None:
        """Let go of the signals."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._restore()


@contextmanager
def handle_signals(
    runtime: TaskRuntime,
    *,
    signals: Iterable[int] = (signal.SIGINT, signal.SIGTERM),
    grace: float = 30.0,
) -> Iterator[SignalState]:
    """End a runtime in order when the process gets a signal to stop.

    The first signal stops the intake of tasks, so that runs raise `RuntimeDrainedError` once what
    they had begun is done; after `grace` seconds, or at a second signal, everything is cancelled,
    tasks have `RuntimeConfig.cancel_grace` seconds for cleanup, and runs raise
    `RuntimeCancellationError`. A third signal does what it did before this block. The former
    handlers are put back at the end of the block; of blocks at the same time, which all act on a
    signal, at the end of the last. Handlers that were given to `loop.add_signal_handler` for the
    same signals are called as well. A signal that the process ignores stays ignored.

    Args:
        runtime: What to stop.
        signals: The signals to handle.
        grace: Seconds that tasks under way have to finish by themselves.

    Yields:
        What has been received so far.

    Raises:
        RuntimeError: Called outside of a running event loop or of the main thread.
        ValueError: `grace` is negative or no number, or a signal cannot be handled.

    Example:
        >>> import asyncio, itertools, os
        >>> from functools import partial
        >>> from infra_core.runtime import RuntimeConfig, RuntimeDrainedError, TaskRuntime
        >>> async def work(number: int) -> None:
        ...     if number == 3:
        ...         os.kill(os.getpid(), signal.SIGTERM)
        ...     await asyncio.sleep(0.001)
        >>> async def main() -> str:
        ...     runtime = TaskRuntime(config=RuntimeConfig())
        ...     with handle_signals(runtime) as state:
        ...         try:
        ...             await runtime.run((str(n), partial(work, n)) for n in itertools.count())
        ...         except RuntimeDrainedError:
        ...             return f"ended by {state.received.name}"
        >>> asyncio.run(main())
        'ended by SIGTERM'
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "handle_signals was called outside of the main thread, where Python allows no signal "
            "handlers: call it in the main thread, or pass the runtime a cancel_event"
        )
    handler = _Handler(runtime, signals, grace)
    try:
        yield handler
    finally:
        handler.close()
        runtime._resume()
