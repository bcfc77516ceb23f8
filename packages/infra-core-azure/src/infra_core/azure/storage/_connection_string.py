"""Connection strings of a storage account, read strictly; their secrets never reach an error."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..exceptions import ConfigurationError

__all__ = ["ConnectionParts", "check_endpoint", "check_sas", "parse_connection_string"]

# The emulator's account and key, published by Microsoft:
# https://learn.microsoft.com/azure/storage/common/storage-use-azurite
_DEVELOPMENT_ACCOUNT = "devstoreaccount1"
_DEVELOPMENT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
ACCOUNT = re.compile(r"[a-z0-9]{3,24}(?:-secondary)?")
AZURE_HOST = re.compile(r"([a-z0-9]+)(?:-secondary)?(?:\.z\d+)?\.blob\.(?:core|storage)\..+")
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
            whole = bool(base64.b64decode(key, validate=True))
        except (binascii.Error, ValueError):
            whole = False
        if not whole:
            raise ConfigurationError(
                f"the AccountKey in {variable} is {'not base64' if key else 'empty'}; copy the "
                "whole connection string again, quotes and line breaks are often lost or added on "
                "the way"
            )
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
    endpoint = _endpoint(values, variable)
    if sas is not None:
        sas = check_sas(sas, f"the SharedAccessSignature in {variable}")
    return ConnectionParts(endpoint.rstrip("/"), account or None, key, sas)


def _endpoint(values: Mapping[str, str], variable: str) -> str:
    """The blob service's endpoint, named as a whole or by its parts."""
    endpoint, account = values.get("blobendpoint"), values.get("accountname")
    if endpoint:
        check_endpoint(endpoint, f"BlobEndpoint in {variable}", "SharedAccessSignature beside it")
    elif account:
        protocol = values.get("defaultendpointsprotocol", "https").lower()
        if protocol not in ("http", "https"):
            raise ConfigurationError(
                f"DefaultEndpointsProtocol={protocol} in {variable} is unknown; use https"
            )
        if not ACCOUNT.fullmatch(account):
            raise ConfigurationError(
                f"AccountName={account!r:.80} in {variable} is no account name; use 3 to 24 "
                "lower-case letters and digits, or add BlobEndpoint"
            )
        suffix = values.get("endpointsuffix", "core.windows.net")
        endpoint = f"{protocol}://{account}.blob.{suffix}"
        check_endpoint(endpoint, f"EndpointSuffix in {variable}", "SharedAccessSignature beside it")
    else:
        raise ConfigurationError(
            f"{variable} holds neither AccountName nor BlobEndpoint; add one of them"
        )
    return endpoint


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
    check_endpoint(host, f"DevelopmentStorageProxyUri in {variable}", "no setting beside it")
    return ConnectionParts(
        f"{host.rstrip('/')}:10000/{_DEVELOPMENT_ACCOUNT}",
        _DEVELOPMENT_ACCOUNT,
        _DEVELOPMENT_KEY,
        None,
    )


def check_sas(token: str, what: str) -> str:
    """A SAS token without what often stands around it.

    Raises:
        ConfigurationError: It is none; names `what` and the remedy, never the token.
    """
    token = token.strip().lstrip("?&")
    if "://" in token.partition("=")[0]:
        raise ConfigurationError(
            f"{what} is a whole URL; set it to the part after the '?', and the endpoint by itself"
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError(
            f"{what} holds blanks, line breaks or other characters that no token has; copy it again"
        )
    if "sig=" not in token:
        raise ConfigurationError(f"{what} holds no signature (sig=...); copy the whole token")
    return token


def check_endpoint(url: str, what: str, sas_setting: str) -> None:
    """Refuse an endpoint that is no plain http(s) URL.

    Args:
        url: The endpoint.
        what: Where it came from.
        sas_setting: Where a SAS token belongs instead.

    Raises:
        ConfigurationError: Names `what`, the value and the remedy, never a query or user name,
            which could be secret.
    """
    remedy = "use https://ACCOUNT.blob.core.windows.net or http://127.0.0.1:10000/devstoreaccount1"
    shown = "" if "@" in url else f" ({url.partition('?')[0]!r:.120})"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"{what}{shown} is no URL ({error}); {remedy}") from None
    if parts.scheme not in ("http", "https") or not host or any(c.isspace() for c in url):
        raise ConfigurationError(f"{what}{shown} is no http(s) URL; {remedy}")
    if parts.username or parts.password:
        raise ConfigurationError(f"{what} holds a user name or password; remove them; {remedy}")
    if parts.query or parts.fragment:
        raise ConfigurationError(
            f"{what}{shown} has a query behind it; put a SAS token in its own setting "
            f"({sas_setting}) and keep the endpoint plain: {remedy}"
        )
    if AZURE_HOST.fullmatch(host) and parts.path.strip("/"):
        raise ConfigurationError(
            f"{what}{shown} has a path; the container has a setting of its own, so end the "
            "endpoint after the host"
        )
