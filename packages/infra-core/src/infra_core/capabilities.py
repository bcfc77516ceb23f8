"""What can infra-core do for me? A task-oriented index of the public API.

Example:
    >>> from infra_core import find_capabilities
    >>> [found.name for found in find_capabilities("poll")][0]
    'poll-until-done'
"""

from dataclasses import dataclass

__all__ = ["CAPABILITIES", "Capability", "find_capabilities"]


@dataclass(frozen=True)
class Capability:
    """One task and what serves it.

    Attributes:
        name: Short identifier, words joined by hyphens.
        summary: The task in one sentence.
        module: Module to import from.
        symbols: Names in that module.
        package: Distribution that ships it.
        keywords: Further words that people search for.
    """

    name: str
    summary: str
    module: str
    symbols: tuple[str, ...]
    package: str
    keywords: tuple[str, ...] = ()

    @property
    def import_line(self) -> str:
        """The line to paste, such as `from infra_core.fs import ensure_parent`."""
        return f"from {self.module} import {', '.join(self.symbols)}"


CAPABILITIES: tuple[Capability, ...] = (
    Capability(
        "fetch-pages",
        "Fetch text over HTTP with retries that never repeat what must not be repeated.",
        "infra_core.http",
        ("fetch", "fetch_async", "request", "request_async"),
        "infra-core-http",
        ("http", "get", "post", "retry", "requests", "httpx", "crawl"),
    ),
    Capability(
        "download-files",
        "Download files that are verified, resumed after a crash and never half written.",
        "infra_core.http.assets",
        ("download_asset", "download_asset_async", "AssetDownloadClient", "DownloadResult"),
        "infra-core-http",
        ("asset", "checksum", "resume", "range", "crawl"),
    ),
    Capability(
        "run-many-tasks",
        "Run many coroutines with bounded concurrency, timeouts and clean cancellation.",
        "infra_core.runtime",
        ("TaskRuntime", "RuntimeConfig", "RuntimeCancellationError"),
        "infra-core-runtime",
        ("asyncio", "concurrency", "semaphore", "gather", "batch"),
    ),
    Capability(
        "retry-anything",
        "Retry any operation under one policy: full jitter, cap, deadline, Retry-After.",
        "infra_core.runtime",
        ("RetryPolicy", "retry_sync", "retry_async"),
        "infra-core-runtime",
        ("backoff", "jitter", "tenacity"),
    ),
    Capability(
        "redact-secrets",
        "Keep tokens, keys and signatures out of logs and errors.",
        "infra_core.runtime",
        ("sanitize_url", "redact_sas_tokens", "redact_secrets"),
        "infra-core-runtime",
        ("sas", "log", "token", "security"),
    ),
    Capability(
        "poll-until-done",
        "Poll a status until it is terminal, never past the deadline.",
        "infra_core.polling",
        ("poll_until", "poll_until_async", "StatusPoller", "PollingConfig"),
        "infra-core-polling",
        ("poll", "wait", "status", "backoff", "deadline"),
    ),
    Capability(
        "write-files-safely",
        "Write files atomically and durably, hash them, join paths without traversal.",
        "infra_core.fs",
        (
            "AtomicFile",
            "write_text_atomic",
            "write_json_atomic",
            "compute_checksum",
            "safe_join",
            "unique_asset_path",
        ),
        "infra-core-fs",
        ("atomic", "fsync", "checksum", "sha256", "path", "mime"),
    ),
    Capability(
        "mirror-to-blob-storage",
        "Mirror files and trees to Blob Storage and back, with nothing lost.",
        "infra_core.azure",
        ("AzureStorageClient", "AzureStorageSettings", "get_client"),
        "infra-core-azure",
        ("azure", "blob", "upload", "download", "tree", "sync", "azurite"),
    ),
    Capability(
        "list-run-artifacts",
        "Build a manifest of a run's files: types, sizes, URLs, totals.",
        "infra_core.azure.run_storage",
        ("build_manifest", "collect_local_files", "collect_blob_files"),
        "infra-core-azure",
        ("manifest", "artifact", "report"),
    ),
    Capability(
        "track-jobs",
        "Track jobs in Table Storage or in an embedded SQLite file through one interface.",
        "infra_core.azure.job_store",
        ("AzureTableJobStore", "SqliteJobStore", "JobRecord", "TableConfig"),
        "infra-core-azure",
        ("azure", "table", "job", "queue", "claim", "lease", "resume"),
    ),
    Capability(
        "watch-a-run",
        "Beat a heartbeat, write a run log and send telemetry that really arrives.",
        "infra_core.azure.monitoring",
        ("HeartbeatMonitor", "RunLogWriter", "TelemetryClient", "TelemetryConfig"),
        "infra-core-azure",
        ("monitoring", "heartbeat", "log", "application insights", "opentelemetry"),
    ),
    Capability(
        "call-functions",
        "Call Azure Functions, and follow durable orchestrations to their end.",
        "infra_core.azure.client",
        ("AzureFunctionAsyncClient", "AzureFunctionSyncClient", "RequestOptions"),
        "infra-core-azure",
        ("azure", "function", "durable", "trigger", "x-functions-key"),
    ),
)


def find_capabilities(query: str) -> tuple[Capability, ...]:
    """Find what serves a task.

    Args:
        query: Words in any order and letter case; every word must occur in the capability.

    Returns:
        The capabilities that match, those that match by name or keyword first; all of them for
        an empty query.

    Raises:
        TypeError: The query is no text.

    Example:
        >>> [found.package for found in find_capabilities("blob upload")]
        ['infra-core-azure']
    """
    if not isinstance(query, str):
        raise TypeError(f"a query is text such as 'blob upload', not {query!r}")
    words = query.lower().split()

    def text(capability: Capability) -> str:
        fields = [capability.summary, capability.module, *capability.symbols, capability.package]
        return " ".join([direct(capability), *fields]).lower()

    def direct(capability: Capability) -> str:
        return " ".join([capability.name, *capability.keywords]).lower()

    found = [c for c in CAPABILITIES if all(word in text(c) for word in words)]
    found.sort(key=lambda c: not all(word in direct(c) for word in words))
    return tuple(found)
