"""Azure for services: blob mirroring, job tracking, monitoring, telemetry and Functions clients.

Nothing of the Azure SDKs is imported before the name that needs it is used.
"""

from infra_core.runtime.lazy import stub_exports

# `import infra_core.azure` was enough for each of these modules in 0.7.
_MODULES_OF_0_7 = (
    *("exceptions", "function_cli", "function_http", "job_store", "run_service"),
    *("run_storage", "storage"),
)

__getattr__, __dir__, __all__ = stub_exports(__name__, unlisted=_MODULES_OF_0_7)
