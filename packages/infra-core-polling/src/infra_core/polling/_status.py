"""Statuses in responses of any shape, and the rules that end a poll by them."""

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from infra_core.runtime import redact_secrets, trace_fields

from ._config import PollingConfig
from ._errors import PollingFailureError
from ._run import logger

__all__ = ["StatusExtractor", "StatusRules", "extract_status", "status_at"]

T_co = TypeVar("T_co", covariant=True)

_STATUS_NAMES: Final = ("status", "state", "runtimeStatus")
_MESSAGE_NAMES: Final = ("error_message", "error", "message")
# Both spellings of "cancelled" are in use, among the Azure services alone.
_TERMINAL: Final = frozenset({"completed", "succeeded", "failed", "cancelled", "canceled"})
_FAILURE: Final = frozenset({"failed", "cancelled", "canceled"})
_MISSING: Final = object()


@runtime_checkable
class StatusExtractor(Protocol[T_co]):
    """Anything that finds the status in a response; None when it has none."""

    def __call__(self, response: Any, /) -> T_co:
        """Return the status."""


def extract_status(response: object) -> str | None:
    """Return the status of a response, wherever responses usually have it.

    Looks for `status`, then `state`, then `runtimeStatus`, as a key or an attribute. A response
    that is itself a string or an enum member is the status. Enum members give their value when it
    is a string, else their name.

    Example:
        >>> extract_status({"status": "running"}), extract_status("Completed")
        ('running', 'Completed')
    """
    if isinstance(response, (str, enum.Enum)):
        return _text(response)
    for name in _STATUS_NAMES:
        value = _child(response, name)
        if value is not _MISSING and value is not None:
            return _text(value)
    return None


def status_at(path: str) -> StatusExtractor[str | None]:
    """Return an extractor for a status that lies deeper, such as `properties.provisioningState`.

    Each step is a key, an attribute or, for sequences, an index.

    Args:
        path: Steps separated by dots.

    Raises:
        ValueError: The path is empty or has an empty step.

    Example:
        >>> extract = status_at("jobs.0.state")
        >>> extract({"jobs": [{"state": "done"}]})
        'done'
    """
    steps = path.split(".") if isinstance(path, str) else []
    if not all(steps) or not steps:
        raise ValueError(
            f"the status path {path!r} is no text, or has an empty step; write it as 'a.b.c'"
        )

    def extract(response: Any, /) -> str | None:
        value: object = response
        for step in steps:
            value = _child(value, step)
            if value is _MISSING:
                return None
        return _text(value)

    return extract


class StatusRules:
    """Says whether a response is terminal, and raises for failures, before that."""

    def __init__(
        self,
        config: PollingConfig,
        extractor: "StatusExtractor[object] | str | None" = None,
    ) -> None:
        if extractor is None:
            self._extract: StatusExtractor[object] = extract_status
        else:
            self._extract = extractor if callable(extractor) else status_at(extractor)
        self._terminal = _normalised(
            _TERMINAL if config.terminal_statuses is None else config.terminal_statuses
        )
        if config.failure_statuses is not None:
            self._failure = _normalised(config.failure_statuses)
        else:
            self._failure = _FAILURE if config.strict else frozenset()
        self._warned = False

    def status(self, response: object) -> str | None:
        """Return the status of a response as text."""
        return _text(self._extract(response))

    def is_terminal(self, response: object) -> bool:
        """Whether the poll is over.

        Raises:
            PollingFailureError: It is over, and failed.
        """
        status = self.status(response)
        if status is None:
            self._warn(response)
            return False
        key = _normal(status)
        if key in self._failure:
            text = _message(response)
            raise PollingFailureError(
                f"the job ended as {status!r}" + (f": {redact_secrets(text)}" if text else ""),
                response=response,
            )
        return key in self._terminal

    def _warn(self, response: object) -> None:
        """Say once that statuses are looked for where there are none: the poll would never end."""
        if not self._warned:
            self._warned = True
            logger.warning(
                "a response of type %s has no status, so it cannot end the poll; give a "
                "status_extractor if it has one elsewhere",
                type(response).__name__,
                extra=trace_fields(),
            )


def _child(value: object, name: str) -> object:
    if isinstance(value, Mapping):
        return value.get(name, _MISSING)
    if isinstance(value, Sequence) and not isinstance(value, str) and name.isdecimal():
        return value[int(name)] if int(name) < len(value) else _MISSING
    return getattr(value, name, _MISSING)


def _text(value: object) -> str | None:
    if type(value) is str:
        return value
    if value is None:
        return None
    if isinstance(value, enum.Enum):
        return value.value if isinstance(value.value, str) else value.name
    return value if isinstance(value, str) else str(value)


def _normal(status: str) -> str:
    return status.strip().casefold()


def _normalised(statuses: Iterable[object]) -> frozenset[str]:
    return frozenset(_normal(text) for status in statuses if (text := _text(status)) is not None)


def _message(response: object) -> str | None:
    """Return what the response says about its failure."""
    for name in _MESSAGE_NAMES:
        value = _child(response, name)
        if value is _MISSING or not value:
            continue
        nested = _child(value, "message")  # {"error": {"code": ..., "message": ...}}
        return str(nested if nested is not _MISSING and nested else value)
    return None
