"""The logger of this package."""

import logging
from typing import Final

__all__ = ["logger"]

logger: Final = logging.getLogger("infra_core.polling")
