"""`python -m infra_core.cli`: the same as `infra-core`."""

import sys

from ._main import command

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(command())
