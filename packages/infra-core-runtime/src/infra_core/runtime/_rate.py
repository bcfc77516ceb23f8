"""Even spacing of starts: pure arithmetic on a monotonic clock."""

__all__ = ["Pacer"]


class Pacer:
    """Says how long to wait before the next start, so that a rate is kept.

    Starts are spread evenly, without an opening burst. A start that a timer delivered late is
    made up for, up to `catch_up` seconds' worth, or rates near the timer's resolution would
    never be reached; over any `t` seconds there are at most `1 + (t + catch_up) * per_second`.

    Example:
        >>> pacer = Pacer(2.0)
        >>> [pacer.reserve(100.0), pacer.reserve(100.0), pacer.reserve(100.2)]
        [0.0, 0.5, 0.8]
    """

    __slots__ = ("_interval", "_next", "_slack")

    def __init__(self, per_second: float, *, catch_up: float = 0.01) -> None:
        self._interval = 1.0 / per_second
        self._slack = catch_up
        self._next: float | None = None

    def wait(self, now: float) -> float:
        """Return the seconds until the next start is due; 0.0 when it is."""
        if self._next is None or self._next <= now:
            return 0.0
        return self._next - now

    def reserve(self, now: float) -> float:
        """Claim the next start and return the seconds until it is due."""
        if self._next is None:
            self._next = now
        due = max(self._next, now - self._slack)
        self._next = due + self._interval
        return round(max(0.0, due - now), 9)
