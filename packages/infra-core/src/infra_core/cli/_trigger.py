"""`infra-core trigger`: a batch scheduled at an Azure Function and followed to its end."""

import argparse
import json
import os
import shlex
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from infra_core.azure import function_cli
from infra_core.batch._environment import open_storage
from infra_core.batch._errors import one_line
from infra_core.runtime import printable, redact_secrets, sanitize_url

from . import exit_codes
from ._arguments import CommandError, add_options, check_writable
from ._ending import ending_in_order
from ._report import make_console, print_json

__all__ = ["DESCRIPTION", "add_arguments", "execute"]

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
    function_cli.add_azure_service_arguments(parser, base_url_env_var="AZURE_FUNCTION_BASE_URL")
    options = [
        ("--path PATH", "function that starts the batch (/api/run)", function_path),
        ("--payload JSON", "more of the request's JSON", json_object),
        ("--terminate-on-timeout", "end the batch when the time is up"),
        ("--wait", "wait for the batch as it was scheduled earlier"),
        ("--json", "print the summary as JSON"),
    ]
    add_options(parser, options)
    parser.set_defaults(path="/api/run", payload={})


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
        raise ValueError(f"{constant} is not JSON")

    try:
        value = json.loads(text, parse_constant=refuse)
        if isinstance(value, dict):
            return value
        problem = "it is JSON of another kind"
    except ValueError as error:
        problem = str(error)
    shown = redact_secrets(text[:60])
    raise argparse.ArgumentTypeError(
        f'{shown!r} is not a JSON object, such as {{"depth": 2}}: {problem}'
    )


# What to do about an answer to the request that schedules the batch, by its status.
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
        if status >= 500:
            return "see the function's log"
        if error.request.method == "POST":
            return REMEDIES.get(status, "")
        return "the key in the status URL may have been renewed" if status in (401, 403) else ""
    return "check --base-url and the network" if isinstance(error, httpx.TransportError) else ""


class Watch:
    """What people see on the way, and how they go on."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.known: bool = options.wait  # whether there is a batch that --wait finds
        self._console = make_console(to_stderr=True, lasting=True)
        self._state = ""

    def started(self, instance: Any) -> None:
        """Take note of what was scheduled."""
        self.known = instance.status_url is not None

    def show(self, state: Any) -> None:
        """Show a state that is new."""
        if state.runtime_status != self._state:
            self._state = state.runtime_status
            self.say(f"{self.options.batch_id}: {self._state}")

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False)

    def say_how_to_follow(self, what: str) -> None:
        """Name the command that waits on, where there is one."""
        if self.known:
            words = ["infra-core", "trigger", self.options.batch_id, "--wait"]
            words += ["--base-url", self.options.base_url] if self.options.base_url else []
            self.say(f"{what}: {shlex.join(words)} follows it")


def execute(options: argparse.Namespace) -> int:
    """Trigger the batch, show its states, print what came of it."""
    import httpx

    from infra_core.azure.exceptions import AzureServiceError, JobNotFoundError
    from infra_core.http import HttpError

    check_writable(options.summary_file, "--summary-file")
    watch = Watch(options)
    mirror: AbstractContextManager[Any] = nullcontext()
    if options.summary_file is not None:
        mirror = open_storage(os.environ, base_path=Path.cwd())
    try:
        with mirror as storage, ending_in_order():
            summary = function_cli.trigger_batch(
                options,
                path=options.path,
                payload=options.payload,
                on_started=watch.started,
                on_poll=watch.show,
                terminate_on_timeout=options.terminate_on_timeout,
                storage=storage,
                state_folder=function_cli.state_folder(),
                resume=options.wait,
            )
    except ValueError as error:
        raise CommandError(str(error)) from None
    except (AzureServiceError, HttpError, httpx.HTTPError) as error:
        problem = "; ".join(filter(None, [one_line(error), remedy(error)]))
        print(f"infra-core trigger: {problem}", file=sys.stderr)
        if not isinstance(error, JobNotFoundError):
            watch.say_how_to_follow("its end is not known")
        return exit_codes.FAILED
    except (KeyboardInterrupt, SystemExit):
        watch.say_how_to_follow("it goes on")
        if not watch.known:
            watch.say("whether it was scheduled is not known: ask the app before you do so again")
        raise
    report(summary, as_json=options.json)
    if summary.scheduled:
        watch.say_how_to_follow("scheduled, not done")
    elif summary.status == "TimedOut" and not options.terminate_on_timeout:
        watch.say_how_to_follow("not done")
    done = summary.succeeded or (summary.scheduled and not options.poll)
    return exit_codes.OK if done else exit_codes.FAILED


def report(summary: function_cli.TriggerSummary, *, as_json: bool) -> None:
    """Print what came of the batch."""
    fields = summary.to_dict()
    if as_json:
        print_json(fields)
        return
    for name, value in fields.items():
        if value is not None:
            print(f"{name:>16}  {printable(value, keep_lines=True)}")
