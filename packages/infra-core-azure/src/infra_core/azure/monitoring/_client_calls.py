"""Calls to storage clients of every age: 0.7's, today's, and those that users wrote."""

from collections.abc import Callable
from typing import Any

__all__ = ["call_strictly", "error_code", "is_configured", "knows_parameter", "upload_method"]


def call_strictly(method: Callable[..., Any], *args: object) -> Any:
    """Call an upload method so that a failure is raised, also by a client that swallows errors.

    A method that does not know `raise_on_error` is called without it, and only once; an
    asynchronous one is refused, as nothing would ever be uploaded.
    """
    import inspect

    strictly = {"raise_on_error": True} if knows_parameter(method, "raise_on_error") else {}
    result = method(*args, **strictly)
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError(
            f"{getattr(method, '__qualname__', repr(method))}() is asynchronous; uploads of "
            "monitoring run in a thread of their own, "
            "so pass a client with synchronous methods"
        )
    return result


def is_configured(client: object) -> bool:
    """Ask a client whether it has a storage account; one that cannot say is taken to have."""
    ask = getattr(client, "is_configured", None)
    return bool(ask()) if callable(ask) else True


def upload_method(client: object) -> tuple[str, Callable[..., Any]]:
    """Return name and method with which a client uploads a heartbeat.

    Raises:
        RuntimeError: It has no storage account, or no such method.
    """
    if not is_configured(client):
        mode = getattr(client, "mode", "unknown")
        raise RuntimeError(
            "the heartbeat's storage client is not configured "
            f"(mode={getattr(mode, 'value', mode)}): a heartbeat that stays here cannot be "
            "watched. Set AZURE_STORAGE_CONTAINER and the credentials, or pass "
            "azure_client=None to keep it on this machine"
        )
    for name in ("write_json", "upload_file"):
        method = getattr(client, name, None)
        if callable(method):
            return name, method
    raise RuntimeError(
        f"the heartbeat's storage client {type(client).__name__} has neither write_json nor "
        "upload_file: pass an AzureStorageClient, or azure_client=None to keep the heartbeat "
        "on this machine"
    )


def knows_parameter(method: Callable[..., Any], name: str) -> bool:
    """Whether a method takes a keyword argument, as far as its signature says."""
    import inspect

    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):  # written in C, or with a signature that lies
        return False
    return any(
        parameter.kind is parameter.VAR_KEYWORD or parameter.name == name
        for parameter in parameters
    )


def error_code(error: Exception) -> str:
    """Return the service's code of an error of the SDK, empty where there is none."""
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or "")
