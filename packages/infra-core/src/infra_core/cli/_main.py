"""The top of the command line: subcommands, logging, and errors printed as one line each."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from types import ModuleType
from typing import Any

from infra_core import _start

from . import exit_codes
from ._arguments import CommandError, Parser, add_prefix, prefixed_environment

__all__ = ["main"]

# Name, module, one line of help. The module has DESCRIPTION, add_arguments(parser) and
# execute(options), which returns the exit code.
COMMANDS = [
    ("run", "._run", "download a list of URLs as one batch that survives faults and resumes"),
    ("demo", "._demo", "watch a batch survive a server that misbehaves on purpose"),
    ("mirror", "._mirror", "mirror a folder to Blob Storage or back, or plan it"),
    ("manifest", "._manifest", "list a folder's files with types, sizes and URLs"),
    ("jobs", "._jobs", "look at the jobs of a batch, and put failed ones back"),
    ("heartbeat", "._heartbeat", "say by exit code whether a run is alive: a liveness probe"),
    ("trigger", "._trigger", "schedule a batch at an Azure Function and poll it to its end"),
    ("doctor", "._doctor", "check settings and reach, and say how to mend them"),
]
# `run` and `doctor` choose by themselves
PREFIXED = ("mirror", "manifest", "jobs", "heartbeat", "trigger")
LATE = ("run", "mirror")  # which import the most, and say by themselves when they have


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `infra-core` command.

    Args:
        argv: Arguments without the program's name; `None` takes them from `sys.argv`.

    Returns:
        The exit code, see `infra_core.cli.exit_codes`.
    """
    name, verbose = "infra-core", 0
    try:
        open_missing_streams()
        arguments = list(sys.argv[1:] if argv is None else argv)
        parser, modules = build_parser(arguments)
        complete(parser)
        try:
            options = parser.parse_args(arguments)
        finally:
            sys.stdout.flush()  # of --help and --version, which leave by SystemExit
        name, verbose = f"infra-core {options.command}", options.verbose
        prefix = options.prefix if options.command in PREFIXED else None
        if options.command not in LATE:
            _start.started()
        with logging_to_stderr(verbose), prefixed_environment(prefix):
            code: int = modules[options.command].execute(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `infra-core jobs list | head`
        discard_output()
        return exit_codes.FAILED
    except KeyboardInterrupt:
        print_error(name, "interrupted")
        return exit_codes.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - printed in one line, whatever it is
        return explain(name, error, verbose)


def explain(name: str, error: Exception, verbose: int) -> int:
    """Print an error in one line; the exit code says whether the settings were at fault."""
    if isinstance(error, configuration_errors()):
        print_error(name, str(error))
        return exit_codes.USAGE
    import traceback

    from infra_core.batch._errors import one_line
    from infra_core.runtime import redact_secrets

    if verbose:
        where = "".join(traceback.format_exception(error)).rstrip()
        print_error(name, redact_secrets(where))
    remedy = remedy_for(error)
    if not remedy and not type(error).__module__.startswith("infra_core."):
        remedy = "-v shows where this came from"
    print_error(name, f"{one_line(error)}; {remedy}" if remedy else one_line(error))
    if isinstance(error, OSError):
        discard_output()  # it may be standard output that is full: do not fail on it again
    return exit_codes.FAILED


def remedy_for(error: Exception) -> str:
    """What to do about an error that does not say so itself, by its kind; empty if unknown."""
    if type(error).__module__.startswith("infra_core."):
        return ""  # by the rule of the house it says so itself
    if isinstance(error, ImportError):
        return "the installation is incomplete: pip install --upgrade infra-core"
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    if "ClientAuthenticationError" in kinds or status in {401, 403}:
        return "check the key, the SAS token or the role assignment of the identity"
    if "ResourceNotFoundError" in kinds:
        return "check the name and the account"
    if kinds & {"ServiceRequestError", "ServiceResponseError", "RequestException", "HTTPError"}:
        return "check the endpoint and the network"
    if isinstance(error, OSError) and error.errno is not None:
        return "check the path, its permissions and the space on the disk"
    return ""


def print_error(name: str, text: str) -> None:
    """Print to standard error; where that fails, there is nowhere left to say so."""
    from infra_core.runtime import printable

    with suppress(OSError, ValueError):
        print(f"{name}: {printable(text, keep_lines=True)}", file=sys.stderr, flush=True)


def open_missing_streams() -> None:
    """Open what was closed (`>&-`) on the null device, so that no file takes its number.

    Characters that a stream cannot encode are escaped instead of ending the command.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 - permanently
        elif mode == "w" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Send what is left in the buffer of standard output to the null device."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def configuration_errors() -> tuple[type[Exception], ...]:
    """Errors of the slices that mean "your settings", not "our bug"."""
    try:
        from infra_core.azure.exceptions import AzureTableError, ConfigurationError
        from infra_core.batch import BatchError
    except ImportError:  # a broken installation, which is the error to be printed
        return (CommandError,)
    return (CommandError, BatchError, ConfigurationError, AzureTableError)


def build_parser(
    arguments: Sequence[str],
) -> tuple[argparse.ArgumentParser, dict[str, ModuleType]]:
    """Build the parser; only the module of the command that is called gets imported."""
    parser = Parser(
        prog="infra-core",
        description="Fetch and download by the thousand, mirror, track and poll; lose nothing.",
        epilog=exit_codes.DESCRIPTION,
    )
    parser.add_argument(
        "--version", action=PrintVersions, dest=argparse.SUPPRESS, nargs=0,
        help="print all versions and exit",
    )  # fmt: skip
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    named = next((item for item in arguments if not item.startswith("-")), None)
    all_of_them = "_ARGCOMPLETE" in os.environ
    known = any(name == named for name, _, _ in COMMANDS) and not all_of_them
    modules: dict[str, ModuleType] = {}
    for name, module, summary in COMMANDS:
        if known and name != named:  # the names of the others are for help and errors
            continue
        subparser = subparsers.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=exit_codes.DESCRIPTION,
        )
        if name == named or all_of_them:
            command = import_module(module, __package__)
            subparser.description = command.DESCRIPTION
            command.add_arguments(subparser)
            if name in PREFIXED:
                add_prefix(subparser)
            modules[name] = command
        subparser.add_argument(
            "-v", "--verbose", action="count", default=0, help="log more: -v INFO, -vv DEBUG"
        )
    return parser, modules


def complete(parser: argparse.ArgumentParser) -> None:
    """Offer shell completion where argcomplete is installed."""
    if "_ARGCOMPLETE" in os.environ:
        with suppress(ImportError):
            import argcomplete

            argcomplete.autocomplete(parser)


class PrintVersions(argparse.Action):
    """Print the version of the meta-package and of every slice."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        """Print and leave."""
        from importlib.metadata import version

        print(f"infra-core {version('infra-core')}")
        for name in ("fs", "runtime", "polling", "http", "azure"):
            print(f"  infra-core-{name} {version(f'infra-core-{name}')}")
        print(f"  Python {sys.version.split()[0]}")
        parser.exit()


def once() -> Callable[[logging.LogRecord], bool]:
    """A filter that passes each text once: what fails with every beat is shown once."""
    printed: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if record.levelno < logging.ERROR:
            return True
        new = text not in printed
        if len(printed) < 1000:  # a run may last for days
            printed.add(text)
        return new

    return is_new


LOGGERS_OF_REQUESTS = {"infra_core.asset_client", "infra_core.http", "infra_core.http_async"}


@contextmanager
def logging_to_stderr(verbosity: int) -> Iterator[None]:
    """Send log records to standard error while a command runs; errors only unless asked."""
    from infra_core.runtime import SecretFilter

    level = {0: logging.ERROR, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    handler.setLevel(level)
    handler.addFilter(once())
    handler.addFilter(SecretFilter())  # a server's words do not steer the terminal either
    if not verbosity:  # the commands show each failed request themselves, in one line
        handler.addFilter(lambda record: record.name not in LOGGERS_OF_REQUESTS)
    logger, root = logging.getLogger("infra_core"), logging.getLogger()
    before = logger.level
    root.addHandler(handler)  # the SDKs' too, whose warnings Python would print
    logger.setLevel(min(level, logging.WARNING))  # the batch counts retries, which are warnings
    try:
        yield
    finally:
        root.removeHandler(handler)
        logger.setLevel(before)
