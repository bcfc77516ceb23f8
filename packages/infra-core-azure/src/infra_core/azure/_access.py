"""What to do where a storage service refuses access, by the error code that it gives.

Sources: Azure, "Common REST API error codes" and "Blob service error codes".
"""

import base64
import contextlib
import re

__all__ = ["access_remedy", "challenge_of"]

_NO_TENANTS = ("common", "organizations", "consumers", "adfs")  # of an authority: any, or none

_STALE = (
    "the service does not accept the token; check this machine's clock, that the identity is of "
    "the tenant of the account, and sign in again (az login)"
)
_REMEDIES = {
    "InvalidAuthenticationInfo": _STALE,
    "AuthorizationPermissionMismatch": "give this identity the role Storage Blob Data Contributor "
    "(blobs) or Storage Table Data Contributor (tables), or the SAS token the permission; a new "
    "role takes some minutes",
    "AuthorizationSourceIPMismatch": "the SAS token is for other IP addresses: use one for this",
    "AuthorizationProtocolMismatch": "the SAS token is for https:// only: use an https endpoint",
    "AuthorizationServiceMismatch": "the SAS token is for another service: make one for this (ss=)",
    "AuthorizationResourceTypeMismatch": "the SAS token is for other resource types: make one for "
    "service, containers and objects (srt=sco)",
    "InsufficientAccountPermissions": "the SAS token or key lacks this permission: use another",
    "KeyBasedAuthenticationNotPermitted": "the account allows no shared keys: use "
    "DefaultAzureCredential, by the account's name without connection string",
    "PublicAccessNotPermitted": "the account allows no anonymous access; give a credential",
    "NoAuthenticationInformation": "the request had no credential; give a connection string, a SAS "
    "token or an account name",
    "AccountIsDisabled": "enable the account, or use another",
}


def access_remedy(code: str, status: int = 0) -> str:
    """Return what to do about a refusal of access, empty where code and status do not say."""
    return _REMEDIES.get(code) or (_STALE if status == 401 else "")


def challenge_of(header: str) -> dict[str, str]:
    """Return what a new token must be asked for with, by a `WWW-Authenticate` header.

    `claims` as in https://learn.microsoft.com/entra/identity-platform/claims-challenge, and
    `tenant_id`, that of the account:
    https://learn.microsoft.com/rest/api/storageservices/authorize-with-azure-active-directory

    Example:
        >>> challenge_of('Bearer realm="", error="insufficient_claims", claims="eyJhIjoxfQ"')
        {'claims': '{"a":1}'}
        >>> challenge_of("Bearer authorization_uri=https://login.microsoftonline.com/T/oauth2")
        {'tenant_id': 'T'}
    """
    asked = {}
    if found := re.search(r'\bclaims="([^"]+)"', header):
        coded = found[1].replace("+", "-").replace("/", "_").rstrip("=")
        with contextlib.suppress(ValueError):
            claims = base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)).decode("utf-8")
            asked["claims"] = claims
    found = re.search(r'\bauthorization_uri="?https://[^/\s",]+/([\w.-]+)', header)
    if found and found[1] not in _NO_TENANTS:
        asked["tenant_id"] = found[1]
    return asked
