"""Exit codes of the `infra-core` command; scripts may rely on them."""

__all__ = ["DESCRIPTION", "FAILED", "HUNG_UP", "INTERRUPTED", "OK", "TERMINATED", "USAGE"]

OK = 0
FAILED = 1
USAGE = 2
HUNG_UP = 129  # 128 + SIGHUP
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
TERMINATED = 143  # 128 + SIGTERM

DESCRIPTION = """\
exit codes:
  0    everything asked for was done
  1    the command ran to its end, but something in it failed; the report says what
  2    it did not start: wrong arguments, unusable input or settings
  130  interrupted by Ctrl-C; work in flight was drained, what was done is recorded
  143  the same after SIGTERM, and 129 after SIGHUP, when a terminal closes
"""
