"""Bounded asyncio task runtime, retry policy, sync-over-async and secret redaction.

Every name below is imported when it is first used; `import infra_core.runtime` itself costs next
to nothing. Submodules for users: `clock` (time, sleep, randomness), `testing` (`fast_time`) and
`lazy` (lazy package exports).
"""

from .lazy import stub_exports

__getattr__, __dir__, __all__ = stub_exports(__name__)
