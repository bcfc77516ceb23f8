"""A value whose LoopLocal is forgotten is closed on its loop, never collected while it is open."""

import asyncio
import gc

from infra_core.runtime import LoopLocal


class Client:
    """Records whether it was collected before it was closed, as aiohttp's session does."""

    leaked = 0

    def __init__(self) -> None:
        self.open = True
        self.itself = self  # only the garbage collector frees it

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.open = False

    def __del__(self) -> None:
        Client.leaked += self.open


def make() -> LoopLocal[Client]:
    return LoopLocal(Client, close=lambda client: client.aclose())


def test_a_forgotten_value_is_closed_before_it_is_collected() -> None:
    """The garbage collector runs in mid-loop, as it may at any time."""

    async def main() -> None:
        local = make()
        local.get()
        del local
        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)
        gc.collect()

    Client.leaked = 0
    asyncio.run(main())
    gc.collect()
    assert Client.leaked == 0


def test_a_value_forgotten_as_its_loop_ends_is_closed_too() -> None:
    """No turn of the loop is left but those of its shutdown."""

    async def main() -> None:
        make().get()
        gc.collect()

    Client.leaked = 0
    asyncio.run(main())
    gc.collect()
    assert Client.leaked == 0


def test_a_value_is_not_kept_longer_than_its_loop() -> None:
    """Loops come and go; nothing piles up."""
    local = make()
    clients: list[Client] = []

    async def main() -> None:
        clients.append(local.get())

    for _ in range(3):
        asyncio.run(main())
    assert [client.open for client in clients] == [False] * 3
    assert local._entries == {}
