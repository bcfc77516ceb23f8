"""Where the tasks of a run come from: what may be iterated over, and what is made of each item."""

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from functools import partial
from itertools import count
from typing import Any

from ._values import shown

__all__ = ["Factory", "Pair", "TaskSource", "as_pair", "check_source", "pairs_of"]

Factory = Callable[[], Awaitable[Any]]
Pair = tuple[str, Factory]
TaskSource = Iterable[Pair] | AsyncIterable[Pair]
_ITERATION = ("__iter__", "__aiter__", "__getitem__")


def check_source(name: str, source: object) -> None:
    """Refuse what cannot be iterated over.

    Raises:
        TypeError: Such as None, or a coroutine that was not awaited.
    """
    if not any(hasattr(source, method) for method in _ITERATION):
        raise TypeError(
            f"{name} cannot be iterated over, being {shown(source)}: pass a list, a generator or "
            "an asynchronous generator"
        )


def as_pair(item: Any) -> Pair:
    """Return an item of a source of tasks as the pair that it must be.

    Raises:
        TypeError: It is none.
    """
    try:
        task_id, factory = item
    except (TypeError, ValueError):
        raise TypeError(
            f"the source of tasks gave {shown(item)}: each of its items must be a pair of an id "
            "and a callable without arguments that returns an awaitable"
        ) from None
    return task_id, factory


def pairs_of(
    function: Callable[[Any], Awaitable[Any]], key: Callable[[Any], str] | None
) -> Callable[[Any], Pair]:
    """Return what makes tasks of the items of `map`, numbered where they have no key."""
    numbers = count()

    def make(item: Any) -> Pair:
        return str(next(numbers)) if key is None else key(item), partial(function, item)

    return make
