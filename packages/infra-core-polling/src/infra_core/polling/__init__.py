"""Poll until done, never past the deadline: sync, async, and ten thousand jobs at once.

Names are imported when they are first used.
"""

from infra_core.runtime.lazy import stub_exports

__getattr__, __dir__, __all__ = stub_exports(__name__)
