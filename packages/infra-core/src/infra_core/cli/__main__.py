"""`python -m infra_core.cli`: the same as `infra-core`."""

import sys

from infra_core._start import command

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(command())
