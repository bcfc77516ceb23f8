"""Fetch and download by the thousand: retries that are honest, files that are verified."""

from infra_core.runtime.lazy import stub_exports

__getattr__, __dir__, __all__ = stub_exports(__name__)
