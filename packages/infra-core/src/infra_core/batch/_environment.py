"""What the environment says of storage and jobs; nothing else of a batch is loaded for it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from infra_core._start import import_storage

from ._errors import BatchError

if TYPE_CHECKING:
    from infra_core.azure.job_store import JobRecord, JobStore
    from infra_core.azure.storage import AzureStorageClient

    from ._options import BatchOptions

__all__ = ["environment_of", "open_jobs", "open_mirror", "open_storage", "table_of"]


def environment_of(env: Mapping[str, str], prefix: str | None) -> dict[str, str]:
    """The variables that a batch reads; with a prefix, those of one service in place of all.

    `prefix="CRAWLER"` reads `CRAWLER_AZURE_STORAGE_CONTAINER` and so on. A variable that has no
    prefixed form keeps its plain one only where it is not about Azure.
    """
    if not prefix:
        return dict(env)
    mark = prefix.rstrip("_") + "_"
    own = {name[len(mark) :]: value for name, value in env.items() if name.startswith(mark)}
    families = ("AZURE_STORAGE_", "AZURE_JOB_", "AZURE_FUNCTION_")
    plain = {name: value for name, value in env.items() if not name.startswith(families)}
    return {**plain, **own}


def open_storage(
    env: Mapping[str, str],
    *,
    base_path: Path,
    mode: str | None = None,
    accept_wrong_md5: bool = False,
) -> "AzureStorageClient":
    """Open the storage client; without AZURE_STORAGE_* and `mode`, one that keeps files local.

    `mode` and `accept_wrong_md5` go before what the environment says.
    """
    import_storage()
    from infra_core.azure.storage import AzureStorageClient, AzureStorageSettings

    chosen = _storage_variables(env)
    if mode is not None:
        chosen["AZURE_STORAGE_MODE"] = mode
    elif not chosen:
        chosen["AZURE_STORAGE_MODE"] = "dev-skip"
    try:
        settings, storage_mode = AzureStorageSettings.from_env(env=chosen)
    except ValueError as error:  # an unknown mode
        raise BatchError(str(error)) from None
    if accept_wrong_md5:
        settings = replace(settings, options=replace(settings.options, accept_wrong_md5=True))
    return AzureStorageClient.from_settings(settings, storage_mode, base_path=base_path)


def open_mirror(
    options: "BatchOptions", env: Mapping[str, str], *, base_path: Path
) -> "AzureStorageClient | None":
    """The storage client of a batch; None, and no SDK imported, where nothing is to be mirrored."""
    if not options.mirror or not (_storage_variables(env) or options.mode):
        return None
    storage = open_storage(env, base_path=base_path, mode=options.mode)
    return storage if storage.is_configured() else None


def _storage_variables(env: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in env.items() if k.startswith("AZURE_STORAGE_") and v.strip()}


def table_of(env: Mapping[str, str]) -> str:
    """The name of the table that jobs are kept in; empty where they are kept in a file."""
    return env.get("AZURE_JOB_TABLE", "").strip()


def open_jobs(env: Mapping[str, str], *, sqlite_path: Path) -> "JobStore[JobRecord]":
    """Open the job store that the environment asks for.

    Raises:
        AzureTableError: AZURE_JOB_TABLE names a table and no variable says where it is; jobs that
            were quietly kept in a file would be sought in the table.
    """
    from infra_core.azure.job_store import JobRecord, TableConfig, open_job_store

    if table_of(env):
        TableConfig.from_env(env=env)
    return open_job_store(env, sqlite_path=sqlite_path, record_type=JobRecord)
