"""The asynchronous HTTP names of 0.7; they live in `infra_core.http.aio`."""

from infra_core.runtime.lazy import stub_exports

__getattr__, __dir__, __all__ = stub_exports(__name__)
