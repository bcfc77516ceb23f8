"""Where telemetry goes: connection strings, instrumentation keys and the environment."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Literal

from infra_core.runtime import sanitize_url

from .._checks import type_name
from ..exceptions import ConfigurationError
from ..storage._connection_string import check_endpoint, check_suffix, split_connection_string

__all__ = ["Backend", "Ingestion", "TelemetryConfig"]

Backend = Literal["auto", "applicationinsights", "otel", "log"]

_BACKENDS = ("auto", "applicationinsights", "otel", "log")
_CONNECTION = "APPLICATIONINSIGHTS_CONNECTION_STRING"
_KEY = "APPINSIGHTS_INSTRUMENTATIONKEY"
# https://learn.microsoft.com/azure/azure-monitor/app/connection-strings
_DEFAULT_ENDPOINT = "https://dc.services.visualstudio.com"
_TRACK = "/v2.1/track"
_IS_KEY = re.compile(r"[\w-]+", re.ASCII)  # a UUID, unless it is that of a test
_WHAT = "the Application Insights connection string"
_EXAMPLE = "InstrumentationKey=...;IngestionEndpoint=https://...applicationinsights.azure.com/"


@dataclass(frozen=True, slots=True)
class Ingestion:
    """Where to post telemetry, and in whose name."""

    key: str = field(repr=False)
    url: str  # of the track endpoint


@dataclass(frozen=True)
class TelemetryConfig:
    """Settings of a `TelemetryClient`. The connection string never shows in its `repr`.

    Attributes:
        connection_string: Connection string of an Application Insights resource, or only its
            instrumentation key.
        enabled: `False` silences the client.
        backend: `applicationinsights` sends with infra-core's own sender, `otel` through
            azure-monitor-opentelemetry-exporter (extra `[otel]`), `log` only logs. `auto` sends
            with the own sender when there is a connection string and logs otherwise.

    Raises:
        ConfigurationError: The backend is unknown, or the connection string is not text.
    """

    connection_string: str | None = None
    enabled: bool = True
    # Not compared: 0.7 has no such field, and what it reads from an empty environment equals
    # `TelemetryConfig(enabled=False)`, of which only the former is to be logged.
    backend: Backend = field(default="auto", compare=False)

    def __post_init__(self) -> None:
        if self.backend not in _BACKENDS:
            raise ConfigurationError(
                f"telemetry backend {self.backend!r} is unknown: choose one of "
                f"{', '.join(_BACKENDS)}"
            )
        if not isinstance(self.connection_string, (str, NoneType)):
            raise ConfigurationError(
                f"the connection string is {type_name(self.connection_string)}: pass text, or None"
            )

    def __repr__(self) -> str:
        shown = None if self.connection_string is None else "<redacted>"
        return (
            f"TelemetryConfig(connection_string={shown!r}, enabled={self.enabled!r}, "
            f"backend={self.backend!r})"
        )

    @classmethod
    def from_env(cls, *, env: Mapping[str, str] | None = None) -> "TelemetryConfig":
        """Read `APPLICATIONINSIGHTS_CONNECTION_STRING`, else `APPINSIGHTS_INSTRUMENTATIONKEY`.

        Args:
            env: Instead of the process's environment.

        Returns:
            The settings. With neither variable `enabled` is false, as in 0.7, and events are
            logged.
        """
        return cls._first_of([_CONNECTION, _KEY], env)

    @classmethod
    def from_env_with_prefix(
        cls, prefix: str, *, env: Mapping[str, str] | None = None
    ) -> "TelemetryConfig":
        """Read `PREFIX_APPLICATIONINSIGHTS_CONNECTION_STRING`, else what `from_env` reads.

        Args:
            prefix: Name of the service in capitals, such as `CRAWLER`.
            env: Instead of the process's environment.

        Example:
            >>> settings = {"CRAWLER_APPLICATIONINSIGHTS_CONNECTION_STRING": "InstrumentationKey=k"}
            >>> TelemetryConfig.from_env_with_prefix("CRAWLER", env=settings)
            TelemetryConfig(connection_string='<redacted>', enabled=True, backend='auto')
        """
        own = [f"{prefix.rstrip('_')}_{_CONNECTION}"] if prefix.rstrip("_") else []
        return cls._first_of([*own, _CONNECTION, _KEY], env)

    @classmethod
    def _first_of(cls, names: list[str], env: Mapping[str, str] | None) -> "TelemetryConfig":
        source = os.environ if env is None else env
        for name in names:
            value = (source.get(name) or "").strip()
            if value:
                return cls(connection_string=value)
        return cls(connection_string=None, enabled=False, backend="log")

    def resolved_backend(self) -> Backend | None:
        """Return which backend serves these settings, `None` for none at all.

        Raises:
            ConfigurationError: The backend needs a connection string and there is none.
        """
        if self.backend == "log":
            return "log"
        if not self.enabled:
            return None
        if self.backend == "auto":
            return "applicationinsights" if self.connection_string else "log"
        if not self.connection_string:
            raise ConfigurationError(
                f"telemetry backend {self.backend!r} needs a connection string: set {_CONNECTION}, "
                "or choose the backend 'log'"
            )
        return self.backend

    def ingestion(self) -> Ingestion:
        """Return endpoint and key.

        Raises:
            ConfigurationError: There is no key, or the endpoint is not an http(s) URL.
        """
        text = (self.connection_string or "").strip()
        if "=" not in text:
            parts = {"instrumentationkey": text}
        else:
            parts = split_connection_string(text, _WHAT, _EXAMPLE)
        key = parts.get("instrumentationkey", "")
        if not _IS_KEY.fullmatch(key):
            problem = "an InstrumentationKey that cannot be one" if key else "no InstrumentationKey"
            raise ConfigurationError(
                f"{_WHAT} has {problem}; copy the whole string from the resource's overview page "
                f"into {_CONNECTION}"
            )
        endpoint = parts.get("ingestionendpoint") or _from_suffix(parts) or _DEFAULT_ENDPOINT
        try:
            check_endpoint(endpoint, "IngestionEndpoint", "InstrumentationKey")
        except ConfigurationError:
            raise ConfigurationError(
                f"IngestionEndpoint={sanitize_url(endpoint)!r} of the Application Insights "
                "connection string is not a plain URL: it looks like "
                "https://westeurope-1.in.applicationinsights.azure.com/; copy the whole string "
                f"from the resource's overview page into {_CONNECTION}"
            ) from None
        # Many write the whole URL, of this version of the protocol or of another.
        return Ingestion(key, re.sub(r"(/v2(\.1)?/track)?$", _TRACK, endpoint.rstrip("/"), count=1))

    def otel_connection_string(self) -> str:
        """Return what the exporter of Azure Monitor takes, also for an instrumentation key only.

        Raises:
            ConfigurationError: See `ingestion`.
        """
        ingestion = self.ingestion()
        endpoint = ingestion.url.removesuffix(_TRACK)
        return f"InstrumentationKey={ingestion.key};IngestionEndpoint={endpoint}"


def _from_suffix(parts: Mapping[str, str]) -> str | None:
    suffix = parts.get("endpointsuffix", "").strip("./")
    if not suffix:
        return None
    location = parts.get("location")
    for value in (suffix, location or ""):
        check_suffix(value, _WHAT, "ai.contoso.com, and Location such as westeurope")
    return f"https://{location + '.' if location else ''}dc.{suffix}"
