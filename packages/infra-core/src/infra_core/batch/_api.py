"""`run_batch` and `run_batch_async`: a source of items, options, hooks; the summary comes back."""

import asyncio
import signal
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from infra_core import _start
from infra_core.runtime import refuse_running_loop

from ._credentials import with_credentials
from ._errors import BatchError, one_line
from ._items import BatchItem, Rejected
from ._options import BatchOptions
from ._places import length_of, places_of
from ._results import BatchProgress, BatchResult, BatchRetry, Hooks, Summary

if TYPE_CHECKING:
    from infra_core.azure.job_store import JobRecord, JobStore
    from infra_core.azure.storage import AzureStorageClient

__all__ = ["run_batch", "run_batch_async"]


async def run_batch_async(
    items: Iterable[object] | AsyncIterable[object],
    options: BatchOptions | None = None,
    *,
    on_result: Callable[[BatchResult], object] | None = None,
    on_retry: Callable[[BatchRetry], object] | None = None,
    on_progress: Callable[[BatchProgress], object] | None = None,
    on_rejected: Callable[[Rejected], object] | None = None,
    on_duplicate: Callable[[BatchItem], object] | None = None,
    on_event: Callable[[str, str], object] | None = None,
    storage: "AzureStorageClient | None" = None,
    store: "JobStore[JobRecord] | None" = None,
    client: Any = None,
    env: Mapping[str, str] | None = None,
    **settings: Any,
) -> Summary:
    """Download many URLs as one batch: each verified, recorded, mirrored, and resumable.

    The items are read lazily, beside the downloads, so a million of them cost no memory. Every
    URL is a job in a store: `jobs.sqlite3` in the output folder, or Table Storage where
    `AZURE_JOB_TABLE` says so. Files are mirrored where `AZURE_STORAGE_*` is set. A run log, a
    heartbeat and a manifest lie in the batch's folder.

    SIGINT and SIGTERM, where this runs in the main thread, let the downloads in flight end, record
    the rest as pending and return the summary, `interrupted` set; a second signal cuts them off.
    A handler of the program's own, such as a web server's, is called after that.
    A batch that was killed goes on with `resume=True`.

    Args:
        items: URLs, `BatchItem`s, mappings with `url`, `name`, `checksum`, `headers`, `metadata`;
            any iterable, asynchronous ones too: an open text file is one of URLs, a line each.
            `read_items` reads lists with comments, checksums, names, CSV and JSON lines.
        options: How; or give its fields as keyword arguments.
        on_result: Called with each `BatchResult`, once it is recorded. An error of this or another
            hook is logged; SystemExit and KeyboardInterrupt end the run in order, and come through.
        on_retry: Called with each `BatchRetry`.
        on_progress: Called with a `BatchProgress` about twice a second, and at the end.
        on_rejected: Called with each entry that is not a URL.
        on_duplicate: Called with each item whose URL stood in the list before.
        on_event: Called with a word and a text for what else happens, such as an upload that
            failed.
        storage: A storage client to mirror to, in place of what the environment says; not closed.
        store: A job store, in place of what the environment says; not closed.
        client: A `distributed.Client`, or a cluster, whose workers download.
        env: Environment variables to read settings from; those of the process when None.
        **settings: Fields of `BatchOptions`.

    Returns:
        What the batch came to; `summary.complete` says whether everything is here.

    Raises:
        BatchError: The batch cannot start: a bad option, it exists and `resume` is not set,
            another process runs it.
        ConfigurationError: The storage settings are unusable.
        TypeError: `items` is a single URL or no iterable, a hook is an async function or no
            function, or an option is unknown.

    Example:
        ::

            summary = await run_batch_async(urls, batch_id="nightly", out="runs", concurrency=32)
            if not summary.complete:
                alert(summary.failures)
    """
    from ._run import BatchRun
    from ._services import open_services

    if isinstance(items, (str, bytes, Mapping)):
        raise TypeError(
            f"items is one {type(items).__name__}, whose parts would be taken for URLs: pass a "
            "list of URLs, and for a file read_items(open(path, 'rb'))"
        )
    if not isinstance(items, (Iterable, AsyncIterable)):
        raise TypeError(f"items is of type {type(items).__name__}: pass an iterable of URLs")
    chosen = _options_of(options, settings)
    # The program may change its working folder while the batch runs.
    scratch = None if chosen.scratch is None else chosen.scratch.absolute()
    chosen = replace(chosen, out=chosen.out.absolute(), scratch=scratch)
    if chosen.processes == "auto":
        processes, concurrency = places_of(chosen, 0 if client is not None else length_of(items))
        chosen = replace(chosen, processes=processes, concurrency=concurrency)
    hooks = Hooks(on_result, on_retry, on_progress, on_rejected, on_duplicate, on_event)
    chosen = with_credentials(chosen, partial(hooks.call, "on_event", "passed over"))
    loop, troubles = asyncio.get_running_loop(), list[str]()

    def on_trouble(error: Exception) -> None:
        if not troubles:
            troubles.append(f"heartbeat: {one_line(error)}")
            with suppress(RuntimeError):  # the loop has ended, and the summary is out
                loop.call_soon_threadsafe(hooks.call, "on_event", "unsent", troubles[0])

    async with AsyncExitStack() as stack:
        services = await open_services(
            chosen, stack, env=env, storage=storage, store=store, on_trouble=on_trouble
        )
        run = BatchRun(services, hooks, client)
        await run.open(stack)
        await run.run(items)
    if services.summary.interrupted is not None:
        _start.pass_on(signal.Signals[services.summary.interrupted])
    return services.summary


def run_batch(
    items: Iterable[object] | AsyncIterable[object],
    options: BatchOptions | None = None,
    **settings: Any,
) -> Summary:
    """Run a batch from synchronous code; see `run_batch_async`.

    Hooks are called in the thread that calls this.

    Raises:
        RuntimeError: Inside a running event loop: await `run_batch_async`.

    Example:
        ::

            from infra_core.batch import run_batch

            summary = run_batch(open("urls.txt"), batch_id="nightly", out="runs", concurrency=8)
            print(summary.succeeded, summary.failed)
    """
    refuse_running_loop("run_batch()", "run_batch_async()")
    batch = run_batch_async(items, options, **settings)
    try:
        return asyncio.run(batch)
    finally:
        batch.close()  # Python warns of one that did not begin, where no loop can be made


def _options_of(options: BatchOptions | None, settings: Mapping[str, Any]) -> BatchOptions:
    if options is not None:
        if settings:
            raise BatchError(
                f"give either BatchOptions or its fields, not both (got {', '.join(settings)}); "
                "dataclasses.replace() changes a field"
            )
        return options
    try:
        return BatchOptions(**settings)
    except TypeError as error:
        raise TypeError(str(error).replace("BatchOptions.__init__()", "run_batch()")) from None
