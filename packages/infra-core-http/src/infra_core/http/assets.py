"""Download files: whole, verified and flushed to the disk, or not there at all.

The names of 0.7's `infra_core.asset_client`, and those that are new in 1.0: `download_many` and
`download_many_async` with `DownloadItem` and `DownloadOutcome`, `CommitGroup` for programs that run
many downloads by themselves, and `DownloadProgress`.

Example:
    ::

        from pathlib import Path
        from infra_core.http.assets import download_asset

        result = download_asset("https://example.com/logo.png", Path("assets/logo.png"))
        print(result.path, result.checksum, result.mime, result.size)
"""

from infra_core.runtime.lazy import stub_exports

__getattr__, __dir__, __all__ = stub_exports(__name__)
