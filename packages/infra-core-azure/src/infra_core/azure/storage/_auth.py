"""Authentication: shared key, SAS token, or tokens of a credential.

Signing follows "Authorize with Shared Key", version 2015-02-21 and later:
https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from typing import Any

import azure.core  # noqa: F401 - before its parts: another thread may import it
from azure.core.exceptions import ClientAuthenticationError
from infra_core.runtime import clock

from .._tokens import STORAGE_SCOPE, TokenSource, TokenTimeoutError
from ._config import _AzureStorageConfig

__all__ = ["Authenticator", "make_authenticator"]

_SIGNED = (
    "Content-Encoding",
    "Content-Language",
    "Content-Length",
    "Content-MD5",
    "Content-Type",
    "Date",
    "If-Modified-Since",
    "If-Match",
    "If-None-Match",
    "If-Unmodified-Since",
    "Range",
)


@lru_cache(maxsize=4)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


class Authenticator:
    """Authenticates requests; this one has no more than `query`, a SAS token for every URL."""

    def __init__(self, sas_token: str = "") -> None:
        self.query = sas_token.lstrip("?&")

    async def authorize(
        self, method: str, path: str, params: Mapping[str, str], headers: dict[str, str]
    ) -> None:
        """Add headers; `path` is the encoded path of the URL."""

    def renews(self, sent: Mapping[str, str], challenge: Mapping[str, str]) -> bool:
        """Whether another try with new headers may succeed where the service refused these."""
        return False

    async def aclose(self) -> None:
        """Let go of what it owns."""


class SharedKey(Authenticator):
    """Signs each request with the account's key."""

    def __init__(self, account: str, key: str) -> None:
        super().__init__()
        self._account = account
        self._key = base64.b64decode(key)

    async def authorize(
        self, method: str, path: str, params: Mapping[str, str], headers: dict[str, str]
    ) -> None:
        """Sign the request."""
        headers["x-ms-date"] = _date(int(clock.time()))
        headers["Authorization"] = (
            f"SharedKey {self._account}:{self.sign(method, path, params, headers)}"
        )

    def sign(
        self, method: str, path: str, params: Mapping[str, str], headers: Mapping[str, str]
    ) -> str:
        """The signature of a request whose headers are complete."""
        lines = [method]
        for name in _SIGNED:
            value = headers.get(name, "")
            lines.append("" if name == "Content-Length" and value == "0" else value)
        own = [name for name in headers if name[:5] == "x-ms-"]
        own.sort(key=lambda name: name.replace("_", "!"))  # comes before digits, unlike in ASCII
        lines.extend([f"{name}:{headers[name].strip()}" for name in own])
        lines.append(f"/{self._account}{path}")
        lines.extend(f"{name}:{params[name]}" for name in sorted(params))
        digest = hmac.digest(self._key, "\n".join(lines).encode("utf-8"), hashlib.sha256)
        return base64.b64encode(digest).decode("ascii")


class BearerToken(Authenticator):
    """Sends tokens of an Azure credential; see `TokenSource`."""

    def __init__(self, credential: Any = None, *, wait: float = 60.0) -> None:
        super().__init__()
        self._source = TokenSource(credential, wait=wait)
        self._asked: dict[str, str] = {}  # what the service has asked for last: claims, tenant

    async def authorize(
        self, method: str, path: str, params: Mapping[str, str], headers: dict[str, str]
    ) -> None:
        """Add the token, fetched first when there is none."""
        asked = dict(self._asked)
        try:
            token = await self._source.get(STORAGE_SCOPE, **asked)
        except (ClientAuthenticationError, TypeError) as error:
            # A credential may be for its own tenant alone, or know no other arguments.
            if isinstance(error, TokenTimeoutError) or not asked.pop("tenant_id", ""):
                raise
            self._asked = asked
            token = await self._source.get(STORAGE_SCOPE, **asked)
        headers["x-ms-date"] = _date(int(clock.time()))
        headers["Authorization"] = f"Bearer {token.token}"

    def renews(self, sent: Mapping[str, str], challenge: Mapping[str, str]) -> bool:
        """Have the next request fetch a new token in place of the one that was sent."""
        self._asked.update(challenge)
        self._source.reject(sent.get("Authorization", "").removeprefix("Bearer "))
        return True

    async def aclose(self) -> None:
        """Close the credential, if it is our own."""
        self._source.close()


def make_authenticator(config: _AzureStorageConfig, credential: Any = None) -> Authenticator:
    """The credential that a configuration names."""
    if config.account_key is not None:
        return SharedKey(config.account_name or "", config.account_key)
    if config.sas_token is not None:
        return Authenticator(config.sas_token)
    return BearerToken(credential, wait=config.options.timeout)
