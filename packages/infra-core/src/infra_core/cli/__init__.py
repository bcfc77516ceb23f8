"""The `infra-core` command.

Each subcommand is a module of its own that is imported when it is called, so `infra-core --help`
answers at once. The exit codes are part of the interface; see `infra_core.cli.exit_codes`.
"""

from ._main import main

__all__ = ["main"]
