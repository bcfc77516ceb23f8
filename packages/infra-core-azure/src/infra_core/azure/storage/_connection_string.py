"""Connection strings of a storage account, read strictly; their secrets never reach an error."""

import base64
import binascii
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..exceptions import ConfigurationError

__all__ = ["ConnectionParts", "check_endpoint", "parse_connection_string"]

# The emulator's account and key, published by Microsoft:
# https://learn.microsoft.com/azure/storage/common/storage-use-azurite
_DEVELOPMENT_ACCOUNT = "devstoreaccount1"
_DEVELOPMENT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
_EXAMPLE = (
    "DefaultEndpointsProtocol=https;AccountName=...;AccountKey=...;EndpointSuffix=core.windows.net"
)


@dataclass(frozen=True, slots=True, repr=False)
class ConnectionParts:
    """What a connection string says about the blob service."""

    endpoint: str
    account_name: str | None
    account_key: str | None
    sas_token: str | None

    def __repr__(self) -> str:
        return f"ConnectionParts(endpoint={self.endpoint!r}, account_name={self.account_name!r})"


def parse_connection_string(text: str, variable: str) -> ConnectionParts:
    """Read a connection string.

    Args:
        text: The connection string; `UseDevelopmentStorage=true` means Azurite on its own ports.
        variable: Where it came from, for errors.

    Raises:
        ConfigurationError: It is malformed; names the variable and the part, never the secret.
    """
    values = _split(text, variable)
    if "usedevelopmentstorage" in values:
        return _development(values, variable)
    account = values.get("accountname")
    key = values.get("accountkey")
    sas = values.get("sharedaccesssignature")
    if key is not None:
        try:
            base64.b64decode(key, validate=True)
        except (binascii.Error, ValueError):
            raise ConfigurationError(
                f"the AccountKey in {variable} is not base64; copy the whole connection string "
                "again, quotes and line breaks are often lost or added on the way"
            ) from None
    if key is not None and sas is not None:
        raise ConfigurationError(
            f"{variable} holds both an AccountKey and a SharedAccessSignature; keep one of them"
        )
    if key is None and sas is None:
        raise ConfigurationError(
            f"{variable} holds neither AccountKey nor SharedAccessSignature; copy the whole "
            f"connection string, for example {_EXAMPLE}"
        )
    if key is not None and not account:
        raise ConfigurationError(f"{variable} holds an AccountKey but no AccountName; add it")
    endpoint = values.get("blobendpoint")
    if endpoint:
        check_endpoint(endpoint, f"the BlobEndpoint in {variable}")
    elif account:
        protocol = values.get("defaultendpointsprotocol", "https").lower()
        if protocol not in ("http", "https"):
            raise ConfigurationError(
                f"DefaultEndpointsProtocol={protocol} in {variable} is unknown; use https"
            )
        suffix = values.get("endpointsuffix", "core.windows.net")
        endpoint = f"{protocol}://{account}.blob.{suffix}"
        check_endpoint(endpoint, f"AccountName and EndpointSuffix in {variable}")
    else:
        raise ConfigurationError(
            f"{variable} holds neither AccountName nor BlobEndpoint; add one of them"
        )
    return ConnectionParts(
        endpoint.rstrip("/"), account or None, key, sas.lstrip("?") if sas else None
    )


def _split(text: str, variable: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for position, part in enumerate(text.strip().strip(";").split(";"), start=1):
        if not part.strip():
            continue
        name, equals, value = part.partition("=")
        name = name.strip().lower()
        if not equals or not name:
            raise ConfigurationError(
                f"part {position} of {variable} is no NAME=VALUE pair; a connection string looks "
                f"like {_EXAMPLE}"
            )
        if name in values:
            raise ConfigurationError(f"{variable} names {name!r} twice; keep one of them")
        values[name] = value.strip()
    if not values:
        raise ConfigurationError(f"{variable} is empty; unset it or set it to {_EXAMPLE}")
    return values


def _development(values: dict[str, str], variable: str) -> ConnectionParts:
    if values["usedevelopmentstorage"].lower() != "true":
        raise ConfigurationError(
            f"UseDevelopmentStorage in {variable} can only be true; remove it to use an account"
        )
    if "accountkey" in values or "blobendpoint" in values:
        raise ConfigurationError(
            f"UseDevelopmentStorage in {variable} contradicts AccountKey and BlobEndpoint beside "
            "it; keep one form"
        )
    host = values.get("developmentstorageproxyuri", "http://127.0.0.1")
    check_endpoint(host, f"DevelopmentStorageProxyUri in {variable}")
    return ConnectionParts(
        f"{host.rstrip('/')}:10000/{_DEVELOPMENT_ACCOUNT}",
        _DEVELOPMENT_ACCOUNT,
        _DEVELOPMENT_KEY,
        None,
    )


def check_endpoint(url: str, what: str) -> None:
    """Refuse an endpoint that is no plain http(s) URL.

    Raises:
        ConfigurationError: Names `what` and the remedy, never a query, which could hold a SAS.
    """
    remedy = "use https://ACCOUNT.blob.core.windows.net or http://127.0.0.1:10000/devstoreaccount1"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(f"{what} is no URL; {remedy}") from None
    if parts.scheme not in ("http", "https") or not host or any(c.isspace() for c in url):
        raise ConfigurationError(f"{what} is no http(s) URL; {remedy}")
    if parts.username or parts.password:
        raise ConfigurationError(f"{what} holds a user name or password; remove them; {remedy}")
    if parts.query or parts.fragment:
        raise ConfigurationError(
            f"{what} has a query; put a SAS token in its own setting (AZURE_STORAGE_SAS_TOKEN) "
            f"and keep the endpoint plain: {remedy}"
        )
