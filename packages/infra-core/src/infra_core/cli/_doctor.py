"""`infra-core doctor`: what is configured, whether it can be reached, and how to mend it."""

import argparse
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError, wait
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from infra_core.batch._environment import environment_of, table_of
from infra_core.batch._errors import one_line, plural
from infra_core.runtime import ThreadPool, clock

from . import exit_codes
from ._arguments import add_options, add_prefix, seconds
from ._report import make_console, print_json, print_marked

__all__ = ["DESCRIPTION", "Check", "add_arguments", "examine", "execute"]

DESCRIPTION = """\
Check settings and reach: container, job table, Functions base URL, telemetry endpoint. Proxies and
certificates that the environment names are shown.

Nothing is created or changed, and no secret is printed. What is not configured is no problem; the
line says which variable would turn it on. Exit code 1 when something configured does not work.

  infra-core doctor
  infra-core doctor --prefix CRAWLER     all that one service uses
  infra-core doctor --json
"""


@dataclass(frozen=True)
class Check:
    """What one look found.

    Attributes:
        name: What was looked at.
        state: `ok`, `off` (not configured) or `problem`.
        detail: What was found, without secrets.
        remedy: What to do about it; empty when nothing.
    """

    name: str
    state: str
    detail: str
    remedy: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `infra-core doctor`."""
    add_prefix(parser)
    timeout = ("--timeout S", "seconds to wait for all (10)", seconds)
    add_options(parser, [timeout, ("--json", "print JSON")])
    parser.set_defaults(timeout=10.0)


def execute(options: argparse.Namespace) -> int:
    """Look at everything and print what was found."""
    checks = list(examine(os.environ, options.prefix, timeout=options.timeout))
    if options.json:
        print_json([asdict(check) for check in checks])
    else:
        console = make_console()
        styles = {"ok": "green", "off": "dim", "problem": "bold red"}
        for check in checks:
            print_marked(console, check.state, f"{check.name}: {check.detail}", styles[check.state])
            if check.remedy:
                print_marked(console, "", check.remedy)
    problems = any(check.state == "problem" for check in checks)
    return exit_codes.FAILED if problems else exit_codes.OK


def examine(env: Mapping[str, str], prefix: str | None, *, timeout: float) -> Iterator[Check]:
    """Look at each service, all at the same time.

    Args:
        env: Environment variables.
        prefix: Prefix of the service's variables.
        timeout: Seconds for all of them; one that takes longer is a problem.
    """
    # Of threads that the end of the process does not wait for: one may hang for minutes.
    pool = ThreadPool("doctor", len(EXAMINERS))
    waiting = [(name, pool.submit(look, env, prefix)) for name, look in EXAMINERS.items()]
    end = clock.monotonic() + timeout
    for name, future in waiting:
        wait([future], max(0.0, end - clock.monotonic()))
        try:
            yield future.result(0)
        except FutureTimeoutError:
            found = f"no answer within {timeout:g} s"
            yield Check(name, "problem", found, remedy_for_silence(name, env, prefix))
        except Exception as error:  # noqa: BLE001 - whatever an SDK raises is the finding
            yield Check(name, "problem", one_line(error), remedy(name, error))


def look_at_network(env: Mapping[str, str], prefix: str | None) -> Check:
    """Proxies, certificates and logins that the environment names."""
    from infra_core.http.engine import NetworkSettings

    settings = NetworkSettings.read(None if env is os.environ else env)
    lines = list(settings.describe())
    if not lines:
        return Check("network", "off", "no proxy is set, and the CA certificates are certifi's")
    detail = ", ".join(f"{name}={value} {problem}".strip() for name, value, problem in lines)
    if any(problem for _, _, problem in lines):
        remedy = "correct or unset it: see the table of variables in the README of infra-core-http"
        return Check("network", "problem", detail, remedy)
    if settings.needs_socks and not find_spec("aiohttp_socks"):
        remedy = "pip install 'infra-core-http[socks]'"
        return Check("network", "problem", f"{detail}: no package for SOCKS is installed", remedy)
    return Check("network", "ok", detail)


def look_at_storage(env: Mapping[str, str], prefix: str | None) -> Check:
    """The container that files are mirrored to."""
    from infra_core.azure.storage import (
        AzureStorageClient,
        AzureStorageSettings,
        StorageAccessError,
    )

    stem = f"{prefix}_" if prefix else ""
    if not any(env.get(f"{stem}AZURE_STORAGE_{name}", "").strip() for name in STORAGE_VARIABLES):
        remedy = f"set {stem}AZURE_STORAGE_CONTAINER and {stem}AZURE_STORAGE_CONNECTION_STRING"
        return Check("storage", "off", "not configured: files stay on this machine", remedy)
    read = AzureStorageSettings.from_env_with_prefix
    settings, mode = read(prefix, env=env) if prefix else AzureStorageSettings.from_env(env=env)
    if mode == "dev-skip":
        return Check("storage", "off", "mode dev-skip: files stay on this machine")
    # A refusal shall be seen within any timeout, and not tried again until then.
    settings = replace(settings, options=replace(settings.options, max_retries=0))
    # Judged strictly: in mode best-effort a missing setting would only be logged.
    client = AzureStorageClient.from_settings(settings, "strict", base_path=Path())
    what = f"container {settings.container!r}, mode {mode}: "
    try:
        waiting = client.pending_uploads() if mode == "best-effort" else []
        first = next(iter(client.iter_tree(Path())), None)
    except StorageAccessError as error:
        if not error.by_permission:
            raise
        found = "accepts this token, which may not list it: blobs could not be looked at"
        return Check("storage", "ok", what + found)
    finally:
        client.close()
    found = "answers" if first else "no blobs yet (a missing container is made on first upload)"
    if waiting:
        found += f", {plural(len(waiting), 'upload')} in the journal (infra-core mirror pending)"
    return Check("storage", "ok", what + found)


STORAGE_VARIABLES = ("CONTAINER", "CONNECTION_STRING", "ACCOUNT", "MODE")


def look_at_jobs(env: Mapping[str, str], prefix: str | None) -> Check:
    """The table that jobs are tracked in."""
    env = environment_of(env, prefix)
    if not table_of(env):
        remedy = "set AZURE_JOB_TABLE (and AZURE_JOB_CONNECTION) to keep them in Table Storage"
        return Check("jobs", "off", "kept in SQLite beside the files", remedy)
    from infra_core.azure.job_store import AzureTableJobStore

    with AzureTableJobStore(env=env) as store:
        exists = store.table_exists()
        name = store.config.table_name
    state = "answers" if exists else "is not there yet; it is made on first use"
    return Check("jobs", "ok", f"table {name!r} {state}")


def look_at_functions(env: Mapping[str, str], prefix: str | None) -> Check:
    """The Functions host."""
    base_url = environment_of(env, prefix).get("AZURE_FUNCTION_BASE_URL", "").strip()
    if not base_url:
        return Check("functions", "off", "not configured", "set AZURE_FUNCTION_BASE_URL")
    return reach("functions", base_url)


def look_at_telemetry(env: Mapping[str, str], prefix: str | None) -> Check:
    """The ingestion endpoint of telemetry."""
    from infra_core.azure.monitoring import TelemetryConfig

    read = TelemetryConfig.from_env_with_prefix
    config = read(prefix, env=env) if prefix else TelemetryConfig.from_env(env=env)
    if not config.connection_string:
        remedy = "set APPLICATIONINSIGHTS_CONNECTION_STRING"
        return Check("telemetry", "off", "not configured: events go to the log", remedy)
    return reach("telemetry", config.ingestion().url)


def reach(name: str, url: str) -> Check:
    """Whether a web server answers at all, with any status."""
    import requests

    from infra_core.http import request
    from infra_core.runtime import sanitize_url

    try:
        status = request("GET", url, max_retries=0, timeout=5).status_code
    except requests.HTTPError as error:
        status = error.response.status_code
    except requests.ConnectionError as error:
        what = f"{sanitize_url(url)} is out of reach: {error}"
        return Check(name, "problem", what, REMEDIES[name])
    return Check(name, "ok", f"{sanitize_url(url)} answers (HTTP {status})")


def remedy(name: str, error: Exception) -> str:
    """What to do about an error of a service, unless its message ends with that."""
    if getattr(error, "status_code", None) in {401, 403}:
        return "check the key, the SAS token or the role assignment of the identity"
    return "" if type(error).__module__.startswith("infra_core.") else REMEDIES[name]


def remedy_for_silence(name: str, env: Mapping[str, str], prefix: str | None) -> str:
    """What to do where nothing answered, which may be the endpoint of the credential's tokens."""
    own = environment_of(env, prefix)
    given = any(own.get(variable, "").strip() for variable in CREDENTIALS)
    if given or name not in {"storage", "jobs"}:
        return REMEDIES[name]
    return (
        "check the network to the account and to the token endpoint of its credential "
        "(login.microsoftonline.com, or the managed identity's), or sign in (`az login`)"
    )


CREDENTIALS = (
    "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS_TOKEN", "AZURE_JOB_CONNECTION"
)  # fmt: skip


# What to do when a service does not answer as it should.
REMEDIES = {
    "network": "",
    "storage": "check AZURE_STORAGE_CONNECTION_STRING and the network; is Azurite running?",
    "jobs": "check AZURE_JOB_CONNECTION and the network; is Azurite running?",
    "functions": "check AZURE_FUNCTION_BASE_URL and the network",
    "telemetry": "check APPLICATIONINSIGHTS_CONNECTION_STRING and the network",
}

EXAMINERS = {
    "storage": look_at_storage,
    "jobs": look_at_jobs,
    "functions": look_at_functions,
    "telemetry": look_at_telemetry,
    "network": look_at_network,
}
