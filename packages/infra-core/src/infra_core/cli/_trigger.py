"""`infra-core trigger`: a batch scheduled at an Azure Function and followed to its end."""

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra_core.azure.function_cli import (
    add_azure_service_arguments,
    state_folder,
    trigger_batch,
)
from infra_core.batch._environment import open_storage
from infra_core.runtime import redact_secrets, sanitize_url

from . import exit_codes
from ._arguments import CommandError, check_writable
from ._errors import one_line
from ._report import make_console, print_json

if TYPE_CHECKING:
    from infra_core.azure.function_cli import TriggerSummary

__all__ = ["DESCRIPTION", "add_arguments", "execute"]

BASE_URL_VAR = "AZURE_FUNCTION_BASE_URL"

DESCRIPTION = """\
Schedule a batch at an Azure Function and poll it to its end.

The function's key is read from AZURE_FUNCTION_API_KEY, never from the command line. The batch is
sent once: when the answer is lost, the command says that the outcome is unknown and stops.

  infra-core trigger nightly-42 --base-url https://my-app.azurewebsites.net
  infra-core trigger nightly-42 --no-poll --summary-file summary.json
  infra-core trigger nightly-42 --wait
  infra-core trigger nightly-42 --path /api/crawl --payload '{"depth": 2}' --terminate-on-timeout

The summary is written to --summary-file and mirrored when AZURE_STORAGE_* is set. Exit code 0
means that the batch ended with success; with --no-poll, that it was scheduled. --wait waits for a
batch that was scheduled earlier, after --no-poll, a timeout or Ctrl-C: its status URL is kept in
$XDG_STATE_HOME/infra-core/triggers (~/.local/state), readable by this user only.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `infra-core trigger`."""
    add_azure_service_arguments(parser, base_url_env_var=BASE_URL_VAR)
    parser.add_argument(
        "--path",
        type=function_path,
        default="/api/run",
        help="function that starts the batch (/api/run)",
    )
    parser.add_argument(
        "--payload", type=json_object, default={}, metavar="JSON", help="more of the request's JSON"
    )
    parser.add_argument(
        "--terminate-on-timeout", action="store_true", help="end the batch when the time is up"
    )
    parser.add_argument(
        "--wait", action="store_true", help="wait for the batch as it was scheduled earlier"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def function_path(text: str) -> str:
    """An argparse type: a path below the base URL."""
    if not text.startswith("/"):
        raise argparse.ArgumentTypeError(
            f"{sanitize_url(text)!r} does not begin with /; give the path of a function, such as "
            "/api/run, and the host by --base-url"
        )
    return text


def json_object(text: str) -> dict[str, Any]:
    """An argparse type: a JSON object."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    try:
        value = json.loads(text, parse_constant=refuse)
    except ValueError as error:
        shown = redact_secrets(text[:60])
        raise argparse.ArgumentTypeError(f"{shown!r} is no JSON object: {error}") from None
    if not isinstance(value, dict):
        shown = redact_secrets(text[:60])
        raise argparse.ArgumentTypeError(f'{shown!r} is no JSON object such as {{"depth": 2}}')
    return value


# What to do about an answer, by its status.
REMEDIES = {
    401: "check AZURE_FUNCTION_API_KEY",
    403: "check AZURE_FUNCTION_API_KEY",
    404: "check --base-url and --path",
    405: "check --path: the function takes no POST",
}


def remedy(error: Exception) -> str:
    """What to do about a batch that was not scheduled or not followed to its end."""
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        return REMEDIES.get(status, "see the function's log" if status >= 500 else "")
    if isinstance(error, httpx.TransportError):
        return "check --base-url and the network"
    return ""


def execute(options: argparse.Namespace) -> int:
    """Trigger the batch, show its states, print what came of it."""
    import httpx

    from infra_core.azure.exceptions import AzureServiceError
    from infra_core.http import HttpError

    if not options.batch_id.strip():
        raise CommandError("batch_id is empty; give the batch a name")
    check_writable(options.summary_file, "--summary-file")
    console = make_console(to_stderr=True, lasting=True)
    storage = None
    if options.summary_file is not None:
        storage = open_storage(os.environ, base_path=Path.cwd())
    seen: list[str] = []

    def show(state: Any) -> None:
        if not seen or seen[-1] != state.runtime_status:
            seen.append(state.runtime_status)
            console.print(f"{options.batch_id}: {state.runtime_status}", markup=False)

    try:
        summary = trigger_batch(
            options,
            base_url_env_var=BASE_URL_VAR,
            path=options.path,
            payload=options.payload,
            on_poll=show,
            terminate_on_timeout=options.terminate_on_timeout,
            storage=storage,
            state_folder=state_folder(),
            resume=options.wait,
        )
    except ValueError as error:
        raise CommandError(str(error)) from None
    except (AzureServiceError, HttpError, httpx.HTTPError) as error:
        problem = "; ".join(filter(None, [one_line(error), remedy(error)]))
        print(f"infra-core trigger: {problem}", file=sys.stderr)
        return exit_codes.FAILED
    finally:
        if storage is not None:
            storage.close()
    report(summary, as_json=options.json)
    goes_on = summary.scheduled or (
        summary.status == "TimedOut" and not options.terminate_on_timeout
    )
    if goes_on and summary.status_url is not None:
        words = ["infra-core", "trigger", options.batch_id, "--wait"]
        if options.base_url:
            words += ["--base-url", summary.base_url]
        what = "scheduled, not done" if summary.scheduled else "not done"
        console.print(f"{what}: {shlex.join(words)} follows it", markup=False)
    if summary.scheduled and not options.poll:
        return exit_codes.OK
    return exit_codes.OK if summary.succeeded else exit_codes.FAILED


def report(summary: "TriggerSummary", *, as_json: bool) -> None:
    """Print what came of the batch."""
    fields = summary.to_dict()
    if as_json:
        print_json(fields)
        return
    for name, value in fields.items():
        if value is not None:
            print(f"{name:>16}  {value}")
