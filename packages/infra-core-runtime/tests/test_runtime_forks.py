"""One way to know of a fork."""

import gc
import os
import warnings

import pytest

from infra_core.runtime import ForkGuard, after_fork_in_child

pytestmark = pytest.mark.posix


def in_child(check: object) -> int:
    """Run something in a forked child and return its exit status."""
    assert callable(check)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads
        child = os.fork()
    if child == 0:
        try:
            os._exit(0 if check() else 3)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_guard_distinguishes_a_child_from_its_parent() -> None:
    """One made in the child belongs there."""
    guard = ForkGuard()
    assert in_child(lambda: guard.forked and not ForkGuard().forked) == 0
    assert not guard.forked


class Resettable:
    def __init__(self, seen: list[str], name: str) -> None:
        self.seen = seen
        self.name = name
        after_fork_in_child(self.reset)

    def reset(self) -> None:
        if self.name == "bad":
            raise OSError("on purpose")
        self.seen.append(self.name)


def test_callbacks_run_in_the_child_only_and_in_order() -> None:
    """One that fails keeps none of the others from running."""
    seen: list[str] = []
    kept = [Resettable(seen, name) for name in ("first", "bad", "last")]
    after_fork_in_child(lambda: seen.append("function"))
    assert in_child(lambda: seen == ["first", "last", "function"]) == 0
    assert seen == []
    assert kept


def test_an_object_that_is_gone_is_forgotten() -> None:
    """Registering keeps nothing alive."""
    seen: list[str] = []
    for number in range(100):
        Resettable(seen, str(number))
    gc.collect()
    assert in_child(lambda: not seen) == 0
