"""Fetch and download by the thousand: requests retried where that is safe, files verified."""

from infra_core.runtime.lazy import stub_exports

__getattr__, __dir__, __all__ = stub_exports(__name__)
