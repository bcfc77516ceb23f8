"""Clients that a whole process shares: one for each pair of settings and mode."""

import threading
from typing import TypeAlias

from ._client import AzureStorageClient
from ._config import missing_settings, resolve_config
from ._settings import AzureStorageSettings, StorageMode, parse_mode

__all__ = [
    "SettingsKey",
    "get_client",
    "get_shared_client",
    "is_configured",
    "reset_all_clients",
    "reset_shared_client",
    "reset_shared_client_async",
    "set_shared_client",
]

SettingsKey: TypeAlias = tuple[AzureStorageSettings, StorageMode]
"""What one shared client is made of."""

_lock = threading.RLock()
_clients: dict[SettingsKey, AzureStorageClient] = {}


def get_shared_client(settings: AzureStorageSettings, mode: StorageMode) -> AzureStorageClient:
    """The process's client of these settings and this mode, made on first use.

    Raises:
        ConfigurationError: See `AzureStorageClient.from_settings`.
    """
    key = (settings, parse_mode(mode))
    with _lock:
        client = _clients.get(key)
        if client is None:
            client = _clients[key] = AzureStorageClient.from_settings(*key)
        return client


def get_client(settings: AzureStorageSettings, mode: StorageMode) -> AzureStorageClient:
    """The same as `get_shared_client`."""
    return get_shared_client(settings, mode)


def set_shared_client(
    client: AzureStorageClient, settings: AzureStorageSettings, mode: StorageMode
) -> None:
    """Let this client be the shared one; the one before it is left as it is, and to its users."""
    with _lock:
        _clients[settings, parse_mode(mode)] = client


def reset_shared_client(settings: AzureStorageSettings, mode: StorageMode) -> None:
    """Forget the shared client of these settings, and close it."""
    with _lock:
        client = _clients.pop((settings, parse_mode(mode)), None)
    if client is not None:
        client.close()


async def reset_shared_client_async(settings: AzureStorageSettings, mode: StorageMode) -> None:
    """Forget the shared client of these settings, and close it on the running event loop."""
    with _lock:
        client = _clients.pop((settings, parse_mode(mode)), None)
    if client is not None:
        await client.aclose()


def reset_all_clients() -> None:
    """Forget all shared clients, and close them."""
    with _lock:
        clients = list(_clients.values())
        _clients.clear()
    for client in clients:
        client.close()


def is_configured(settings: AzureStorageSettings, mode: StorageMode) -> bool:
    """Whether a client of these settings has a container to mirror to.

    Raises:
        ConfigurationError: Settings are malformed or contradictory; missing ones give False.
    """
    if missing_settings(settings):
        return False
    return resolve_config(settings, parse_mode(mode)) is not None
