"""`infra-core trigger`: a batch scheduled at an Azure Function and followed to its end."""

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra_core.azure.function_cli import add_azure_service_arguments, trigger_batch

from . import exit_codes
from ._batch import one_line
from ._main import CommandError
from ._report import make_console
from ._storage import open_storage

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
  infra-core trigger nightly-42 --path /api/crawl --payload '{"depth": 2}' --terminate-on-timeout

The summary is written to --summary-file and mirrored when AZURE_STORAGE_* is set.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `infra-core trigger`."""
    add_azure_service_arguments(parser, base_url_env_var=BASE_URL_VAR)
    parser.add_argument(
        "--path", default="/api/run", help="function that starts the batch (/api/run)"
    )
    parser.add_argument(
        "--payload", type=json_object, default={}, metavar="JSON", help="more of the request's JSON"
    )
    parser.add_argument(
        "--terminate-on-timeout", action="store_true", help="end the batch when the time is up"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def json_object(text: str) -> dict[str, Any]:
    """An argparse type: a JSON object."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text} is not a JSON object such as {{}}")
    return value


def execute(options: argparse.Namespace) -> int:
    """Trigger the batch, show its states, print what came of it."""
    import httpx

    from infra_core.azure.exceptions import AzureServiceError
    from infra_core.http import HttpError

    console = make_console(to_stderr=True)
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
        )
    except ValueError as error:
        raise CommandError(str(error)) from None
    except (AzureServiceError, HttpError, httpx.HTTPError) as error:
        console.print(f"infra-core trigger: {one_line(error)}", markup=False)
        return exit_codes.FAILED
    finally:
        if storage is not None:
            storage.close()
    report(summary, as_json=options.json)
    return exit_codes.OK if summary.succeeded else exit_codes.FAILED


def report(summary: "TriggerSummary", *, as_json: bool) -> None:
    """Print what came of the batch."""
    fields = summary.to_dict()
    if as_json:
        print(json.dumps(fields, indent=2, ensure_ascii=False, default=str))
        return
    for name, value in fields.items():
        if value is not None:
            print(f"{name:>16}  {value}")
