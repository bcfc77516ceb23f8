"""The ways that requests travel, and an authority for certificates, for several tests."""

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from infra_core.http import AssetDownloadClient, AsyncHttpClient, fetch, fetch_async


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(params=["async", "plain", "sync", "download"])
def get(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., str]:
    """Get a text over one of the ways that requests travel."""
    half = request.param
    numbers = itertools.count()

    def work(url: str, **options: Any) -> str:
        options = {"max_retries": 0, "timeout": 20, **options}

        async def over(**client_options: Any) -> str:
            async with AsyncHttpClient(**client_options) as client:
                if half == "download":
                    path = tmp_path / str(next(numbers))
                    async with AssetDownloadClient(client=client, **options) as downloads:
                        await downloads.download(url, path)
                    return path.read_text()
                return await fetch_async(url, client=client, **options)

        if half == "sync":
            return fetch(url, **options)
        return asyncio.run(over(http2=True) if half == "plain" else over())

    work.half = half  # type: ignore[attr-defined]
    return work
