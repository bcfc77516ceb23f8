"""Where the tasks of a run come from, and what `map` makes of its items."""

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator
from functools import partial
from itertools import count
from typing import Any, Generic, TypeVar

from ._values import shown

__all__ = [
    "Factory",
    "Made",
    "MadeAsync",
    "Pair",
    "TaskSource",
    "as_pair",
    "check_source",
    "mapped",
]

Item = TypeVar("Item")
Factory = Callable[[], Awaitable[Any]]
Pair = tuple[str, Factory]
TaskSource = Iterable[Pair] | AsyncIterable[Pair]
_ITERATION = ("__iter__", "__aiter__", "__getitem__")


def check_source(name: str, source: object) -> None:
    """Refuse what cannot be iterated over.

    Raises:
        TypeError: Such as None, or a coroutine that somebody forgot to await.
    """
    if not any(hasattr(source, method) for method in _ITERATION):
        raise TypeError(
            f"{name} cannot be iterated over, being {shown(source)}: pass a list, a generator or "
            "an asynchronous generator"
        )


def as_pair(item: Any) -> Pair:
    """Return an item of a source as the pair that it must be.

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


class Made(Generic[Item]):
    """What a function makes of the items of a source, one by one, each when it is asked for."""

    def __init__(self, make: Callable[[Item], Any], items: Iterable[Item]) -> None:
        self._make = make
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        return (self._make(item) for item in self._items)


class MadeAsync(Generic[Item]):
    """The same of an asynchronous source; no generator, which would need closing."""

    def __init__(self, make: Callable[[Item], Any], items: AsyncIterable[Item]) -> None:
        self._make = make
        self._iterator = aiter(items)

    def __aiter__(self) -> "MadeAsync[Item]":
        return self

    async def __anext__(self) -> Any:
        return self._make(await anext(self._iterator))


def mapped(
    function: Callable[[Item], Awaitable[Any]],
    items: Iterable[Item] | AsyncIterable[Item],
    key: Callable[[Item], str] | None,
) -> TaskSource:
    """Return the items of `map` as tasks, numbered where they have no key.

    Raises:
        TypeError: The items cannot be iterated over.
    """
    numbers = count()

    def make(item: Item) -> Pair:
        return str(next(numbers)) if key is None else key(item), partial(function, item)

    if isinstance(items, AsyncIterable):
        return MadeAsync(make, items)
    check_source("items", items)
    return Made(make, items)
