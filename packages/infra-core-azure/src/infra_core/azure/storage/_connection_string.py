"""Connection strings of a storage account, read strictly; their secrets never reach an error."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from infra_core.runtime import redact_secrets

from .._checks import split_url
from ..exceptions import ConfigurationError

__all__ = [
    "ConnectionParts",
    "check_endpoint",
    "check_sas",
    "check_suffix",
    "parse_connection_string",
    "shown",
    "sibling_endpoint",
    "split_connection_string",
]

# The emulator's account and key, published by Microsoft:
# https://learn.microsoft.com/azure/storage/common/storage-use-azurite
_DEVELOPMENT_ACCOUNT = "devstoreaccount1"
_DEVELOPMENT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
_PORTS = {"blob": 10000, "table": 10002}
# Those of an account have 88 characters.
_KEY = re.compile(r"(?=[A-Za-z+/]*\d)[A-Za-z0-9+/]{40,}={0,2}")
ACCOUNT = re.compile(r"[a-z0-9]{3,24}(?:-secondary)?")
_OF_ONE_REQUEST = ("restype=container", "comp=list")  # in URLs that list a container
_SIGNATURE = re.compile(r"(\bsig=)([^&]*)")
AZURE_SERVICE = re.compile(
    r"(?P<account>[a-z0-9]+)(?:-secondary)?(?P<zone>\.z\d+)?"
    r"\.(?P<service>blob|table|dfs|file|queue)\.(?P<suffix>(?:core|storage)\..+)"
)
_EXAMPLE = (
    "DefaultEndpointsProtocol=https;AccountName=...;AccountKey=...;EndpointSuffix=core.windows.net"
)


_NAMES = {
    name.lower(): name
    for name in (
        *("AccountName", "AccountKey", "SharedAccessSignature", "BlobEndpoint", "TableEndpoint"),
        *("QueueEndpoint", "FileEndpoint", "DefaultEndpointsProtocol", "EndpointSuffix"),
        *("UseDevelopmentStorage", "DevelopmentStorageProxyUri"),
        *("InstrumentationKey", "IngestionEndpoint", "LiveEndpoint", "Location"),
    )
}


@dataclass(frozen=True, slots=True, repr=False)
class ConnectionParts:
    """What a connection string says about the blob and the table service."""

    endpoint: str  # of the blob service; empty where the string names none
    account_name: str | None  # `None` where only endpoints are named
    account_key: str | None
    sas_token: str | None  # in place of the key
    table_endpoint: str = ""  # in the same cloud; empty where the string names none

    def __repr__(self) -> str:
        return f"ConnectionParts(endpoint={self.endpoint!r}, account_name={self.account_name!r})"


def shown(value: object) -> str:
    """A value as an error shows it: not a key or token that was put into the wrong setting."""
    if isinstance(value, str):
        value = _KEY.sub("***", redact_secrets(value))
    return f"{value!r:.80}"


def parse_connection_string(text: str, variable: str, *, service: str = "blob") -> ConnectionParts:
    """Read a connection string, for blobs and for tables.

    Letter case of names, blanks, empty parts and quotation marks around the whole or around a
    value do not matter. `UseDevelopmentStorage=true` means Azurite on its own ports of this
    machine, or of the host that `DevelopmentStorageProxyUri` names. The endpoint of the `service`
    must be there.

    Raises:
        ConfigurationError: It is malformed; names the variable and the part, never the secret.
    """
    if "://" in text.partition("=")[0]:  # a URL with a SAS token, say
        raise ConfigurationError(
            f"{variable} is a URL; set it to a connection string, for example {_EXAMPLE}, or give "
            "the endpoint and the SAS token (what follows the '?') by their own settings"
        )
    values = split_connection_string(text, variable)
    if "usedevelopmentstorage" in values:
        return _development(values, variable)
    account = values.get("accountname")
    key, sas = values.get("accountkey"), values.get("sharedaccesssignature")
    if sas or key is None:  # templates leave the other one empty
        if key:
            raise ConfigurationError(
                f"{variable} holds both an AccountKey and a SharedAccessSignature; keep one of them"
            )
        if sas is None:
            raise ConfigurationError(
                f"{variable} holds neither AccountKey nor SharedAccessSignature; copy the whole "
                f"connection string, its parts separated by semicolons, for example {_EXAMPLE}"
            )
        key, sas = None, check_sas(sas, f"the SharedAccessSignature in {variable}")
    else:
        _check_key(key, variable)
        sas = None
        if not account:
            raise ConfigurationError(f"{variable} holds an AccountKey but no AccountName; add it")
    blob, table = (_endpoint(values, variable, kind) for kind in ("blob", "table"))
    if not (blob if service == "blob" else table):
        wanted = f"{service.title()}Endpoint"
        found = "BlobEndpoint" if service == "table" else "TableEndpoint"
        raise ConfigurationError(
            f"{variable} holds no {wanted}, and {found} is that of another service and says "
            f"nothing about it; add {wanted}, or EndpointSuffix for the account's own"
            if blob or table
            else f"{variable} holds neither AccountName nor {wanted}; add one of them"
        )
    return ConnectionParts(blob, account or None, key, sas, table)


def _check_key(key: str, variable: str) -> None:
    try:
        whole = bool(base64.b64decode(key, validate=True))
    except (binascii.Error, ValueError):
        whole = False
    if not whole:
        raise ConfigurationError(
            f"the AccountKey in {variable} is {'not base64' if key else 'empty'}; copy the whole "
            "connection string again, quotes and line breaks are often lost or added on the way"
        )


def sibling_endpoint(endpoint: str, service: str) -> str:
    """Return another service's endpoint of the same account and cloud, empty where none is known.

    Example:
        >>> sibling_endpoint("https://acc.blob.core.chinacloudapi.cn", "table")
        'https://acc.table.core.chinacloudapi.cn'
        >>> sibling_endpoint("https://acc.z20.blob.storage.azure.net", "table")
        'https://acc.z20.table.storage.azure.net'
        >>> sibling_endpoint("http://127.0.0.1:10000/devstoreaccount1", "table")
        ''
    """
    parts = urlsplit(endpoint)
    found = AZURE_SERVICE.fullmatch(parts.hostname or "")
    if found is None:
        return ""
    # "The Azure DNS zone is dynamically selected and assigned to your storage account":
    # https://learn.microsoft.com/azure/storage/common/storage-account-overview
    host = f"{found['account']}{found['zone'] or ''}.{service}.{found['suffix']}"
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}"


def _endpoint(values: Mapping[str, str], variable: str, service: str) -> str:
    """A service's endpoint: named as a whole or by its parts, or beside that of the other."""
    named = f"{service}endpoint"
    endpoint, account = values.get(named), values.get("accountname")
    what = f"{service.title()}Endpoint in {variable}"
    if endpoint:
        check_endpoint(endpoint, what, "SharedAccessSignature beside it", service)
        return endpoint.rstrip("/")
    other = values.get("tableendpoint" if service == "blob" else "blobendpoint")
    suffix = values.get("endpointsuffix", "").strip("./")
    if other:
        # Endpoints of one's own (Azurite, a private host) say nothing about the other service.
        sibling = sibling_endpoint(other, service)
        if sibling or not suffix:
            return sibling
    if not account:
        return ""
    protocol = (values.get("defaultendpointsprotocol") or "https").lower()
    if protocol not in ("http", "https"):
        raise ConfigurationError(
            f"DefaultEndpointsProtocol={shown(protocol)} in {variable} is unknown; use https"
        )
    if not ACCOUNT.fullmatch(account):
        raise ConfigurationError(
            f"AccountName={shown(account)} in {variable} is not an account name; use 3 to 24 "
            f"lower-case letters and digits, or add {service.title()}Endpoint"
        )
    check_suffix(suffix, variable)
    endpoint = f"{protocol}://{account}.{service}.{suffix or 'core.windows.net'}"
    suffix_in = f"EndpointSuffix in {variable}"
    check_endpoint(endpoint, suffix_in, "SharedAccessSignature beside it", service)
    return endpoint


def check_suffix(suffix: str, variable: str, example: str = "core.windows.net") -> None:
    """Refuse an EndpointSuffix that is more than the end of a host name."""
    if re.search(r"[^\w.:#?@-]|^(?:blob|table|dfs|file|queue|web)\.", suffix):
        raise ConfigurationError(
            f"EndpointSuffix={shown(suffix)} in {variable} is not the end of a host name; use such "
            f"as {example}, without scheme, service or path"
        )


def split_connection_string(text: str, variable: str, example: str = _EXAMPLE) -> dict[str, str]:
    """The values of a connection string, also that of telemetry, by their names in lower case.

    Raises:
        ConfigurationError: A part is not NAME=VALUE, a name is there twice, or there is none.
    """
    values: dict[str, str] = {}
    for position, part in enumerate(_unquoted(text).split(";"), start=1):
        if not part.strip():
            continue
        name, equals, value = part.partition("=")
        name = name.strip().lower()
        if not equals or not name:
            raise ConfigurationError(
                f"part {position} of {variable} is not a NAME=VALUE pair; a connection string "
                f"looks like {example}"
            )
        if name in values:
            # A name that none has may be a piece of a key.
            shown = f"{_NAMES[name]} (part {position})" if name in _NAMES else f"part {position}"
            raise ConfigurationError(f"{variable} holds {shown} twice; keep one of them")
        values[name] = _unquoted(value)
    if not values:
        raise ConfigurationError(f"{variable} is empty; unset it or set it to {example}")
    return values


def _unquoted(text: str) -> str:
    """Without the quotation marks that a shell or an .env file has left around it."""
    text = text.strip("\ufeff \t\r\n\v\f\xa0")  # a byte order mark is none of the text either
    while len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    return text


def _development(values: dict[str, str], variable: str) -> ConnectionParts:
    if values["usedevelopmentstorage"].lower() != "true":
        raise ConfigurationError(
            f"UseDevelopmentStorage in {variable} can only be true; remove it to use an account"
        )
    if values.keys() & {"accountkey", "blobendpoint", "tableendpoint"}:
        raise ConfigurationError(
            f"UseDevelopmentStorage in {variable} contradicts AccountKey and endpoints beside "
            "it; keep one form"
        )
    host = (values.get("developmentstorageproxyuri") or "http://127.0.0.1").rstrip("/")
    what = f"DevelopmentStorageProxyUri in {variable}"
    check_endpoint(host, what, "no setting beside it")
    if urlsplit(host).port is not None or urlsplit(host).path:
        raise ConfigurationError(
            f"{what} ({shown(host)}) names a port or path, but the emulator's ports are fixed "
            "(10000 for blobs, 10002 for tables); keep scheme and host alone, or use AccountName, "
            "AccountKey, BlobEndpoint and TableEndpoint"
        )
    blob, table = (f"{host}:{port}/{_DEVELOPMENT_ACCOUNT}" for port in _PORTS.values())
    return ConnectionParts(blob, _DEVELOPMENT_ACCOUNT, _DEVELOPMENT_KEY, None, table)


def check_sas(token: str, what: str) -> str:
    """A SAS token without what often stands around it.

    Raises:
        ConfigurationError: It is none; names `what` and the remedy, never the token.
    """
    token = _unquoted(token).replace("&amp;", "&").replace("\\u0026", "&").lstrip("?&")
    first = token.partition("=")[0]
    if "/" in first:
        raise ConfigurationError(
            f"{what} is a whole URL; set it to the part after the '?', and the endpoint by itself"
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError(
            f"{what} holds blanks, line breaks or other characters that no token has; copy it again"
        )
    if not re.search(r"\bsig=[^&]", token):
        raise ConfigurationError(f"{what} holds no signature (sig=...); copy the whole token")
    if not re.fullmatch("[a-z]{2,8}", first):
        raise ConfigurationError(
            f"{what} is more than a token, which begins with a parameter such as sv= or sp=; set "
            "it to the token alone, and a connection string as such"
        )
    token = "&".join(part for part in token.split("&") if part not in _OF_ONE_REQUEST)
    return _SIGNATURE.sub(lambda found: found[1] + _encoded(found[2]), token)


def _encoded(signature: str) -> str:
    """A signature as a query holds it, whether it was encoded for that not at all, or twice.

    It is Base64, which has plus signs, but neither blanks nor percent signs.
    """
    return quote(unquote(unquote(signature)), safe="")


def check_endpoint(url: str, what: str, sas_setting: str, service: str = "blob") -> None:
    """Refuse an endpoint that is not a plain http(s) URL.

    Raises:
        ConfigurationError: Says `what` it is, and where a SAS token belongs instead; never shows a
            query or user name, which could be secret.
    """
    emulator = f"http://127.0.0.1:{_PORTS[service]}/{_DEVELOPMENT_ACCOUNT}"
    remedy = f"use https://ACCOUNT.{service}.core.windows.net or {emulator}"
    named = "" if "@" in url else f" ({shown(url.partition('?')[0])})"
    try:
        parts = split_url(url)
    except ValueError as error:
        problem = f"is not an http(s) URL ({error})"
        raise ConfigurationError(f"{what}{named} {problem}; {remedy}") from None
    if parts.username or parts.password:
        raise ConfigurationError(f"{what} holds a user name or password; remove them; {remedy}")
    if "?" in url or "#" in url:
        raise ConfigurationError(
            f"{what}{named} has a query behind it; put a SAS token in its own setting "
            f"({sas_setting}) and keep the endpoint plain: {remedy}"
        )
    azure = AZURE_SERVICE.fullmatch(parts.hostname or "")
    if azure and azure["service"] != service:
        raise ConfigurationError(
            f"{what}{named} is an endpoint of the {azure['service']} service; use "
            f"{sibling_endpoint(url, service)}"
        )
    if azure and parts.path.strip("/"):
        raise ConfigurationError(
            f"{what}{named} has a path; the container has a setting of its own, as the table has, "
            "so end the endpoint after the host"
        )
