"""What durable instances and entities can be asked for: methods of the client of an app."""

import json
from typing import TYPE_CHECKING, Any

from ._durable_status import DurableStatus
from ._function_durable import DurableCaller
from .exceptions import JobNotFoundError

if TYPE_CHECKING:
    from ._durable import DurableInstance

__all__ = ["DurableManagement"]


class DurableManagement:
    """The methods of `AzureFunctionAsyncClient` for what was started already.

    An instance is given as `start` returned it, or as its status URL.
    Source: Microsoft, "HTTP API reference" of Durable Functions.
    """

    _durable: DurableCaller

    async def terminate(
        self, instance: "DurableInstance | str", *, reason: str = "terminated by the client"
    ) -> bool:
        """Terminate a durable instance; `False` when it has ended already or is not known."""
        return await self._durable.terminate(instance, reason)

    async def get_status(self, instance: "DurableInstance | str") -> DurableStatus:
        """Ask for the state of a durable instance, once.

        Raises:
            JobNotFoundError: The host does not know it, or no longer.
            OrchestrationError: What its status URL answers cannot be read.
        """
        return await self._durable.status(instance)

    async def raise_event(
        self, instance: "DurableInstance | str", name: str, data: Any = None
    ) -> bool:
        """Send an event to a durable instance; `False` when it has ended already.

        It is sent once: `OutcomeUnknown` when the answer is lost, as for every POST.

        Args:
            instance: The instance, or its status URL.
            name: What the orchestrator waits for.
            data: JSON types.

        Raises:
            JobNotFoundError: The host does not know the instance.
            ValueError: `name` is empty.
        """
        return await self._durable.manage(instance, "raiseEvent", name=name, **_json_body(data))

    async def suspend(
        self, instance: "DurableInstance | str", *, reason: str = "suspended by the client"
    ) -> bool:
        """Have a durable instance pause; `False` when it has ended already.

        Raises:
            JobNotFoundError: The host does not know it.
        """
        return await self._durable.manage(instance, "suspend", reason=reason)

    async def resume(
        self, instance: "DurableInstance | str", *, reason: str = "resumed by the client"
    ) -> bool:
        """Have a suspended instance go on; `False` when it has ended already.

        Raises:
            JobNotFoundError: The host does not know it.
        """
        return await self._durable.manage(instance, "resume", reason=reason)

    async def rewind(
        self, instance: "DurableInstance | str", *, reason: str = "rewound by the client"
    ) -> bool:
        """Have a failed instance do again what failed; `False` when it did not fail.

        Raises:
            JobNotFoundError: The host does not know it.
        """
        return await self._durable.manage(instance, "rewind", reason=reason)

    async def purge(self, instance: "DurableInstance | str") -> bool:
        """Delete the history of an instance that has ended; `False` when there was none."""
        try:
            return await self._durable.manage(instance, "purge")
        except JobNotFoundError:
            return False

    async def read_entity(self, name: str, key: str, *, system_key: str | None = None) -> Any:
        """Return the state of a durable entity.

        Args:
            name: Name of the entity's function.
            key: Key of the entity.
            system_key: The app's system key of the extension `durabletask_extension`, where the
                client's own key is not that one or the master key.

        Raises:
            JobNotFoundError: The app has no entity of that name and key.
        """
        return await self._durable.entity("GET", name, key, system_key)

    async def signal_entity(
        self,
        name: str,
        key: str,
        operation: str,
        data: Any = None,
        *,
        system_key: str | None = None,
    ) -> None:
        """Send a durable entity a signal, once; it makes the entity where there is none.

        Args:
            name: As for `read_entity`.
            key: As for `read_entity`.
            operation: What it is to do.
            data: JSON types.
            system_key: As for `read_entity`.

        Raises:
            OutcomeUnknown: The answer was lost.
        """
        body = _json_body(data)
        await self._durable.entity("POST", name, key, system_key, params={"op": operation}, **body)


def _json_body(data: Any) -> dict[str, Any]:
    """The body that goes with an event or a signal: the host takes JSON only, also for nothing."""
    return {
        "content": json.dumps(data).encode(),
        "headers": {"Content-Type": "application/json"},
    }
