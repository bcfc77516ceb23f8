"""What is needed to wait for a triggered batch again, kept where only this user can read it.

The status URL of a durable instance carries a key that opens every instance of the app, so it
stands in no summary and no output; a file of mode 0600 in a folder of mode 0700 keeps it.
"""

import hashlib
import json
import logging
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from infra_core.fs import write_json_atomic
from infra_core.runtime import clock

from ._durable import DurableInstance
from .exceptions import JobNotFoundError

__all__ = ["recall", "remember", "state_folder"]

_log = logging.getLogger("infra_core.azure.client")
_KEPT = ("id", "status_url", "terminate_url")
_KEPT_SECONDS = 90 * 86_400


def state_folder() -> Path:
    """The folder in which `infra-core trigger` keeps what it scheduled (XDG base directories)."""
    base = os.environ.get("XDG_STATE_HOME")
    try:
        home = Path(base) if base else Path.home() / ".local" / "state"
    except RuntimeError:  # no home folder
        user = os.getuid() if hasattr(os, "getuid") else "own"  # Windows: the folder is the user's
        home = Path(tempfile.gettempdir()) / f"user-{user}"
    return home / "infra-core" / "triggers"


def remember(folder: Path, base_url: str, batch_id: str, instance: DurableInstance) -> None:
    """Store how to wait for a batch; that it could not be stored is logged, not raised."""
    fields = {"batch_id": batch_id, "base_url": base_url}
    fields |= {name: getattr(instance, name) for name in _KEPT}
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in folder.glob("*.json"):
            with suppress(OSError):
                if path.stat().st_mtime < clock.time() - _KEPT_SECONDS:
                    path.unlink()
        write_json_atomic(_file(folder, base_url, batch_id), fields, mode=0o600)
    except OSError as error:
        why = error.strerror or type(error).__name__
        said = (
            "batch %r cannot be waited for again: %s cannot be written (%s); set XDG_STATE_HOME "
            "to a folder that can"
        )
        _log.warning(said, batch_id, folder, why)


def recall(folder: Path, base_url: str, batch_id: str) -> DurableInstance:
    """Return the instance of a batch that was stored.

    Raises:
        JobNotFoundError: None was, or it cannot be read.
    """
    try:
        fields = json.loads(_file(folder, base_url, batch_id).read_bytes())
        return DurableInstance(**{name: fields[name] for name in _KEPT})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobNotFoundError(
            f"no triggered batch {batch_id!r} of {base_url} is stored in {folder} "
            f"({type(error).__name__}): trigger it first, on this machine and as this user, and "
            "give the same base URL"
        ) from None


def _file(folder: Path, base_url: str, batch_id: str) -> Path:
    name = hashlib.sha256(f"{base_url}\0{batch_id}".encode("utf-8", "surrogatepass")).hexdigest()
    return folder / f"{name[:32]}.json"
