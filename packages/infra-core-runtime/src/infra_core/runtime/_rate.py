"""Even spacing of starts: pure arithmetic on a monotonic clock."""

import threading
from collections.abc import Hashable

__all__ = ["RateLimit"]

_MOST_KEYS = 4096  # before those that are not waited for are forgotten


class RateLimit:
    """Says how long to wait before the next start, so that a rate is kept for each key.

    Starts are spread evenly, without an opening burst. A start that a timer delivered late is
    made up for, up to `catch_up` seconds' worth, or rates near the timer's resolution would
    never be reached; over any `t` seconds there are at most `1 + (t + catch_up) * per_second`.
    May be shared between threads.

    Args:
        per_second: Starts per second of each key.
        catch_up: Seconds.

    Example:
        >>> limit = RateLimit(2.0)
        >>> [limit.reserve(100.0), limit.reserve(100.0), limit.reserve(100.2)]
        [0.0, 0.5, 0.8]
        >>> limit.reserve(100.2, "another host")
        0.0
    """

    def __init__(self, per_second: float, *, catch_up: float = 0.01) -> None:
        self._interval = 1.0 / per_second
        self._catch_up = catch_up
        self._next: dict[Hashable, float] = {}
        self._lock = threading.Lock()

    def wait(self, now: float, key: Hashable = None) -> float:
        """Return the seconds until the next start is due, without claiming it."""
        return max(0.0, self._next.get(key, now) - now)

    def reserve(self, now: float, key: Hashable = None, *, weight: float = 1.0) -> float:
        """Claim the next start and return the seconds until it is due.

        Args:
            now: The time.
            key: Whose start.
            weight: How many starts it counts for, such as the bytes of a piece.
        """
        with self._lock:
            if len(self._next) > _MOST_KEYS:
                self._next = {k: at for k, at in self._next.items() if at > now}
            due = max(self._next.get(key, now), now - self._catch_up)
            self._next[key] = due + weight * self._interval
        return round(max(0.0, due - now), 9)
