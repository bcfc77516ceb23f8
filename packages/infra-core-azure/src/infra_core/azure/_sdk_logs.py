"""The loggers of the Azure SDKs: quiet unless asked for, and without secrets.

At INFO they write a dozen lines for each request and token, which drowns the program's own lines
as soon as it calls `logging.basicConfig(level=logging.INFO)`.
"""

import logging

from infra_core.runtime import redact_library_logs

__all__ = ["tidy_sdk_logs"]

_TALKATIVE = ("azure.core.pipeline.policies.http_logging_policy", "azure.identity", "msal")


def tidy_sdk_logs() -> None:
    """Let the SDK's loggers write warnings only, and redact what they write.

    A logger whose level somebody has set, or that of a parent below the root (`azure`), is left
    as it is: that is how its lines are asked for.
    """
    redact_library_logs()
    for name in _TALKATIVE:
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None and logger.level == logging.NOTSET:
            logger = logger.parent
        if logger is None or logger is logging.getLogger():
            logging.getLogger(name).setLevel(logging.WARNING)
