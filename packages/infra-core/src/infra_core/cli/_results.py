"""`infra-core run --results`: what became of each URL, as CSV or as JSON lines."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra_core.batch import BatchResult

__all__ = ["ResultsFile"]


class ResultsFile:
    """A file that takes each result as it comes: CSV where its name says so, else JSON lines.

    A disk that refuses it ends nothing but the file: `error` says why.

    Args:
        path: Where; None for nowhere.
    """

    def __init__(self, path: Path | None) -> None:
        self.error: OSError | None = None
        self._file = None if path is None else path.open(
            "w", encoding="utf-8", errors="replace", newline=""
        )  # fmt: skip
        self._rows: Any = None
        if self._file is not None and path is not None and path.suffix.lower() == ".csv":
            self._rows = csv.DictWriter(self._file, BatchResult.__slots__)
            self._rows.writeheader()

    def write(self, result: BatchResult) -> None:
        """Write a result."""
        if self._file is None or self.error is not None:
            return
        try:
            if self._rows is None:
                text = json.dumps(result.as_dict(), ensure_ascii=False, default=str)
                self._file.write(text + "\n")
            else:
                row = result.as_dict()
                self._rows.writerow({name: _plain(value) for name, value in row.items()})
        except OSError as error:
            self.error = error

    def close(self) -> None:
        """Flush and close; what prevents that is in `error`."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                self.error = self.error or error


def _plain(value: object) -> object:
    """A cell that no spreadsheet takes for a formula; a mapping as JSON.

    https://owasp.org/www-community/attacks/CSV_Injection
    """
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False, default=str) if value else None
    if isinstance(value, str) and value.startswith(tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")):
        return "'" + value  # the last four are those of East Asian keyboards
    return value
