"""Proving who we are: shared key, SAS token, or tokens of a credential.

Signing follows "Authorize with Shared Key", version 2015-02-21 and later:
https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
"""

import asyncio
import base64
import hashlib
import hmac
import inspect
import threading
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Protocol

from infra_core.runtime import clock

from ._config import _AzureStorageConfig

__all__ = ["Authenticator", "make_authenticator"]

_SCOPE = "https://storage.azure.com/.default"
_RENEW_BEFORE = 300.0  # seconds; a token this close to its end is renewed first
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


class Authenticator(Protocol):
    """Adds the proof to a request; `query` is what a SAS token adds to every URL."""

    query: str

    async def authorize(
        self, method: str, path: str, params: Mapping[str, str], headers: dict[str, str]
    ) -> None:
        """Add headers; `path` is the encoded path of the URL."""

    async def aclose(self) -> None:
        """Let go of what it owns."""


class SharedKey:
    """Signs each request with the account's key."""

    query = ""

    def __init__(self, account: str, key: str) -> None:
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
        lines.extend(
            f"{name}:{headers[name].strip()}" for name in sorted(headers) if name[:5] == "x-ms-"
        )
        lines.append(f"/{self._account}{path}")
        lines.extend(f"{name}:{params[name]}" for name in sorted(params))
        digest = hmac.digest(self._key, "\n".join(lines).encode("utf-8"), hashlib.sha256)
        return base64.b64encode(digest).decode("ascii")

    async def aclose(self) -> None:
        """Nothing to let go."""


class SasToken:
    """Adds a shared access signature to each URL."""

    def __init__(self, token: str) -> None:
        self.query = token.lstrip("?&")

    async def authorize(
        self, method: str, path: str, params: Mapping[str, str], headers: dict[str, str]
    ) -> None:
        """The URL holds all there is."""

    async def aclose(self) -> None:
        """Nothing to let go."""


class BearerToken:
    """Sends tokens of an Azure credential, kept until shortly before they expire.

    One credential serves every event loop and thread: a synchronous one is asked in a thread.
    """

    query = ""

    def __init__(self, credential: Any = None) -> None:
        self._credential = credential
        self._owned = credential is None
        self._guard = threading.Lock()
        self._token = ""
        self._expires = 0.0

    async def authorize(
        self, method: str, path: str, params: Mapping[str, str], headers: dict[str, str]
    ) -> None:
        """Add the token, fetched first when there is none or it is about to expire."""
        if clock.time() >= self._expires - _RENEW_BEFORE:
            if inspect.iscoroutinefunction(getattr(self._credential, "get_token", None)):
                token = await self._credential.get_token(_SCOPE)
                self._token, self._expires = token.token, float(token.expires_on)
            else:
                await asyncio.to_thread(self._renew)
        headers["x-ms-date"] = _date(int(clock.time()))
        headers["Authorization"] = f"Bearer {self._token}"

    def _renew(self) -> None:
        with self._guard:  # many requests at once fetch one token
            if clock.time() < self._expires - _RENEW_BEFORE:
                return
            if self._credential is None:
                from azure.identity import DefaultAzureCredential

                self._credential = DefaultAzureCredential()
            token = self._credential.get_token(_SCOPE)
            self._token, self._expires = token.token, float(token.expires_on)

    async def aclose(self) -> None:
        """Close the credential, if it is our own."""
        if self._owned:
            credential, self._credential = self._credential, None
            self._token, self._expires = "", 0.0
            if credential is not None:
                await asyncio.to_thread(credential.close)


def make_authenticator(config: _AzureStorageConfig, credential: Any = None) -> Authenticator:
    """The proof that a configuration names."""
    if config.account_key is not None:
        return SharedKey(config.account_name or "", config.account_key)
    if config.sas_token is not None:
        return SasToken(config.sas_token)
    return BearerToken(credential)
