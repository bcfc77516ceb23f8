"""What a worker needs, imported by the fork server once for all of them."""

from infra_core import _start

_start.begin()
_start.import_engine()

from infra_core.http import AsyncHttpClient  # noqa: E402, F401
from infra_core.http.assets import AssetDownloadClient, CommitGroup  # noqa: E402, F401

from . import _environment, _workers  # noqa: E402, F401
from ._download import user_agent  # noqa: E402

__all__: list[str] = []

user_agent()
_start.started()
