"""What can infra-core do for me? A task-oriented index of the public API.

Example:
    >>> from infra_core import find_capabilities
    >>> find_capabilities("poll async job status")[0].slug
    'status-polling'
"""

from dataclasses import dataclass

__all__ = ["CAPABILITIES", "Capability", "find_capabilities"]


@dataclass(frozen=True, slots=True)
class Capability:
    """One task and what serves it.

    Attributes:
        slug: Short identifier, words joined by hyphens; where 0.7 had the task, as in 0.7.
        task: The task in a few words.
        preferred_import: The line to paste.
        summary: The task in one sentence.
        keywords: Further words that people search for.
        extras: Extras of 0.7 that it needed; all are installed today.
        example: A line that uses it.
    """

    slug: str
    task: str
    preferred_import: str
    summary: str
    keywords: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    example: str = ""

    @property
    def name(self) -> str:
        """The slug."""
        return self.slug

    @property
    def module(self) -> str:
        """Module to import from."""
        return self.preferred_import.split()[1]

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names in that module."""
        names = self.preferred_import.partition(" import ")[2]
        return tuple(name.strip() for name in names.split(","))

    @property
    def package(self) -> str:
        """Distribution that ships it."""
        part = self.module.split(".")[1]
        return "infra-core" if part == "batch" else f"infra-core-{part}"

    @property
    def import_line(self) -> str:
        """The line to paste, such as `from infra_core.fs import ensure_parent`."""
        return self.preferred_import

    def searchable_text(self) -> str:
        """All of its words, in lower case."""
        texts = (self.slug, self.task, self.preferred_import, self.summary, self.example)
        return " ".join([*texts, *self.keywords, *self.extras, self.package]).lower()


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


CAPABILITIES: tuple[Capability, ...] = (
    Capability(
        "download-a-batch",
        "Download a list of URLs as one batch",
        "from infra_core.batch import run_batch, run_batch_async, BatchItem",
        "Download a list of URLs as one batch that survives faults, resumes, mirrors and "
        "reports what became of each.",
        _words("crawl, batch, urls, list, resume, download, job"),
        example='summary = run_batch(urls, batch_id="nightly", out="runs")',
    ),
    Capability(
        "http-fetch",
        "Fetch pages with retries",
        "from infra_core.http import fetch, fetch_async, request, request_async",
        "Fetch text over HTTP with retries that never repeat what must not be repeated.",
        _words("http, get, post, retry, requests, httpx, crawl, request, status, json, backoff"),
        example='html = fetch("https://example.com", timeout=30)',
    ),
    Capability(
        "asset-download",
        "Download files with retries",
        "from infra_core.http.assets import download_asset, download_asset_async, "
        "AssetDownloadClient, DownloadResult",
        "Download files that are verified, resumed after a crash and never half written.",
        _words("asset, checksum, resume, range, crawl, download, file, retry"),
        example='result = download_asset(url, Path("assets/file.bin"))',
    ),
    Capability(
        "task-runtime",
        "Run bounded async work",
        "from infra_core.runtime import TaskRuntime, RuntimeConfig, RuntimeCancellationError",
        "Run many coroutines with bounded concurrency, timeouts and clean cancellation.",
        _words("asyncio, concurrency, semaphore, gather, batch, task, worker, timeout, cancel"),
        example="runtime = TaskRuntime(config=RuntimeConfig(concurrency=8))",
    ),
    Capability(
        "retry-anything",
        "Retry an operation",
        "from infra_core.runtime import RetryPolicy, retry_sync, retry_async",
        "Retry any operation under one policy: full jitter, cap, deadline, Retry-After.",
        _words("backoff, jitter, tenacity, retry"),
        example="retry_sync(operation, policy=RetryPolicy(max_retries=3))",
    ),
    Capability(
        "redact-secrets",
        "Keep secrets out of logs",
        "from infra_core.runtime import sanitize_url, redact_sas_tokens, redact_secrets",
        "Keep tokens, keys and signatures out of logs and errors.",
        _words("sas, log, token, security, redact, secret"),
        example='sanitize_url("https://host/blob?sig=secret")',
    ),
    Capability(
        "status-polling",
        "Poll remote job status",
        "from infra_core.polling import poll_until, poll_until_async, StatusPoller, PollingConfig",
        "Poll a status until it is terminal, never past the deadline.",
        _words("poll, wait, status, backoff, deadline, job, operation, async, 404, timeout"),
        example='poll_until(fetch_status, lambda answer: answer["status"] == "completed")',
    ),
    Capability(
        "write-files-safely",
        "Write files safely",
        "from infra_core.fs import AtomicFile, write_text_atomic, write_json_atomic, "
        "compute_checksum, safe_join, unique_asset_path",
        "Write files atomically and durably, hash them, join paths without traversal.",
        _words("atomic, fsync, checksum, sha256, path, mime"),
        example='write_json_atomic(Path("out/result.json"), {"status": "ok"})',
    ),
    Capability(
        "azure-blob-storage",
        "Mirror files to Azure Blob",
        "from infra_core.azure import AzureStorageClient, AzureStorageSettings, get_client",
        "Mirror files and trees to Blob Storage and back, with nothing lost.",
        _words("azure, blob, upload, download, tree, sync, azurite, storage, mirror, container"),
        extras=("azure",),
        example="settings, mode = AzureStorageSettings.from_env()",
    ),
    Capability(
        "run-manifest",
        "Build run manifests",
        "from infra_core.azure.run_storage import build_manifest, collect_local_files, "
        "collect_blob_files",
        "Build a manifest of a run's files: types, sizes, URLs, totals.",
        _words("manifest, artifact, report, run, output, blob, storage"),
        extras=("azure",),
        example="manifest = build_manifest(folder, client=get_client(settings, mode))",
    ),
    Capability(
        "azure-table-job-store",
        "Track jobs in a table",
        "from infra_core.azure.job_store import AzureTableJobStore, SqliteJobStore, "
        "JobRecord, TableConfig",
        "Track jobs in Table Storage or in an embedded SQLite file through one interface.",
        _words("azure, table, job, queue, claim, lease, resume, store, run, batch, metadata"),
        extras=("azure",),
        example='store = SqliteJobStore("jobs.sqlite3")',
    ),
    Capability(
        "azure-monitoring",
        "Emit heartbeats and run logs",
        "from infra_core.azure.monitoring import HeartbeatMonitor, RunLogWriter, "
        "TelemetryClient, TelemetryConfig",
        "Beat a heartbeat, write a run log and send telemetry that really arrives.",
        _words(
            "monitoring, heartbeat, log, application insights, opentelemetry, telemetry, health"
        ),
        extras=("azure",),
        example="monitor = HeartbeatMonitor(folder, azure_client=None)",
    ),
    Capability(
        "azure-function-http",
        "Call Azure Functions",
        "from infra_core.azure.client import AzureFunctionAsyncClient, "
        "AzureFunctionSyncClient, RequestOptions",
        "Call Azure Functions, and follow durable orchestrations to their end.",
        _words("azure, function, durable, trigger, x-functions-key, http, api, sync, async"),
        extras=("azure",),
        example="client = AzureFunctionAsyncClient(base_url, api_key=key)",
    ),
)


def find_capabilities(query: str) -> list[Capability]:
    """Find what serves a task.

    Args:
        query: Words in any order and letter case.

    Returns:
        The capabilities that have a word of the query, those with most of them first; keywords and
        names count twice. All of them for an empty query.

    Raises:
        TypeError: The query is not text.

    Example:
        >>> [found.package for found in find_capabilities("blob upload")][0]
        'infra-core-azure'
    """
    if not isinstance(query, str):
        raise TypeError(f"a query is text such as 'blob upload', not {query!r}")
    words = list(dict.fromkeys(query.lower().split()))
    if not words:
        return list(CAPABILITIES)

    def score(capability: Capability) -> int:
        direct = f"{capability.slug} {' '.join(capability.keywords)}".lower()
        text = capability.searchable_text()
        return sum((word in text) + (word in direct) for word in words)

    scores = {capability.slug: score(capability) for capability in CAPABILITIES}
    found = [capability for capability in CAPABILITIES if scores[capability.slug]]
    return sorted(found, key=lambda capability: -scores[capability.slug])
