"""Command lines that trigger a batch in a function app: arguments, scheduling, summary."""

import argparse
import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from infra_core.fs import write_json_atomic
from infra_core.runtime import clock, redact_secrets, sanitize_url

from ._blocking import run_blocking
from ._checks import require_mapping
from ._durable import DurableInstance, DurableStatus, read_start, reason_of
from ._function_answers import change_texts, is_page, keys_in, without_keys
from ._function_calls import API_KEY_VAR, BASE_URL_VAR, checked_url
from ._function_durable import OnPoll, answer_of
from ._function_state import recall, remember, state_folder
from .client import AzureFunctionAsyncClient
from .exceptions import OrchestrationError, OrchestrationTimeoutError

__all__ = [
    "TriggerSummary",
    "add_azure_service_arguments",
    "build_function_client",
    "state_folder",
    "trigger_batch",
    "trigger_batch_async",
    "write_summary",
]

_log = logging.getLogger("infra_core.azure.client")


def add_azure_service_arguments(
    parser: argparse.ArgumentParser,
    *,
    base_url_env_var: str,
    base_url_help: str | None = None,
    concurrency_default: int = 4,
    include_summary: bool = True,
    summary_help: str | None = None,
) -> None:
    """Add the arguments that every command of this kind has.

    `batch_id`, `--base-url`, `--concurrency`, `--poll`/`--no-poll` (on), `--poll-timeout` (600),
    `--poll-interval` (5) and `--summary-file`.

    Args:
        parser: Where to add them.
        base_url_env_var: Variable that stands in for `--base-url`; named in the help.
        base_url_help: Help of `--base-url`.
        concurrency_default: Default of `--concurrency`.
        include_summary: Whether to add `--summary-file`.
        summary_help: Help of `--summary-file`.
    """
    add = parser.add_argument
    add("batch_id", type=_batch_id, help="batch that the jobs belong to")
    where = base_url_help or f"base URL of the function app (default: ${base_url_env_var})"
    add("--base-url", help=where)
    at_once = "jobs that the app works on at once (default: %(default)s)"
    add("--concurrency", type=_positive_int, default=concurrency_default, help=at_once)
    follow = "wait until the batch has ended; otherwise return as soon as it is scheduled"
    add("--poll", action=argparse.BooleanOptionalAction, default=True, help=follow)
    longest = "longest time to wait, in seconds (default: %(default)s)"
    add("--poll-timeout", type=_positive_float, default=600.0, help=longest)
    between = "time between two questions, in seconds (default: %(default)s)"
    add("--poll-interval", type=_positive_float, default=5.0, help=between)
    if include_summary:
        summary_help = summary_help or "write a JSON summary of the run to this file"
        add("--summary-file", type=Path, help=summary_help)


class _SummaryWriter(Protocol):
    """What writes and mirrors a summary; `AzureStorageClient` does."""

    def write_json(self, path: Path, data: Mapping[str, Any]) -> Path:
        """Write JSON to a file and mirror it."""


@dataclass
class TriggerSummary:
    """What came of a triggered batch.

    Attributes:
        batch_id: The batch.
        status: `Scheduled` (not followed), the runtime status it ended with, `TimedOut` (it did
            not end in time), `OutcomeUnknown` (it may have been scheduled or not) or
            `NotScheduled`.
        base_url: The app.
        instance_id: The durable instance, if the app named one.
        status_url: Where its state is asked for, without its key.
        output: What it returned.
        custom_status: Its newest custom status.
        error: Why it did not succeed.
        polls: How often its state was asked for.
        started_at: When it was triggered, ISO 8601.
        duration_seconds: How long that took, polling included.
        resume_url: `status_url` with its key, to go on waiting; never written nor shown.
    """

    batch_id: str
    status: str
    base_url: str
    instance_id: str | None = None
    status_url: str | None = None
    output: Any = None
    custom_status: Any = None
    error: str | None = None
    polls: int = 0
    started_at: str = ""
    duration_seconds: float = 0.0
    resume_url: str | None = field(default=None, repr=False)

    @property
    def scheduled(self) -> bool:
        """Whether the batch was scheduled and not followed: its end is not known yet."""
        return self.status == "Scheduled"

    @property
    def succeeded(self) -> bool:
        """Whether the batch ended with success."""
        return DurableStatus(runtime_status=self.status).succeeded

    def to_dict(self) -> dict[str, Any]:
        """Return what is written to the summary file; no secrets in it."""
        fields = asdict(self)
        del fields["resume_url"]
        return {**fields, "scheduled": self.scheduled, "succeeded": self.succeeded}

    def _begun(self, instance: DurableInstance) -> None:
        """Take over what a starter answered."""
        url = instance.status_url
        self.status, self.instance_id, self.resume_url = "Scheduled", instance.id, url
        self.status_url = None if url is None else sanitize_url(url)
        if instance.finished is not None:
            self._seen(instance.finished)

    def _seen(self, state: DurableStatus) -> None:
        """Take over what the batch says of itself."""
        self.instance_id = self.instance_id or state.instance_id
        self.output, self.custom_status = state.output, state.custom_status
        if state.is_terminal:
            self.status = state.runtime_status
        if state.failed:
            self.error = reason_of(state) or None

    def _failed(self, error: BaseException) -> None:
        """Take over why the batch could not be scheduled, or followed."""
        from infra_core.http import OutcomeUnknown

        interrupted = not isinstance(error, Exception)
        self.error = "interrupted" if interrupted else _text_of(error)
        if self.status != "NotScheduled":
            self.status = self.status if interrupted else "Unknown"
        elif interrupted or isinstance(error, OutcomeUnknown):  # it had been sent
            self.status = "OutcomeUnknown"

    def _conceal(self, api_key: str | None) -> None:
        """Take out the keys: some batches return their status URL, or what they were sent."""
        for name in ("output", "custom_status", "error"):
            value = without_keys(getattr(self, name), *keys_in(self.resume_url), api_key)
            setattr(self, name, change_texts(value, _encodable))


def build_function_client(
    args: argparse.Namespace,
    *,
    base_url_env_var: str = BASE_URL_VAR,
    api_key_env_var: str | None = API_KEY_VAR,
    env: Mapping[str, str] | None = None,
    **kwargs: Any,
) -> AzureFunctionAsyncClient:
    """Make a client from parsed arguments, the environment filling in.

    Args:
        args: Of a parser that `add_azure_service_arguments` has prepared.
        base_url_env_var: Variable that stands in for `--base-url`.
        api_key_env_var: Variable with the key; keys are not taken from the command line, where
            other users of the machine can read them.
        env: The environment; that of the process by default.
        **kwargs: What `AzureFunctionAsyncClient` takes.

    Raises:
        ConfigurationError: Neither `--base-url` nor the variable is given.
        ValueError: The base URL is not a usable URL.
    """
    source = dict(os.environ if env is None else env)
    if args.base_url:
        source[base_url_env_var] = checked_url(args.base_url, "--base-url")
    return AzureFunctionAsyncClient.from_env(
        base_url_env=base_url_env_var, api_key_env=api_key_env_var, env=source, **kwargs
    )


async def trigger_batch_async(
    client: AzureFunctionAsyncClient,
    args: argparse.Namespace,
    *,
    path: str = "/api/run",
    payload: Mapping[str, Any] | None = None,
    on_started: Callable[[DurableInstance], None] | None = None,
    on_poll: OnPoll | None = None,
    terminate_on_timeout: bool = False,
    storage: _SummaryWriter | None = None,
    state_folder: Path | None = None,
    resume: bool = False,
) -> TriggerSummary:
    """Schedule a batch, follow it to its end (`--poll`) and write the summary (`--summary-file`).

    That a batch failed or did not end in time stands in the summary, and raises nothing.

    Args:
        client: Client of the app.
        args: Of a parser that `add_azure_service_arguments` has prepared.
        path: Function that starts the batch.
        payload: More of its JSON, besides `batchId` and `concurrency`.
        on_started: Called once the batch is scheduled.
        on_poll: Called with every state.
        terminate_on_timeout: Terminate the batch when the time is up.
        storage: Writes and mirrors the summary; without it the file is only written.
        state_folder: Where to keep, readable by this user only, what is needed to wait for the
            batch again: its status URL with the key. Files older than 90 days are removed.
        resume: Do not schedule the batch: wait for the one that `state_folder` knows.

    Raises:
        JobNotFoundError: With `resume`, no batch of this name is known there.
        OutcomeUnknown: The batch may have been scheduled or not; the summary says so.
        httpx.HTTPError: It could not be scheduled, or followed; the summary says so.
        AzureServiceError: As before.
    """
    require_mapping("payload", payload)
    if resume and state_folder is None:
        raise ValueError("resume=True needs the state_folder in which the batch was stored")
    stored = None
    if resume and state_folder:
        stored = recall(state_folder, client.base_url, args.batch_id)
    began, now = clock.monotonic(), clock.utc_now().isoformat()
    summary = TriggerSummary(args.batch_id, "NotScheduled", client.base_url, started_at=now)
    body = {"batchId": args.batch_id, "concurrency": args.concurrency, **(payload or {})}
    failed = True

    def seen(state: DurableStatus) -> Awaitable[None] | None:
        summary.polls += 1
        summary._seen(state)
        return on_poll(state) if on_poll is not None else None

    try:
        instance = stored or await _schedule(client, path, body, followed=args.poll)
        summary._begun(instance)
        if stored is None:
            if state_folder and instance.status_url:
                remember(state_folder, client.base_url, args.batch_id, instance)
            if on_started is not None:
                on_started(instance)
        if args.poll or resume:
            ended = await client.wait_for_completion(
                instance,
                timeout=args.poll_timeout,
                poll_interval=args.poll_interval,
                on_poll=seen,
                terminate_on_timeout=terminate_on_timeout,
                raise_on_failure=False,
            )
            summary._seen(ended)
        failed = False
    except OrchestrationTimeoutError as error:
        summary.status, summary.error, failed = "TimedOut", str(error), False
    except BaseException as error:
        summary._failed(error)
        raise
    finally:
        summary.duration_seconds = round(clock.monotonic() - began, 3)
        summary._conceal(getattr(client, "_api_key", None))  # a double in a test has none
        if target := getattr(args, "summary_file", None):
            await _write_in_thread(target, summary, storage, failed=failed)
    return summary


def trigger_batch(
    args: argparse.Namespace,
    *,
    base_url_env_var: str = BASE_URL_VAR,
    api_key_env_var: str | None = API_KEY_VAR,
    env: Mapping[str, str] | None = None,
    client_options: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> TriggerSummary:
    """Do what `trigger_batch_async` does, from a command line: build the client and close it.

    Args:
        args: As for `build_function_client`.
        base_url_env_var: As for `build_function_client`.
        api_key_env_var: As for `build_function_client`.
        env: As for `build_function_client`.
        client_options: What `AzureFunctionAsyncClient` takes.
        **kwargs: As for `trigger_batch_async`.
    """
    client = build_function_client(
        args,
        base_url_env_var=base_url_env_var,
        api_key_env_var=api_key_env_var,
        env=env,
        **(client_options or {}),
    )

    async def run() -> TriggerSummary:
        async with client:
            return await trigger_batch_async(client, args, **kwargs)

    return run_blocking(run, "trigger_batch()", "trigger_batch_async")


def write_summary(
    path: Path, summary: TriggerSummary, *, storage: _SummaryWriter | None = None
) -> Path:
    """Write a summary as JSON, whole or not at all, and mirror it when a storage client is given.

    Args:
        path: The file.
        summary: The summary.
        storage: Such as an `AzureStorageClient`.

    Returns:
        The file.
    """
    if storage is not None:
        return storage.write_json(path, summary.to_dict())
    return write_json_atomic(path, summary.to_dict())


async def _schedule(
    client: AzureFunctionAsyncClient, path: str, body: Mapping[str, Any], *, followed: bool
) -> DurableInstance:
    if followed:
        return await client.start(path, json=body)
    response = await answer_of(client.request("POST", path, json=body))
    try:
        return read_start(response, what=f"POST {path}")
    except OrchestrationError:
        # A sign-in page has scheduled nothing, nor has what a redirect made a GET of.
        if is_page(response) or response.request.method != "POST":
            raise
        return DurableInstance()  # no durable function, and its end is not waited for


async def _write_in_thread(
    path: Path, summary: TriggerSummary, storage: _SummaryWriter | None, *, failed: bool
) -> None:
    """Write a summary where a storage client that blocks does not hold up this loop."""
    try:
        await asyncio.to_thread(write_summary, path, summary, storage=storage)
    except Exception as error:
        # Of two errors only one comes through: what came of the batch is worth more.
        outcome = summary.batch_id, summary.status, summary.instance_id
        said = "the summary %s was not written (%s); batch %r: %s, instance %r"
        _log.error(said, path, _text_of(error), *outcome)
        if not failed:
            raise


def _encodable(text: str) -> str:
    """A text with lone surrogates escaped, which no file can hold."""
    return text.encode("utf-8", "backslashreplace").decode()


def _text_of(error: BaseException) -> str:
    return redact_secrets(f"{type(error).__name__}: {error}")


def _above_zero(kind: Callable[[str], float], what: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = 0
        if not 0 < number < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is not a {what}; give one")
        return number

    return read


_positive_int = _above_zero(int, "whole number of 1 or more")
_positive_float = _above_zero(float, "number of seconds above 0")


def _batch_id(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not a name; give the batch one")
    return text
