"""`python -m infra_core`: the same as `infra-core`."""

import sys

from infra_core._start import command

if __name__ == "__main__":
    sys.exit(command())
