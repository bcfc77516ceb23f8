"""Run logs with consistent labels across services.

`RunLogWriter` itself, and `RunLogHandler`, which sends what a program logs anyway to its run log.

Example:
    ::

        from infra_core.azure.monitoring.run_log_writer import RunLogHandler, RunLogWriter

        log = RunLogWriter(root, azure_client=client, labels={"service": "crawler"})
        logging.getLogger("infra_core").addHandler(RunLogHandler(log))
"""

import logging

from ._run_log import RunLogWriter
from ._run_log_mirror import MIRROR_THREAD

__all__ = ["RunLogHandler", "RunLogWriter"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class RunLogHandler(logging.Handler):
    """Writes log records as lines of a run log, event `log`, with their `extra` fields.

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
        if record.threadName == MIRROR_THREAD:
            return
        try:
            properties = {
                name: value for name, value in vars(record).items() if name not in _STANDARD
            }
            properties |= {
                "level": record.levelname,
                "logger": record.name,
                "message": record.getMessage(),
            }
            if record.exc_info and record.exc_info[1] is not None:
                formatter = self.formatter or logging.Formatter()
                properties["exception"] = formatter.formatException(record.exc_info)
            properties.pop("event", None)
            self._writer.write("log", **properties)
        except Exception:  # noqa: BLE001 - the contract of logging.Handler
            self.handleError(record)
