"""Job tracking: one interface, kept in Azure Table storage or in an embedded SQLite file."""

from infra_core.runtime.lazy import stub_exports

__getattr__, __dir__, __all__ = stub_exports(__name__)
