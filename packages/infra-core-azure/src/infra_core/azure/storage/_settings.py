"""Settings of a storage client: where they come from, and what is wrong with them."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast

from .._checks import path_of
from ._options import TransferOptions

__all__ = ["AzureStorageSettings", "StorageMode", "parse_mode"]

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
    try:
        return _MODES[name]
    except KeyError:
        raise ValueError(
            f"{variable}={text!r:.80} is no storage mode; use strict, best-effort or dev-skip"
        ) from None


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
        stem += "_AZURE_STORAGE_"
        return cls.from_env(
            container_var=stem + "CONTAINER",
            connection_string_var=stem + "CONNECTION_STRING",
            account_var=stem + "ACCOUNT",
            endpoint_var=stem + "BLOB_ENDPOINT",
            prefix_var=stem + "BLOB_PREFIX",
            mode_var=stem + "MODE",
            sas_var=stem + "SAS_TOKEN",
            journal_var=stem + "JOURNAL",
            options_stem=stem,
            env=env,
        )
