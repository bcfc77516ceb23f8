"""Settings of a storage client: where blobs go, how transfers behave, and what is wrong there."""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from infra_core.runtime import RetryPolicy

from .._checks import path_of
from ..exceptions import ConfigurationError

__all__ = [
    "MAX_BLOCKS",
    "AzureStorageSettings",
    "Overwrite",
    "StorageMode",
    "TransferOptions",
    "parse_mode",
]

Overwrite = Literal["always", "never", "if-unchanged"]
"""When a blob or file that exists may be replaced."""

MIB = 1024 * 1024
MAX_BLOCKS = 50_000  # https://learn.microsoft.com/rest/api/storageservices/put-block-list
_MAX_BLOCK_SIZE = 4000 * MIB  # the same page: what one block may hold
_SLOWEST = 32 * 1024  # bytes a second; a link slower than this counts as dead


class _Rule(NamedTuple):
    """What an option may be."""

    kind: type[float]
    allowed: str
    least: float = 0
    most: float = sys.float_info.max

    def allows(self, value: Any) -> bool:
        """Whether a value is of the kind and in range; NaN is not, nor what is infinite."""
        if self.kind is bool or isinstance(value, bool):
            return type(value) is self.kind
        kinds = int if self.kind is int else (int, float)
        return isinstance(value, kinds) and self.least <= value <= self.most


_SOME_TIME = _Rule(float, "a number of seconds above 0", 5e-324)  # any but 0
_WAIT = _Rule(float, "a number of seconds, 0 or more")
_MANY = _Rule(int, "a whole number from 1 to 1024", 1, 1024)
_SWITCH = _Rule(bool, "True or False")
_SWITCHES = {"true": True, "1": True, "false": False, "0": False}
_NONE = {int: "not a whole number", float: "not a number", bool: "not a switch"}
_RULES = {
    "max_retries": _Rule(int, "a whole number, 0 or more"),
    "backoff": _WAIT,
    "max_backoff": _WAIT,
    "deadline": _SOME_TIME,
    "connect_timeout": _SOME_TIME,
    "timeout": _SOME_TIME,
    "block_size": _Rule(
        int, f"a whole number of bytes from 1024 to {_MAX_BLOCK_SIZE}", 1024, _MAX_BLOCK_SIZE
    ),
    "block_concurrency": _MANY,
    "block_md5": _SWITCH,
    "concurrency": _MANY,
    "accept_wrong_md5": _SWITCH,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferOptions:
    """How a storage client retries, waits and divides its work.

    Each field has a variable of the same name in capitals, `AZURE_STORAGE_MAX_RETRIES` and so on
    (with a service prefix in front when read by `from_env_with_prefix`).

    Attributes:
        max_retries: Retries after the first try of one request. This is the only layer of
            retries: the SDK's own are switched off.
        backoff: Ceiling of the first wait in seconds; doubles with each retry, full jitter.
        max_backoff: No wait is longer than this many seconds.
        deadline: Seconds for one request with all its retries; `None` for no bound.
        connect_timeout: Seconds until a connection must stand.
        timeout: Seconds that the server may stay silent. A request that sends or fetches many
            bytes gets more in total: the time they take at 32 KiB/s.
        block_size: Files up to this many bytes travel in one request, larger ones in blocks of
            this size.
        block_concurrency: Blocks of one file in flight; memory for one large file is at most
            `block_size * (block_concurrency + 1)`.
        block_md5: Whether a file that travels in blocks is hashed: each block, so that the service
            refuses one that was altered on the way, and the whole, stored with the blob and
            compared when it comes down. Without, such files are checked by length, range and ETag
            alone, as the SDK does by default, for half the processor time: where TLS guards the
            way. `compare="hash"` then has nothing to compare and transfers them again. Files that
            fit one request are hashed in any case.
        accept_wrong_md5: Whether a blob whose stored MD5 does not fit its content is downloaded
            all the same, with a warning, when the same bytes came twice: it was stored
            with a wrong one.
        concurrency: Requests in flight.
    """

    max_retries: int = 4
    backoff: float = 0.5
    max_backoff: float = 30.0
    deadline: float | None = None
    connect_timeout: float = 10.0
    timeout: float = 60.0
    block_size: int = 8 * MIB
    block_concurrency: int = 8
    block_md5: bool = True
    concurrency: int = 32
    accept_wrong_md5: bool = False

    def __post_init__(self) -> None:
        for name, rule in _RULES.items():
            value = getattr(self, name)
            if not (rule.allows(value) or (value is None and name == "deadline")):
                raise _InvalidOptionError(
                    f"{name}={value!r:.80} is out of range; pass {rule.allowed}"
                )

    @property
    def retry_policy(self) -> RetryPolicy:
        """The retry policy of one request."""
        return RetryPolicy(
            max_retries=self.max_retries,
            backoff=self.backoff,
            max_backoff=self.max_backoff,
            deadline=self.deadline,
        )

    def time_limit(self, size: int) -> float:
        """Seconds that one request which moves `size` bytes may take from first to last."""
        return self.connect_timeout + self.timeout + size / _SLOWEST

    def block_size_for(self, size: int) -> int:
        """Block size for a file of `size` bytes: larger where 50,000 blocks would not do."""
        return max(self.block_size, -(-size // MAX_BLOCKS))

    @classmethod
    def from_env(cls, stem: str, env: Mapping[str, str]) -> "TransferOptions":
        """Read the variables `{stem}MAX_RETRIES`, `{stem}TIMEOUT` and so on.

        Raises:
            ConfigurationError: A value is not a number or out of range; names the variable.
        """
        values: dict[str, float] = {}
        for option in fields(cls):
            variable = stem + option.name.upper()
            text = env.get(variable, "").strip()
            if not text:
                continue
            rule = _RULES[option.name]
            try:
                value = _SWITCHES[text.lower()] if rule.kind is bool else rule.kind(text)
            except (KeyError, ValueError):
                default = f"the default of {option.default}"
                usual = "no bound" if option.default is None else default
                raise ConfigurationError(
                    f"{variable}={_shown(text)} is {_NONE[rule.kind]}; set it to "
                    f"{rule.allowed.lower()}, or unset it for {usual.lower()}"
                ) from None
            if not rule.allows(value):
                raise ConfigurationError(
                    f"{variable}={value!r:.80} is out of range; set it to {rule.allowed}, or "
                    "unset it"
                )
            values[option.name] = value
        return cls(**values)  # type: ignore[arg-type]


def _shown(text: str) -> str:
    """A value as errors show it: numbers as they are, all else in quotes."""
    return text[:80] if re.fullmatch(r"[-+.\d]+", text) else f"{text!r:.80}"


class _InvalidOptionError(ConfigurationError, ValueError):
    """An option that code has passed, and no variable."""


StorageMode = Literal["strict", "best-effort", "dev-skip"]
"""What happens without configuration and on failure: raise, journal and go on, or stay local."""

_MODES: dict[str, StorageMode] = {
    "strict": "strict",
    "best-effort": "best-effort",
    "best": "best-effort",
    "warn": "best-effort",
    "dev-skip": "dev-skip",
    "dev": "dev-skip",
    "dev-no-upload": "dev-skip",
    "local-dev-no-upload": "dev-skip",
}
_PREFIX = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parse_mode(text: str | None, variable: str = "mode") -> StorageMode:
    """The mode that a text names; `strict` for nothing.

    Raises:
        ValueError: It names no mode; lists those there are.
    """
    name = str(text or "").strip().lower().replace("_", "-")
    if not name:
        return "strict"
    if name not in _MODES:
        raise ValueError(
            f"{variable}={text!r:.80} is not a storage mode; use strict, best-effort or dev-skip"
        )
    return _MODES[name]


@dataclass(frozen=True, repr=False)
class AzureStorageSettings:
    """Where blobs go and how; a plain value, checked when a client is made of it.

    Attributes:
        container: Name of the container; without one storage counts as not configured.
        connection_string: Connection string, `UseDevelopmentStorage=true` included.
        account_name: Account to reach with `sas_token` or, without one, with
            `DefaultAzureCredential`.
        blob_endpoint: Endpoint of the blob service where it is not the account's default;
            path-style (`http://host:port/account`) too.
        prefix: What every blob name starts with.
        sas_token: Shared access signature, with or without the leading `?`.
        options: Retries, time limits, block size, concurrency.
        journal: SQLite file that remembers what could not be uploaded; by default one per
            container in the user's state folder.
    """

    container: str | None
    connection_string: str | None = None
    account_name: str | None = None
    blob_endpoint: str | None = None
    prefix: str | None = None
    sas_token: str | None = field(default=None, kw_only=True)
    options: TransferOptions = field(default_factory=TransferOptions, kw_only=True)
    journal: Path | None = field(default=None, kw_only=True)
    # Which variable each setting came from, for errors; says nothing about equality.
    variables: Mapping[str, str] = field(
        default_factory=dict, kw_only=True, compare=False, hash=False
    )

    def variable(self, name: str) -> str:
        """What the user calls the setting: its environment variable, else its parameter."""
        return self.variables.get(name, name)

    def __repr__(self) -> str:
        shown = []
        for name in ("container", "account_name", "blob_endpoint", "prefix"):
            value = cast("str | None", getattr(self, name))
            if value is not None:
                shown.append(f"{name}={value.partition('?')[0]!r}")
        shown.extend(
            f"{name}=***" for name in ("connection_string", "sas_token") if getattr(self, name)
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "variables": dict(self.variables)}

    @classmethod
    def from_env(
        cls,
        *,
        container_var: str = "AZURE_STORAGE_CONTAINER",
        connection_string_var: str = "AZURE_STORAGE_CONNECTION_STRING",
        account_var: str = "AZURE_STORAGE_ACCOUNT",
        endpoint_var: str = "AZURE_STORAGE_BLOB_ENDPOINT",
        prefix_var: str = "AZURE_STORAGE_BLOB_PREFIX",
        mode_var: str = "AZURE_STORAGE_MODE",
        sas_var: str = "AZURE_STORAGE_SAS_TOKEN",
        journal_var: str = "AZURE_STORAGE_JOURNAL",
        options_stem: str = "AZURE_STORAGE_",
        env: Mapping[str, str] = os.environ,
    ) -> tuple["AzureStorageSettings", StorageMode]:
        """Read settings and mode from environment variables.

        Args:
            container_var: Variable of the container's name.
            connection_string_var: Variable of the connection string.
            account_var: Variable of the account's name.
            endpoint_var: Variable of the blob endpoint.
            prefix_var: Variable of the prefix of blob names.
            mode_var: Variable of the mode; see `parse_mode`.
            sas_var: Variable of the SAS token.
            journal_var: Variable of the journal's path.
            options_stem: Start of the variables of `TransferOptions`: `{stem}MAX_RETRIES`, ...
            env: Where to read; the process's environment by default.

        Returns:
            The settings, unchecked against each other until a client is made, and the mode.

        Raises:
            ValueError: The mode is unknown.
            ConfigurationError: A number is malformed or out of range, or a path is in a home folder
                that does not exist.
        """
        names = {
            "container": container_var,
            "connection_string": connection_string_var,
            "account_name": account_var,
            "blob_endpoint": endpoint_var,
            "prefix": prefix_var,
            "sas_token": sas_var,
        }
        values = {name: env.get(variable, "").strip() or None for name, variable in names.items()}
        journal = env.get(journal_var, "").strip()
        mode = parse_mode(env.get(mode_var), mode_var)
        # In dev-skip nothing travels, so that nothing about it can be wrong.
        options = TransferOptions.from_env(options_stem, {} if mode == "dev-skip" else env)
        settings = cls(
            **values,
            options=options,
            journal=path_of(journal_var, journal) if journal else None,
            variables={
                **names,
                "journal": journal_var,
                "mode": mode_var,
                **{option.name: options_stem + option.name.upper() for option in fields(options)},
            },
        )
        return settings, mode

    @classmethod
    def from_env_with_prefix(
        cls, prefix: str, *, env: Mapping[str, str] = os.environ
    ) -> tuple["AzureStorageSettings", StorageMode]:
        """Read `{prefix}_AZURE_STORAGE_CONTAINER` and so on; nothing without the prefix.

        Args:
            prefix: Name of the service, such as `CRAWLER`.
            env: Where to read; the process's environment by default.

        Raises:
            ValueError: The prefix cannot start a variable's name, or the mode is unknown.
            ConfigurationError: A number is malformed or out of range.
        """
        stem = str(prefix or "").strip().rstrip("_")
        if not _PREFIX.fullmatch(stem):
            raise ValueError(
                f"prefix={prefix!r:.80} cannot start the name of a variable; use letters, "
                "digits and underscores, such as 'CRAWLER'"
            )
        usual = cls.from_env.__kwdefaults__ or {}
        names = {name: f"{stem}_{usual[name]}" for name in usual if name != "env"}
        return cls.from_env(**names, env=env)
