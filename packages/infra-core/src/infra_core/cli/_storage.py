"""The storage client that the environment asks for, the same for every command."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ._arguments import CommandError

if TYPE_CHECKING:
    from infra_core.azure.job_store import JobRecord, JobStore
    from infra_core.azure.storage import AzureStorageClient

__all__ = ["open_jobs", "open_storage"]


def open_storage(
    env: Mapping[str, str],
    *,
    base_path: Path,
    mode: str | None = None,
    accept_wrong_md5: bool = False,
) -> "AzureStorageClient":
    """Open the storage client; without AZURE_STORAGE_* and `mode`, one that keeps files local.

    Args:
        env: Environment variables.
        base_path: Folder that blob names are relative to.
        mode: Storage mode in place of what the environment says.
        accept_wrong_md5: Switch that option on, whatever the environment says.

    Raises:
        ConfigurationError: The settings are incomplete, malformed or contradictory.
    """
    from infra_core.azure.storage import AzureStorageClient, AzureStorageSettings

    chosen = {k: v for k, v in env.items() if k.startswith("AZURE_STORAGE_") and v.strip()}
    if mode is not None:
        chosen["AZURE_STORAGE_MODE"] = mode
    elif not chosen:
        chosen["AZURE_STORAGE_MODE"] = "dev-skip"
    try:
        settings, storage_mode = AzureStorageSettings.from_env(env=chosen)
    except ValueError as error:  # an unknown mode
        raise CommandError(str(error)) from None
    if accept_wrong_md5:
        settings = replace(settings, options=replace(settings.options, accept_wrong_md5=True))
    return AzureStorageClient.from_settings(settings, storage_mode, base_path=base_path)


def open_jobs(env: Mapping[str, str], *, sqlite_path: Path) -> "JobStore[JobRecord]":
    """Open the job store that the environment asks for.

    Raises:
        AzureTableError: AZURE_JOB_TABLE names a table and no variable says where it is; jobs that
            were quietly kept in a file would be sought in the table.
    """
    from infra_core.azure.job_store import JobRecord, TableConfig, open_job_store

    if env.get("AZURE_JOB_TABLE", "").strip():
        TableConfig.from_env(env=env)
    return open_job_store(env, sqlite_path=sqlite_path, record_type=JobRecord)
