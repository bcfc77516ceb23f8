"""Atomic writes of whole values: bytes, text, JSON and streams."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ._atomic import AtomicFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["write_bytes_atomic", "write_json_atomic", "write_stream_atomic", "write_text_atomic"]

_LONE = re.compile("[\ud800-\udfff]")


def write_bytes_atomic(
    path: "Path | str",
    data: "bytes | bytearray | memoryview",
    *,
    mode: int | None = None,
    durable: bool = True,
) -> Path:
    """Write bytes so that `path` holds the old content or all of the new.

    Args:
        path: The file; missing folders are made.
        data: The new content.
        mode: Permission bits of the file; see `AtomicFile`.
        durable: Flush file and folder to the disk before returning.

    Returns:
        The path.

    Raises:
        FileWriteError: The write failed and the old file stands (also an `OSError`).

    Example:
        >>> write_bytes_atomic(Path(tempfile.mkdtemp()) / "a.bin", b"abc").read_bytes()
        b'abc'
    """
    with AtomicFile(path, mode=mode, durable=durable) as file:
        file.write(data)
    return file.path


def write_text_atomic(
    path: "Path | str",
    text: str,
    *,
    encoding: str = "utf-8",
    mode: int | None = None,
    durable: bool = True,
) -> Path:
    r"""Write text so that `path` holds the old content or all of the new.

    Line ends are written as they are, on every system.

    Args:
        path: The file; missing folders are made.
        text: The new content.
        encoding: How to encode it.
        mode: Permission bits of the file; see `AtomicFile`.
        durable: Flush file and folder to the disk before returning.

    Returns:
        The path.

    Raises:
        FileWriteError: The write failed and the old file stands (also an `OSError`).
        UnicodeEncodeError: The text has characters that the encoding lacks; nothing was touched.

    Example:
        >>> write_text_atomic(Path(tempfile.mkdtemp()) / "a.txt", "grüß\n").read_bytes()
        b'gr\xc3\xbc\xc3\x9f\n'
    """
    if not isinstance(text, str):
        raise TypeError(
            f"write_text_atomic takes a str, not {type(text).__name__}; write_bytes_atomic takes "
            "bytes, write_json_atomic other values"
        )
    return write_bytes_atomic(path, text.encode(encoding), mode=mode, durable=durable)


def write_json_atomic(
    path: "Path | str",
    data: object,
    *,
    indent: int | None = 2,
    default: "Callable[[object], object] | None" = None,
    mode: int | None = None,
    durable: bool = True,
) -> Path:
    r"""Write a value as JSON: UTF-8, readable letters, a newline at the end.

    Lone surrogates, which UTF-8 cannot hold, are escaped as JSON allows.

    Args:
        path: The file; missing folders are made.
        data: Anything that `json.dumps` takes.
        indent: Spaces per level; None for one line.
        default: Called for values that JSON does not know, as in `json.dumps`.
        mode: Permission bits of the file; see `AtomicFile`.
        durable: Flush file and folder to the disk before returning.

    Returns:
        The path.

    Raises:
        FileWriteError: The write failed and the old file stands (also an `OSError`).
        TypeError: A value is not serialisable; nothing was touched.

    Example:
        >>> write_json_atomic(Path(tempfile.mkdtemp()) / "a.json", {"status": "ok"}).read_text()
        '{\n  "status": "ok"\n}\n'
    """
    import json

    text = json.dumps(data, indent=indent, ensure_ascii=False, default=default)
    if not text.isascii():
        text = _LONE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return write_text_atomic(path, text + "\n", mode=mode, durable=durable)


def write_stream_atomic(
    path: "Path | str",
    chunks: "Iterable[bytes | bytearray | memoryview]",
    *,
    algorithms: "Iterable[str]" = (),
    mode: int | None = None,
    durable: bool = True,
) -> AtomicFile:
    """Write chunks as they come, hashing on the way; nothing is left if the stream breaks.

    Args:
        path: The file; missing folders are made.
        chunks: The content, in pieces.
        algorithms: Hash algorithms to compute while writing.
        mode: Permission bits of the file; see `AtomicFile`.
        durable: Flush file and folder to the disk before returning.

    Returns:
        The committed file, with `path`, `size`, `hexdigest()` and `digests`.

    Raises:
        FileWriteError: The write failed and the old file stands (also an `OSError`).
        ChecksumAlgorithmError: An algorithm is unknown; no chunk was taken.

    Example:
        >>> target = Path(tempfile.mkdtemp()) / "a.bin"
        >>> written = write_stream_atomic(target, [b"ab", b"c"], algorithms=["md5"])
        >>> written.size, written.hexdigest("md5")
        (3, '900150983cd24fb0d6963f7d28e17f72')
    """
    with AtomicFile(path, algorithms=algorithms, mode=mode, durable=durable) as file:
        for chunk in chunks:
            file.write(chunk)
    return file
