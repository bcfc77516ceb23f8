"""Which refusals of the blob service pass by themselves, and what to do about the others.

Pure. The codes are those of
https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes and
https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes.
"""

__all__ = [
    "CONDITIONS",
    "CONDITIONS_REMEDIES",
    "LIMITS_OF_A_TOKEN",
    "REFUSE_ALL",
    "REMEDIES",
    "is_permanent",
    "is_worth_a_retry",
]

CONDITIONS = frozenset({"BlobAlreadyExists", "ConditionNotMet", "TargetConditionNotMet"})
"""How the service says that a condition of the request (If-Match, If-None-Match) was not met."""

CONDITIONS_REMEDIES = {
    "upload": "look at the blob and upload again, or pass overwrite='always'",
    "download": "it is written again and again: download it when its writer is done, or a snapshot "
    "of it by container()",
    "deletion": "it was written since it was listed: look at it and delete again",
}
"""What to do then, by the operation."""

_RETRIED = frozenset({408, 425, 429, 449, 500, 502, 503, 504})
# The bytes were altered on the way, which the next try may be spared.
_ALTERED = frozenset({"Md5Mismatch", "Crc64Mismatch"})

# Statuses that say nothing final: credentials are renewed, containers are made, servers recover.
_PASSING_STATUSES = frozenset({401, 403, 404, 407, 408, 425, 429, 449})
_UNKNOWN_TO_SERVER = frozenset({501, 505})
_PASSING = frozenset(
    {
        *_ALTERED,
        "AccountBeingCreated",
        "AccountIsDisabled",
        "BlobBeingRehydrated",
        "BlockCountExceedsLimit",  # blocks of uploads that were cut off, for a week
        "ContainerBeingDeleted",
        "ContainerDisabled",
        "InvalidAuthenticationInfo",
        "InvalidBlobOrBlock",  # blocks that another program left behind, for a week
        "InvalidBlockList",  # another writer's commit has dropped the blocks that were sent
        "LeaseAlreadyBroken",
        "LeaseAlreadyPresent",
        "LeaseIdMismatchWithBlobOperation",
        "LeaseIdMismatchWithContainerOperation",
        "LeaseIdMissing",
        "LeaseIsBreakingAndCannotBeAcquired",
        "LeaseLost",
        "OperationTimedOut",
        "PendingCopyOperation",
        "ServerBusy",
        "SnapshotOperationRateExceeded",
        "SystemInUse",
    }
)
# What a shared access signature does not allow it never will; a role may be assigned at any time.
LIMITS_OF_A_TOKEN = frozenset(
    {
        "AuthorizationPermissionMismatch",
        "AuthorizationProtocolMismatch",
        "AuthorizationResourceTypeMismatch",
        "AuthorizationServiceMismatch",
    }
)

REFUSE_ALL = frozenset(
    {
        "AccountIsDisabled",
        "AuthenticationFailed",
        "AuthorizationFailure",
        "AuthorizationProtocolMismatch",
        "AuthorizationServiceMismatch",
        "AuthorizationSourceIPMismatch",
        "KeyBasedAuthenticationNotPermitted",
    }
)
"""What is said with 403 of a credential, whatever it asks for; 401 always is."""

_ENCRYPTED = (
    "its key was provided by a customer with the request (or its encryption scope differs), which "
    "this client does not do: use container() and pass cpk= or encryption_scope= to the SDK"
)
REMEDIES = {
    "AccountRequiresHttps": "use https: DefaultEndpointsProtocol=https, or an https:// endpoint",
    "BlobArchived": "rehydrate it first (set its tier to Hot, Cool or Cold and wait some hours), "
    "or use another name",
    "BlobBeingRehydrated": "wait until it is rehydrated, which takes up to 15 hours",
    "BlobCustomerSpecifiedEncryptionMismatch": _ENCRYPTED,
    "BlobDoesNotUseCustomerSpecifiedEncryption": _ENCRYPTED,
    "BlobImmutableDueToPolicy": "an immutability policy or a legal hold keeps the blob unchanged: "
    "use another name, or wait until the policy ends",
    "BlobNotFound": "check the name and the prefix",
    "BlobUsesCustomerSpecifiedEncryption": _ENCRYPTED,
    "BlockCountExceedsLimit": "uploads that were cut off have left too many blocks of it: use "
    "another name, or wait a week",
    "ContainerBeingDeleted": "wait until it is gone, about 30 seconds, or use another name",
    "ContainerNotFound": "create the container or let this identity create it",
    "DirectoryIsNotEmpty": "a folder of this name exists; use another name",
    "InvalidBlobOrBlock": "another program has left blocks of this blob behind, whose ids are of "
    "another length: use another name, or wait a week",
    "InvalidBlobTier": "the tier does not fit this blob or account; check the account's default",
    "InvalidBlockList": "another writer has replaced the blob meanwhile: upload it again",
    "InvalidBlobType": "the name belongs to an append or page blob; delete it or use another name",
    "InvalidMetadata": "headers hold ASCII alone: upload it without keep_properties, and give what "
    "it shall have",
    "LeaseIdMismatchWithBlobOperation": "another client holds a lease on it; break the lease, or "
    "wait until it ends",
    "LeaseIdMissing": (
        "a client holds a lease on it; release it, or wait until it ends (one without end must be "
        "broken)"
    ),
    "LeaseLost": "the lease has ended; try again",
    "Md5Mismatch": "bytes were altered on the way: use https, and look at the proxies",
    "PathConflict": "a folder of this name exists; use another name",
    "PendingCopyOperation": "a copy onto this blob is under way: wait until it ends, or abort it",
    "RequestBodyTooLarge": "lower block_size, so that the file travels in smaller requests",
    "ResourceTypeMismatch": "a folder of this name exists; use another name",
    "SnapshotsPresent": "it has snapshots; delete them with it (container().delete_blob(..., "
    "delete_snapshots='include')), or leave it",
    "UnauthorizedBlobOverwrite": "the token may create blobs but not replace them: use another "
    "name, or a token with the permission to write (w)",
}


def is_worth_a_retry(status: int, code: str) -> bool:
    """Whether the same request may succeed within seconds."""
    return status in _RETRIED or code in _ALTERED


def is_permanent(status: int, code: str, *, by_role: bool = False) -> bool:
    """Whether the service will refuse the same request for ever, as far as its answer says.

    With `by_role` access is granted by a role, not by a key or a signature: what is not allowed now
    may be a minute later.
    """
    if status < 400 or code in _PASSING:
        return False
    if code == "UnauthorizedBlobOverwrite":
        return True
    if status == 403 and code in LIMITS_OF_A_TOKEN:
        return not by_role
    if status >= 500:
        return status in _UNKNOWN_TO_SERVER
    return status not in _PASSING_STATUSES
