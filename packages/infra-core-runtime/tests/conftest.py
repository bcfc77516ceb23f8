"""Fixtures of this package's tests."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest


@pytest.fixture
async def orderly_loop() -> AsyncIterator[list[dict[str, Any]]]:
    """Fail on anything the loop complains about ("never retrieved") and on tasks left running."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    gc.freeze()  # so that collecting looks at what the test made, and takes no time
    yield complaints
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks left behind: {left}"
    gc.collect()
    gc.unfreeze()
    await asyncio.sleep(0)
    assert not complaints


@pytest.fixture
def only_new_garbage() -> Iterator[None]:
    """Have `gc.collect()` look at what the test makes, not at what others have left."""
    gc.freeze()
    yield
    gc.unfreeze()
