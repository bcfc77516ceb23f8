"""Where the tasks of a run come from, and the numbering of `map`'s items."""

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Any, Generic, TypeVar

from ._values import shown

__all__ = ["Factory", "Mapped", "MappedAsync", "Pair", "TaskSource", "as_pair", "check_source"]

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


def _named(
    function: Callable[[Item], Awaitable[Any]],
    key: Callable[[Item], str] | None,
    index: int,
    item: Item,
) -> Pair:
    return str(index) if key is None else key(item), partial(function, item)


class Mapped(Generic[Item]):
    """Items of `map` as tasks, made one by one."""

    def __init__(
        self,
        function: Callable[[Item], Awaitable[Any]],
        items: Iterable[Item],
        key: Callable[[Item], str] | None,
    ) -> None:
        check_source("items", items)
        self._task = partial(_named, function, key)
        self._items = items

    def __iter__(self) -> Iterator[Pair]:
        return (self._task(index, item) for index, item in enumerate(self._items))


class MappedAsync(Generic[Item]):
    """The same of asynchronous items; no generator, which would need closing."""

    def __init__(
        self,
        function: Callable[[Item], Awaitable[Any]],
        items: AsyncIterable[Item],
        key: Callable[[Item], str] | None,
    ) -> None:
        self._task = partial(_named, function, key)
        self._iterator = aiter(items)
        self._index = 0

    def __aiter__(self) -> "MappedAsync[Item]":
        return self

    async def __anext__(self) -> Pair:
        item = await anext(self._iterator)
        task = self._task(self._index, item)
        self._index += 1
        return task
