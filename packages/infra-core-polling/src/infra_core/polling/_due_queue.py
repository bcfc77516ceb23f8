"""A priority queue of due times that costs next to nothing when they come in order."""

import heapq
import math
from collections import deque
from typing import Generic, TypeVar

__all__ = ["DueQueue"]

X = TypeVar("X")


class DueQueue(Generic[X]):
    """Hands out what is due first; among equals, what came first.

    Jobs with one and the same interval are put back in the order in which they are due. Those go
    to a plain queue; only what is due earlier than the queue's end (a server-given delay, jitter,
    backoff) goes to a heap beside it. With 10,000 jobs that saves most of a heap's comparisons.
    """

    __slots__ = ("_heap", "_lane", "_order")

    def __init__(self) -> None:
        self._lane: deque[tuple[float, int, X]] = deque()
        self._heap: list[tuple[float, int, X]] = []
        self._order = 0

    def __len__(self) -> int:
        return len(self._lane) + len(self._heap)

    def push(self, due: float, item: X) -> None:
        """Put an item in."""
        self._order = order = self._order + 1
        lane = self._lane
        if not lane or due >= lane[-1][0]:
            lane.append((due, order, item))
        else:
            heapq.heappush(self._heap, (due, order, item))

    def next_due(self) -> float:
        """Return when the first item is due; infinity when there is none."""
        lane, heap = self._lane, self._heap
        if heap and not (lane and lane[0] < heap[0]):
            return heap[0][0]
        return lane[0][0] if lane else math.inf

    def pop_due(self, now: float) -> X | None:
        """Remove and return the first item, if it is due; else None."""
        lane, heap = self._lane, self._heap
        if heap and not (lane and lane[0] < heap[0]):
            return heapq.heappop(heap)[2] if heap[0][0] <= now else None
        if lane and lane[0][0] <= now:
            return lane.popleft()[2]
        return None
