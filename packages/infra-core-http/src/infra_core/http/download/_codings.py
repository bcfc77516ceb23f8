"""Bodies that come encoded, though they were asked for as they are."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from .._errors import DownloadError, IncompleteDownloadError
from .._response.decode import DamagedBody, Decoder, UnsupportedCoding
from ._fields import media_type_of

if TYPE_CHECKING:
    from infra_core.fs import AtomicFile

    from ._plan import Body, DownloadPlan

__all__ = ["damaged_body", "is_coded_file"]

_HEAD: Final = 1 << 16
# Files that hold such data by their name or type, and how the data begins where that is fixed.
_OF_FILES: Final = {
    "gzip": ((".gz", ".tgz", ".svgz", "application/gzip", "application/x-gzip"), b"\x1f\x8b"),
    "zstd": ((".zst", "application/zstd"), b"\x28\xb5\x2f\xfd"),
    "br": ((".br",), b""),
}


def is_coded_file(name: str, body: Body, file: AtomicFile) -> bool:
    """Whether a body is a compressed file whose server has named its format as a content coding.

    Servers that go by the extension do so: `x.tar.gz` comes with `Content-Encoding: gzip`, and
    decoded it would no longer be what its name says. Where it was encoded once more on its way,
    what it decodes to is such a file.
    """
    kinds, magic = _OF_FILES.get(", ".join(body.codings), ((), b""))
    if not {PurePath(name).suffix.lower(), media_type_of(body.content_type)} & {*kinds}:
        return False
    if not magic:
        return True
    file.flush()
    with file.temp_path.open("rb") as sent:
        inner = next(Decoder(body.codings).feed(sent.read(_HEAD)), b"")
    return not inner.startswith(magic)


def damaged_body(plan: DownloadPlan, error: DamagedBody) -> DownloadError:
    """Return the error for an encoded body that cannot be decoded."""
    name = ", ".join(plan.body.codings if plan.body else ())
    if isinstance(error, UnsupportedCoding):
        problem = (
            f"came with Content-Encoding {name!r} though identity was asked for, and cannot be "
            f"decoded: {error}"
        )
        return plan.spec.error(DownloadError, problem, expected="identity", actual=name)
    return plan.spec.error(
        IncompleteDownloadError,
        f"sent a body that is not whole or not {name} ({error}): try again later",
        expected=f"a whole {name} body",
        actual=f"{plan.wire} bytes",
    )
