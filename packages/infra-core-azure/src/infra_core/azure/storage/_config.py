"""From settings to one checked configuration: account, container, credential."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from .._checks import type_name
from ..exceptions import ConfigurationError
from ._connection_string import (
    ACCOUNT,
    AZURE_SERVICE,
    check_endpoint,
    check_sas,
    parse_connection_string,
    shown,
)
from ._settings import AzureStorageSettings, StorageMode, TransferOptions

__all__ = ["_AzureStorageConfig", "missing_settings", "resolve_config"]

# https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata
_log = logging.getLogger("infra_core.azure.storage")
_warned: set[str] = set()
_CONTAINER = re.compile(r"(?=.{3,63}\Z)[a-z0-9]+(?:-[a-z0-9]+)*|\$root|\$web|\$logs")


@dataclass(frozen=True, slots=True)
class _AzureStorageConfig:
    """A checked configuration: account, container and exactly one credential."""

    endpoint: str
    container: str
    prefix: str = ""
    account_name: str | None = None
    account_key: str | None = field(default=None, repr=False)
    sas_token: str | None = field(default=None, repr=False)
    options: TransferOptions = field(default_factory=TransferOptions)
    public_endpoint: str = ""  # in the URLs that are handed out, such as that of a CDN
    # What the user calls the settings, for errors; says nothing about equality.
    variables: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    endpoint_setting: str = field(default="the endpoint", repr=False, compare=False)
    credential_setting: str = field(default="the credential", repr=False, compare=False)

    def variable(self, name: str) -> str:
        """What the user calls a setting; see `AzureStorageSettings.variable`."""
        return self.variables.get(name, name)

    @property
    def container_url(self) -> str:
        """URL of the container, without a SAS token."""
        return f"{self.endpoint}/{quote(self.container, safe='$')}"

    @property
    def public_url(self) -> str:
        """URL of the container for readers elsewhere."""
        return f"{self.public_endpoint or self.endpoint}/{quote(self.container, safe='$')}"

    @property
    def access_remedy(self) -> str:
        """What to check when the service does not let us."""
        if self.account_key is not None:
            what = (
                f"that the key in {self.credential_setting} is the account's, this machine's clock,"
            )
        elif self.sas_token is not None:
            what = f"expiry and permissions of the SAS token in {self.credential_setting},"
        else:
            what = "that this identity has the role Storage Blob Data Contributor"
        return f"check {what} and the network rules of the account"

    @property
    def uses_credential(self) -> bool:
        """Whether tokens of a credential (`DefaultAzureCredential`) are needed."""
        return self.account_key is None and self.sas_token is None


def missing_settings(settings: AzureStorageSettings) -> str | None:
    """What is missing for a configuration to exist, as a sentence with the remedy, or `None`."""
    _check_types(settings)
    call = settings.variable
    if not settings.container:
        return (
            f"no container is named; set {call('container')}, and {call('connection_string')} or "
            f"{call('account_name')}"
        )
    if not (settings.connection_string or settings.account_name or settings.blob_endpoint):
        return (
            f"container {shown(settings.container)} is named but no account; set "
            f"{call('connection_string')}, or {call('account_name')} to use "
            "DefaultAzureCredential"
        )
    return None


def _check_types(settings: AzureStorageSettings) -> None:
    """Refuse values of another type by their setting's name; secrets are not shown."""
    if not isinstance(settings, AzureStorageSettings):
        raise TypeError(
            f"settings is {type_name(settings)}; pass AzureStorageSettings "
            "(from_env() returns a pair: settings, mode = AzureStorageSettings.from_env())"
        )
    kinds: dict[str, type] = dict.fromkeys(_TEXTS, str)
    for name, kind in {**kinds, "options": TransferOptions}.items():
        value = getattr(settings, name)
        if not isinstance(value, kind) and (value is not None or kind is not str):
            raise ConfigurationError(
                f"{settings.variable(name)} is {type_name(value)}; pass a {kind.__name__}"
            )


_TEXTS = ("container", "connection_string", "account_name", "blob_endpoint", "prefix", "sas_token")


def resolve_config(settings: AzureStorageSettings, mode: StorageMode) -> _AzureStorageConfig | None:
    """Check settings against each other and against Azure's rules.

    Returns:
        The configuration; `None` in mode dev-skip, and in best-effort when something is missing.
    """
    if mode == "dev-skip":
        return None
    if missing := missing_settings(settings):
        if mode == "best-effort":
            return None
        raise ConfigurationError(
            f"Azure storage is not configured: {missing}. To run without it use mode best-effort "
            f"or dev-skip ({settings.variable('mode')})"
        )
    container = settings.container or ""
    if not _CONTAINER.fullmatch(container):
        raise ConfigurationError(
            f"{settings.variable('container')}={shown(container)} is not a container name; use 3 "
            "to 63 lower-case letters, digits and single hyphens, beginning and ending with a "
            "letter or digit"
        )
    made = _from_connection_string if settings.connection_string else _from_account
    config = made(settings, container)
    account, *rest = urlsplit(config.endpoint).path.strip("/").split("/")
    if rest[-1:] == [container]:  # as Storage Explorer copies it
        raise ConfigurationError(
            f"the endpoint in {config.endpoint_setting} ends in the container's name, which has a "
            f"setting of its own, {settings.variable('container')}; end it after {account!r}"
        )
    return config


def _from_connection_string(settings: AzureStorageSettings, container: str) -> _AzureStorageConfig:
    call = settings.variable
    own = call("connection_string")
    parts = parse_connection_string(settings.connection_string or "", own)
    # As in 0.7 the connection string wins: the others may be set for az, azcopy or the job table.
    if settings.account_name and parts.account_name not in (None, settings.account_name):
        _ignored(call("account_name"), own, f"it names account {parts.account_name!r}")
    if settings.sas_token:
        _ignored(call("sas_token"), own, "it has a credential of its own")
    public = ""
    if settings.blob_endpoint and settings.blob_endpoint.rstrip("/") != parts.endpoint:
        public = settings.blob_endpoint.rstrip("/")
        check_endpoint(public, call("blob_endpoint"), call("sas_token"))
    return _AzureStorageConfig(
        parts.endpoint,
        container,
        _clean_prefix(settings),
        parts.account_name,
        parts.account_key,
        parts.sas_token,
        settings.options,
        public,
        variables=settings.variables,
        endpoint_setting=own,
        credential_setting=own,
    )


def _ignored(variable: str, connection: str, why: str) -> None:
    message = f"{variable} is ignored beside {connection} ({why}); unset one of them"
    if message not in _warned:  # clients are made again and again
        _warned.add(message)
        _log.warning(message)


def _from_account(settings: AzureStorageSettings, container: str) -> _AzureStorageConfig:
    call = settings.variable
    account = settings.account_name
    sas = check_sas(settings.sas_token, call("sas_token")) if settings.sas_token else None
    if settings.blob_endpoint:
        endpoint = settings.blob_endpoint.rstrip("/")
        check_endpoint(endpoint, call("blob_endpoint"), call("sas_token"))
        host = AZURE_SERVICE.fullmatch(urlsplit(endpoint).hostname or "")
        if account and host and host["account"] != account.removesuffix("-secondary"):
            raise ConfigurationError(
                f"{call('account_name')}={shown(account)} contradicts {call('blob_endpoint')}, "
                f"which is of account {host['account']!r}; unset one of them"
            )
    else:
        if not ACCOUNT.fullmatch(account or ""):
            raise ConfigurationError(
                f"{call('account_name')}={shown(account)} is not an account name; use 3 to 24 "
                f"lower-case letters and digits, or set {call('blob_endpoint')} to the endpoint"
            )
        endpoint = f"https://{account}.blob.core.windows.net"
    if sas is None and urlsplit(endpoint).scheme != "https":
        raise ConfigurationError(
            f"{call('blob_endpoint')} is not https, and tokens of DefaultAzureCredential must "
            f"not travel in the clear; use https, {call('sas_token')} or "
            f"{call('connection_string')}"
        )
    return _AzureStorageConfig(
        endpoint,
        container,
        _clean_prefix(settings),
        account,
        None,
        sas,
        settings.options,
        variables=settings.variables,
        endpoint_setting=call("blob_endpoint" if settings.blob_endpoint else "account_name"),
        credential_setting=call("sas_token") if sas else "DefaultAzureCredential",
    )


def _clean_prefix(settings: AzureStorageSettings) -> str:
    from ._names import upload_problem

    prefix = (settings.prefix or "").rstrip("/")
    plain = prefix.removeprefix("/")  # which 0.7 kept in the names of blobs
    reason = upload_problem(plain) if plain else None
    if reason:
        raise ConfigurationError(
            f"{settings.variable('prefix')}={shown(settings.prefix)} cannot start blob names: "
            f"{reason}; use plain names joined by single slashes"
        )
    return prefix
