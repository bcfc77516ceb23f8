"""Run logs with consistent labels across services.

`RunLogWriter` itself, and `RunLogHandler`, which sends what a program logs anyway to its run log.

Example:
    ::

        from infra_core.azure.monitoring.run_log_writer import RunLogHandler, RunLogWriter

        log = RunLogWriter(root, azure_client=client, labels={"service": "crawler"})
        logging.getLogger("infra_core").addHandler(RunLogHandler(log))
"""

import logging
import threading
from datetime import datetime, timezone
from typing import Any

from ._run_log import RunLogWriter
from ._run_log_mirror import MIRROR_THREAD

__all__ = ["RunLogHandler", "RunLogWriter"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class RunLogHandler(logging.Handler):
    """Writes log records as lines of a run log, event `log`, with their `extra` fields.

    A line has the time of its record, its `level`, `logger` and `message`, and `exception` and
    `stack` where there are such. An `extra` field of one of these names is written as `level_`.

    Args:
        writer: Where to write.
        level: Least level of the records to write.
    """

    def __init__(self, writer: RunLogWriter, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; as with every handler, failures go to `handleError`.

        Records of the thread that mirrors run logs are left out: each upload would otherwise log
        lines that have to be uploaded.
        """
        if MIRROR_THREAD in (record.threadName, threading.current_thread().name):
            return
        try:
            properties: dict[str, Any] = {
                "timestamp": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
                "level": record.levelname,
                "logger": record.name,
                "message": record.getMessage(),
            }
            if record.exc_info and record.exc_info[1] is not None:
                formatter = self.formatter or logging.Formatter()
                properties["exception"] = formatter.formatException(record.exc_info)
            elif record.exc_text:  # of a record that came from another process
                properties["exception"] = record.exc_text
            if record.stack_info:
                properties["stack"] = record.stack_info
            for name, value in vars(record).items():
                if name not in _STANDARD:
                    while name in properties:
                        name += "_"  # noqa: PLW2901 - a free name
                    properties[name] = value
            self._writer.write("log", **properties)
        except Exception:  # noqa: BLE001 - the contract of logging.Handler
            self.handleError(record)
