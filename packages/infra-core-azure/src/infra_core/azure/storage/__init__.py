"""Mirroring of files and folders to Azure Blob Storage: fast, verified, and with nothing lost."""

from infra_core.runtime.lazy import stub_exports

__getattr__, __dir__, __all__ = stub_exports(__name__)
