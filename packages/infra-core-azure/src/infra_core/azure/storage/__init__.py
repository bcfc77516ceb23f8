"""Mirroring of files and folders to Azure Blob Storage: fast, verified, and with nothing lost."""

from typing import TYPE_CHECKING

from infra_core.runtime.lazy import lazy_exports

if TYPE_CHECKING:
    from ..exceptions import (
        ConfigurationError as ConfigurationError,
    )
    from ._blobs import (
        BlobInfo as BlobInfo,
    )
    from ._client import (
        AzureStorageClient as AzureStorageClient,
        StorageBackend as StorageBackend,
    )
    from ._errors import (
        BlobConflictError as BlobConflictError,
        BlobNotFoundError as BlobNotFoundError,
        IntegrityError as IntegrityError,
        JournalError as JournalError,
        LocalFileChangedError as LocalFileChangedError,
        StorageAccessError as StorageAccessError,
        StorageConnectionError as StorageConnectionError,
        StorageError as StorageError,
        StorageRequestError as StorageRequestError,
        StorageTimeoutError as StorageTimeoutError,
        TreeTransferError as TreeTransferError,
        UnsafeNamesError as UnsafeNamesError,
    )
    from ._flush import (
        FlushReport as FlushReport,
    )
    from ._journal import (
        PendingUpload as PendingUpload,
    )
    from ._options import (
        TransferOptions as TransferOptions,
    )
    from ._settings import (
        AzureStorageSettings as AzureStorageSettings,
        StorageMode as StorageMode,
    )
    from ._shared import (
        get_client as get_client,
        get_shared_client as get_shared_client,
        is_configured as is_configured,
        reset_all_clients as reset_all_clients,
        reset_shared_client as reset_shared_client,
        reset_shared_client_async as reset_shared_client_async,
        set_shared_client as set_shared_client,
    )
    from ._tree_types import (
        FileOutcome as FileOutcome,
        PlannedTransfer as PlannedTransfer,
        TreeProgress as TreeProgress,
        TreeReport as TreeReport,
    )

__all__ = [
    "AzureStorageClient",
    "AzureStorageSettings",
    "BlobConflictError",
    "BlobInfo",
    "BlobNotFoundError",
    "ConfigurationError",
    "FileOutcome",
    "FlushReport",
    "IntegrityError",
    "JournalError",
    "LocalFileChangedError",
    "PendingUpload",
    "PlannedTransfer",
    "StorageAccessError",
    "StorageBackend",
    "StorageConnectionError",
    "StorageError",
    "StorageMode",
    "StorageRequestError",
    "StorageTimeoutError",
    "TransferOptions",
    "TreeProgress",
    "TreeReport",
    "TreeTransferError",
    "UnsafeNamesError",
    "get_client",
    "get_shared_client",
    "is_configured",
    "reset_all_clients",
    "reset_shared_client",
    "reset_shared_client_async",
    "set_shared_client",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "infra_core.azure.exceptions": [
            "ConfigurationError",
        ],
        "._blobs": [
            "BlobInfo",
        ],
        "._client": [
            "AzureStorageClient",
            "StorageBackend",
        ],
        "._errors": [
            "BlobConflictError",
            "BlobNotFoundError",
            "IntegrityError",
            "JournalError",
            "LocalFileChangedError",
            "StorageAccessError",
            "StorageConnectionError",
            "StorageError",
            "StorageRequestError",
            "StorageTimeoutError",
            "TreeTransferError",
            "UnsafeNamesError",
        ],
        "._flush": [
            "FlushReport",
        ],
        "._journal": [
            "PendingUpload",
        ],
        "._options": [
            "TransferOptions",
        ],
        "._settings": [
            "AzureStorageSettings",
            "StorageMode",
        ],
        "._shared": [
            "get_client",
            "get_shared_client",
            "is_configured",
            "reset_all_clients",
            "reset_shared_client",
            "reset_shared_client_async",
            "set_shared_client",
        ],
        "._tree_types": [
            "FileOutcome",
            "PlannedTransfer",
            "TreeProgress",
            "TreeReport",
        ],
    },
)
