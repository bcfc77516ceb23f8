"""`python -m infra_core`: the same as `infra-core`."""

import sys

from infra_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
