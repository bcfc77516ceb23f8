from ..exceptions import ConfigurationError as ConfigurationError
from ._blobs import BlobContent as BlobContent, BlobInfo as BlobInfo
from ._client import AzureStorageClient as AzureStorageClient, StorageBackend as StorageBackend
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
from ._flush import FlushReport as FlushReport
from ._journal import PendingUpload as PendingUpload
from ._settings import (
    AzureStorageSettings as AzureStorageSettings,
    StorageMode as StorageMode,
    TransferOptions as TransferOptions,
)
from ._shared import (
    SettingsKey as SettingsKey,
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
    TreeProgress as TreeProgress,
    TreeReport as TreeReport,
)
