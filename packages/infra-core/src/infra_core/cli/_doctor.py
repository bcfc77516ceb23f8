"""`infra-core doctor`: what is configured, whether it can be reached, and how to mend it."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, TimeoutError as FutureTimeoutError
from dataclasses import asdict, dataclass
from pathlib import Path

from infra_core.runtime import redact_secrets

from . import exit_codes
from ._report import make_console

__all__ = ["DESCRIPTION", "Check", "add_arguments", "examine", "execute"]

DESCRIPTION = """\
Check settings and reach: container, job table, Functions base URL, telemetry endpoint.

Nothing is created or changed, and no secret is printed. What is not configured is no problem; the
line says which variable would turn it on. Exit code 1 when something configured does not work.

  infra-core doctor
  infra-core doctor --prefix CRAWLER     storage and telemetry of one service
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


Examiner = Callable[[Mapping[str, str], str | None], Check]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `infra-core doctor`."""
    parser.add_argument("--prefix", metavar="NAME", help="look at NAME_AZURE_STORAGE_* and so on")
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="S", help="seconds for each check (10)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(options: argparse.Namespace) -> int:
    """Look at everything and print what was found."""
    checks = list(examine(os.environ, options.prefix, timeout=options.timeout))
    if options.json:
        print(json.dumps([asdict(check) for check in checks], indent=2, ensure_ascii=False))
    else:
        console = make_console()
        styles = {"ok": "green", "off": "dim", "problem": "bold red"}
        for check in checks:
            console.print(f"{check.state:>8}  ", style=styles[check.state], end="")
            console.print(f"{check.name}: {check.detail}", markup=False)
            if check.remedy:
                console.print(f"{'':10}{check.remedy}", markup=False)
    sys.stdout.flush()
    problems = any(check.state == "problem" for check in checks)
    return exit_codes.FAILED if problems else exit_codes.OK


def examine(env: Mapping[str, str], prefix: str | None, *, timeout: float) -> Iterator[Check]:
    """Look at each service, all at the same time.

    Args:
        env: Environment variables.
        prefix: Prefix of the service's variables.
        timeout: Seconds for each check; one that takes longer is a problem.
    """
    pool = ThreadPoolExecutor(max_workers=len(EXAMINERS), thread_name_prefix="doctor")
    waiting = [(name, pool.submit(look, env, prefix)) for name, look in EXAMINERS.items()]
    pool.shutdown(wait=False)
    for name, future in waiting:
        try:
            yield future.result(timeout)
        except FutureTimeoutError:
            yield Check(name, "problem", f"no answer within {timeout:g} s", "check the endpoint")
        except Exception as error:  # noqa: BLE001 - whatever an SDK raises is the finding
            text = redact_secrets(" ".join(str(error).split()))[:300]
            yield Check(name, "problem", f"{type(error).__name__}: {text}", remedy_for(error))


def remedy_for(error: Exception) -> str:
    """What to do about an error of an SDK, by its kind."""
    name = type(error).__name__
    if "Authentication" in name or "403" in str(error):
        return "check the key, the SAS token or the role assignment of the identity"
    if "NotFound" in name:
        return "check the name and the account"
    if "Request" in name or "Connect" in name:
        return "check the endpoint and the network; is Azurite running?"
    return ""


def look_at_storage(env: Mapping[str, str], prefix: str | None) -> Check:
    """The container that files are mirrored to."""
    from infra_core.azure.storage import AzureStorageClient, AzureStorageSettings

    stem = f"{prefix}_" if prefix else ""
    if not any(env.get(f"{stem}AZURE_STORAGE_{name}", "").strip() for name in STORAGE_VARIABLES):
        remedy = f"set {stem}AZURE_STORAGE_CONTAINER and {stem}AZURE_STORAGE_CONNECTION_STRING"
        return Check("storage", "off", "not configured: files stay on this machine", remedy)
    read = AzureStorageSettings.from_env_with_prefix
    settings, mode = read(prefix, env=env) if prefix else AzureStorageSettings.from_env(env=env)
    if mode == "dev-skip":
        return Check("storage", "off", "mode dev-skip: files stay on this machine")
    # Judged strictly: in mode best-effort a missing setting would only be logged.
    client = AzureStorageClient.from_settings(settings, "strict", base_path=Path())
    try:
        first = next(iter(client.iter_tree(Path())), None)
    finally:
        client.close()
    found = "answers" if first else "no blobs yet (a missing container is made on first upload)"
    return Check("storage", "ok", f"container {settings.container!r}, mode {mode}: {found}")


STORAGE_VARIABLES = ("CONTAINER", "CONNECTION_STRING", "ACCOUNT", "MODE")


def look_at_jobs(env: Mapping[str, str], prefix: str | None) -> Check:
    """The table that jobs are tracked in."""
    from infra_core.azure.job_store import TableConfig

    if not env.get("AZURE_JOB_TABLE", "").strip():
        remedy = "set AZURE_JOB_TABLE (and AZURE_JOB_CONNECTION) to keep them in Table Storage"
        return Check("jobs", "off", "kept in SQLite beside the files", remedy)
    config = TableConfig.from_env(env=env)
    from azure.data.tables import TableServiceClient

    if config.connection_string:
        service = TableServiceClient.from_connection_string(config.connection_string)
    else:
        from azure.identity import DefaultAzureCredential

        service = TableServiceClient(
            endpoint=config.resolved_table_endpoint or "", credential=DefaultAzureCredential()
        )
    with service:
        tables = service.query_tables(f"TableName eq '{config.table_name}'")
        exists = any(table.name == config.table_name for table in tables)
    state = "answers" if exists else "is not there yet; it is made on first use"
    return Check("jobs", "ok", f"table {config.table_name!r} {state}")


def look_at_functions(env: Mapping[str, str], prefix: str | None) -> Check:
    """The Functions host."""
    base_url = env.get("AZURE_FUNCTION_BASE_URL", "").strip()
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
    fields = dict(part.split("=", 1) for part in config.connection_string.split(";") if "=" in part)
    endpoint = fields.get("IngestionEndpoint", "https://dc.services.visualstudio.com")
    return reach("telemetry", endpoint)


def reach(name: str, url: str) -> Check:
    """Whether a web server answers at all; what it answers is its own business."""
    import requests

    from infra_core.http import request
    from infra_core.runtime import sanitize_url

    try:
        status = request("GET", url, max_retries=0, timeout=5).status_code
    except requests.HTTPError as error:
        status = error.response.status_code
    return Check(name, "ok", f"{sanitize_url(url)} answers (HTTP {status})")


EXAMINERS: dict[str, Examiner] = {
    "storage": look_at_storage,
    "jobs": look_at_jobs,
    "functions": look_at_functions,
    "telemetry": look_at_telemetry,
}
