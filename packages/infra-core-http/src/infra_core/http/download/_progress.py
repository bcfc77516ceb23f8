"""A ready progress bar, drawn by rich (the extra `infra-core-http[progress]`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._result import ProgressCallback

__all__ = ["DownloadProgress"]


class DownloadProgress:
    """Progress bars of one or many downloads: name, bar, bytes, speed, time left.

    Args:
        console: A `rich.console.Console` to draw on; standard error by default. On what is no
            terminal rich draws the final state once.
        transient: Clear the bars at the end.

    Raises:
        ImportError: rich is not installed.

    Example:
        ::

            with DownloadProgress() as bars:
                download_asset(url, Path("big.iso"), progress=bars.track("big.iso"))
                download_many(items, progress=bars.track)
    """

    def __init__(self, *, console: Any = None, transient: bool = False) -> None:
        try:
            from rich import progress
            from rich.console import Console
        except ImportError as error:
            raise ImportError(
                "the progress bar is drawn by rich: pip install 'infra-core-http[progress]'"
            ) from error
        self._progress = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True) if console is None else console,
            transient=transient,
        )

    def track(self, label: str) -> ProgressCallback:
        """Add a bar and return the callback that moves it.

        Args:
            label: What to call it; of a URL the last part of its path is shown.
        """
        task = self._progress.add_task(_short(label), total=None)

        def update(done: int, total: int | None) -> None:
            self._progress.update(task, completed=done, total=total)

        return update

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Draw the final state and stop."""
        self._progress.stop()


def _short(label: str) -> str:
    parts = urlsplit(label)
    if not parts.scheme or not parts.netloc:
        return label
    return unquote(parts.path.rstrip("/").rpartition("/")[2]) or parts.netloc
