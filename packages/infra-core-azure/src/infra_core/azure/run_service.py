"""What services that run batches share: manifests of results, and the errors of runs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .exceptions import ResumeSourceActive, ResumeSourceNotFound, RunNotFound, RunServiceError
from .run_storage import build_manifest

if TYPE_CHECKING:
    from .storage import AzureStorageClient

__all__ = [
    "ResumeSourceActive",
    "ResumeSourceNotFound",
    "RunNotFound",
    "RunServiceError",
    "RunStorageMixin",
]


class RunStorageMixin:
    """Gives a service the manifest of a run's files.

    Args:
        azure_client: The storage client.

    Example:
        ::

            class CrawlService(RunStorageMixin):
                def result(self, record: CrawlRecord) -> dict[str, Any]:
                    return self.build_result_manifest(record)
    """

    def __init__(self, *, azure_client: "AzureStorageClient") -> None:
        self._azure_client = azure_client

    @property
    def azure_client(self) -> "AzureStorageClient":
        """The storage client."""
        return self._azure_client

    def build_result_manifest(self, record: Any) -> dict[str, Any]:
        """The manifest of the files that a run left.

        Args:
            record: What describes the run; its `run_storage_path` or `storage_path` (attribute or
                key) is the run's folder. Without one the manifest is empty.

        Raises:
            StorageError: The blobs could not be listed.
        """
        found: Any = None
        for name in ("run_storage_path", "storage_path"):  # 0.7's name first
            is_mapping = isinstance(record, Mapping)
            found = found or (record.get(name) if is_mapping else getattr(record, name, None))
        return build_manifest(found or "", client=self._azure_client)
