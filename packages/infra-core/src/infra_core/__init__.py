"""infra-core: fetch and download by the thousand, mirror, track and poll, and lose nothing.

The facade of the packages: every name here belongs to a slice (`infra_core.fs`, `.runtime`,
`.polling`, `.http`, `.azure`) and is imported when it is first used, so `import infra_core`
costs next to nothing.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)  # slices installed elsewhere still join

from infra_core.runtime.lazy import stub_exports

# `import infra_core` was enough for each of these modules in 0.7.
_MODULES_OF_0_7 = (
    *("asset_client", "asyncio_utils", "azure", "fs_utils", "http", "http_async", "http_utils"),
    *("logging_utils", "retry", "task_runtime"),
)

_resolve, __dir__, __all__ = stub_exports(
    __name__,
    unlisted=(*_MODULES_OF_0_7, "request"),  # `import *` would shadow flask's `request`
    renamed={
        "http_async_default_headers": ("infra_core.http.aio", "DEFAULT_HEADERS"),
        "http_default_headers": ("infra_core.http", "DEFAULT_HEADERS"),
    },
)


def __getattr__(name: str) -> object:
    """Import a name when it is first used; of a slice that is missing say how to install it."""
    try:
        return _resolve(name)
    except ModuleNotFoundError as error:
        parts = (error.name or "").split(".")
        if parts[0] != "infra_core" or len(parts) < 2:
            raise
        missing = f"infra-core-{parts[1]}"
        raise ModuleNotFoundError(
            f"infra_core.{name} needs {missing}, which is not installed; pip install {missing}, "
            "or infra-core, which brings all slices",
            name=error.name,
        ) from error
