"""One table of media types and their categories, the same on every machine.

`mimetypes` reads the machine's own files and registry, so one name gets two types on two hosts;
download, upload and manifest must agree, so they all look here. Where `mimetypes` knows a type
without those files, this table says the same (a test compares them); for the rest the sources are
the IANA media type registry and, for unregistered formats, what their makers document.
"""

import functools
import os
import re
import sys
from pathlib import PurePath
from typing import Final

__all__ = ["media_category", "media_extension", "media_type"]

DEFAULT_TYPE: Final = "application/octet-stream"

_OFFICE: Final = "application/vnd.openxmlformats-officedocument"
_ODF: Final = "application/vnd.oasis.opendocument"

_IMAGES: Final = {
    "apng": "image/apng",
    "avif": "image/avif",
    "bmp": "image/bmp",
    "cur": "image/x-icon",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "ico": "image/vnd.microsoft.icon",
    "jfif": "image/jpeg",
    "jpe": "image/jpeg",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "jxl": "image/jxl",
    "pbm": "image/x-portable-bitmap",
    "pgm": "image/x-portable-graymap",
    "png": "image/png",
    "pnm": "image/x-portable-anymap",
    "ppm": "image/x-portable-pixmap",
    "psd": "image/vnd.adobe.photoshop",
    "svg": "image/svg+xml",
    "svgz": "image/svg+xml",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "webp": "image/webp",
}
_DOCUMENTS: Final = {
    "adoc": "text/asciidoc",
    "cfg": "text/plain",
    "conf": "text/plain",
    "doc": "application/msword",
    "docx": f"{_OFFICE}.wordprocessingml.document",
    "dot": "application/msword",
    "eml": "message/rfc822",
    "eps": "application/postscript",
    "epub": "application/epub+zip",
    "htm": "text/html",
    "html": "text/html",
    "ics": "text/calendar",
    "ini": "text/plain",
    "log": "text/plain",
    "markdown": "text/markdown",
    "md": "text/markdown",
    "mht": "message/rfc822",
    "mhtml": "message/rfc822",
    "odp": f"{_ODF}.presentation",
    "ods": f"{_ODF}.spreadsheet",
    "odt": f"{_ODF}.text",
    "pdf": "application/pdf",
    "pps": "application/vnd.ms-powerpoint",
    "ppt": "application/vnd.ms-powerpoint",
    "pptx": f"{_OFFICE}.presentationml.presentation",
    "ps": "application/postscript",
    "rst": "text/x-rst",
    "rtf": "text/rtf",
    "srt": "text/plain",
    "tex": "application/x-tex",
    "text": "text/plain",
    "txt": "text/plain",
    "vcf": "text/x-vcard",
    "xhtml": "application/xhtml+xml",
    "xls": "application/vnd.ms-excel",
    "xlsx": f"{_OFFICE}.spreadsheetml.sheet",
}
_DATA: Final = {
    "arrow": "application/vnd.apache.arrow.file",
    "atom": "application/atom+xml",
    "avro": "application/avro",
    "csv": "text/csv",
    "db": "application/vnd.sqlite3",
    "feather": "application/vnd.apache.arrow.file",
    "geojson": "application/geo+json",
    "h5": "application/x-hdf5",
    "har": "application/json",
    "hdf5": "application/x-hdf5",
    "ipynb": "application/x-ipynb+json",
    "json": "application/json",
    "json5": "application/json5",
    "jsonl": "application/jsonl",
    "jsonld": "application/ld+json",
    "kml": "application/vnd.google-earth.kml+xml",
    "map": "application/json",
    "ndjson": "application/x-ndjson",
    "npy": "application/x-npy",
    "npz": "application/x-npz",
    "orc": "application/vnd.apache.orc",
    "parquet": "application/vnd.apache.parquet",
    "pb": "application/x-protobuf",
    "rdf": "application/xml",
    "rss": "application/rss+xml",
    "sql": "application/sql",
    "sqlite": "application/vnd.sqlite3",
    "sqlite3": "application/vnd.sqlite3",
    "toml": "application/toml",
    "tsv": "text/tab-separated-values",
    "vtt": "text/vtt",
    "webmanifest": "application/manifest+json",
    "xml": "text/xml",
    "xsd": "text/xml",
    "xsl": "application/xml",
    "yaml": "application/yaml",
    "yml": "application/yaml",
}
_OTHER: Final = {
    "7z": "application/x-7z-compressed",
    "aac": "audio/aac",
    "aif": "audio/x-aiff",
    "aiff": "audio/x-aiff",
    "avi": "video/x-msvideo",
    "bat": "text/plain",
    "bin": DEFAULT_TYPE,
    "bz2": "application/x-bzip2",
    "css": "text/css",
    "dll": DEFAULT_TYPE,
    "exe": DEFAULT_TYPE,
    "flac": "audio/flac",
    "gz": "application/gzip",
    "iso": "application/x-iso9660-image",
    "jar": "application/java-archive",
    "js": "text/javascript",
    "m3u": "application/vnd.apple.mpegurl",
    "m3u8": "application/vnd.apple.mpegurl",
    "m4a": "audio/mp4",
    "m4v": "video/x-m4v",
    "mjs": "text/javascript",
    "mkv": "video/x-matroska",
    "mov": "video/quicktime",
    "mp2": "audio/mpeg",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "mpe": "video/mpeg",
    "mpeg": "video/mpeg",
    "mpg": "video/mpeg",
    "oga": "audio/ogg",
    "ogg": "audio/ogg",
    "ogv": "video/ogg",
    "opus": "audio/opus",
    "otf": "font/otf",
    "py": "text/x-python",
    "qt": "video/quicktime",
    "rar": "application/vnd.rar",
    "sh": "application/x-sh",
    "so": DEFAULT_TYPE,
    "swf": "application/x-shockwave-flash",
    "tar": "application/x-tar",
    "tgz": "application/gzip",
    "ts": "video/mp2t",
    "ttf": "font/ttf",
    "wasm": "application/wasm",
    "wav": "audio/x-wav",
    "weba": "audio/webm",
    "webm": "video/webm",
    "whl": "application/zip",
    "woff": "font/woff",
    "woff2": "font/woff2",
    "xz": "application/x-xz",
    "zip": "application/zip",
    "zst": "application/zstd",
}

_TYPES: Final = {**_IMAGES, **_DOCUMENTS, **_DATA, **_OTHER}
_CATEGORIES: Final = {
    **dict.fromkeys(_OTHER.values(), "other"),
    **dict.fromkeys(_DATA.values(), "data"),
    **dict.fromkeys(_DOCUMENTS.values(), "document"),
    # the other spellings that servers send
    **dict.fromkeys(
        ["application/xml", "application/x-yaml", "text/yaml", "application/csv",
         "application/x-parquet", "text/json", "application/x-sqlite3"],
        "data",
    ),
    "application/javascript": "other",
}  # fmt: skip
# Of several extensions of a type the usual one, where that is not the first in the table.
_USUAL: Final = (
    "jpg", "txt", "html", "md", "ps", "ppt", "json", "m3u8", "mp3", "mpg", "ogg", "zip",
)  # fmt: skip
_OTHER_SPELLINGS: Final = {
    "application/csv": "csv",
    "application/javascript": "js",
    "application/x-yaml": "yaml",
    "application/xml": "xml",
    "audio/wav": "wav",
    "image/jpg": "jpg",
    "text/json": "json",
    "text/yaml": "yaml",
}
_TYPE_FORM: Final = re.compile(
    r"(application|audio|chemical|font|image|message|model|multipart|text|video)"
    r"/[\w!#$&^.+-]+",
    re.ASCII,
)


def media_type(name: "str | PurePath") -> str:
    """Return the media (MIME) type that a file's name stands for.

    The same on every machine, except for types that the program itself has added by
    `mimetypes.add_type`: those come first.

    Args:
        name: A file name, path or URL; only the last extension counts, in any letter case.

    Returns:
        A type without parameters; `application/octet-stream` when the name says nothing.

    Example:
        >>> media_type("photos/Portrait.WEBP"), media_type("rows.jsonl"), media_type("README")
        ('image/webp', 'application/jsonl', 'application/octet-stream')
    """
    extension = _extension(name)
    return _added_type(extension) or _TYPES.get(extension, DEFAULT_TYPE)


def media_extension(kind: str) -> str:
    """Return the usual extension of a media type, such as `.html`; empty where there is none.

    Args:
        kind: A media type, with or without parameters.

    Example:
        >>> media_extension("text/html; charset=utf-8"), media_extension("application/octet-stream")
        ('.html', '')
    """
    name = kind.partition(";")[0].strip().lower()
    extension = _extensions().get(name, "")
    if not extension and name.endswith(("+json", "+xml")):
        extension = name.rpartition("+")[2]
    return f".{extension}" if extension else ""


@functools.cache
def _extensions() -> "dict[str, str]":
    first = {kind: extension for extension, kind in reversed(_TYPES.items())}
    del first[DEFAULT_TYPE]
    return {**first, **{_TYPES[usual]: usual for usual in _USUAL}, **_OTHER_SPELLINGS}


def _added_type(extension: str) -> str | None:
    """Return the type that the program has added to `mimetypes`, if it uses that at all."""
    mimetypes = sys.modules.get("mimetypes")
    if mimetypes is None or not getattr(mimetypes, "inited", False) or not extension:
        return None
    known: str | None = mimetypes.types_map.get(f".{extension}")
    return None if known is None or known == _machine_types().get(f".{extension}") else known


@functools.cache
def _machine_types() -> "dict[str, str]":
    """Return what `mimetypes` knows on this machine before the program adds to it."""
    import mimetypes

    known = mimetypes.MimeTypes()
    if hasattr(known, "read_windows_registry"):
        known.read_windows_registry()
    for file in mimetypes.knownfiles:
        if os.path.isfile(file):  # noqa: PTH113 - pathlib would cost its import here
            known.read(file)
    return known.types_map[True]


def media_category(name_or_type: "str | PurePath") -> str:
    """Return the category of a file name or a media type.

    Args:
        name_or_type: A name, path or URL, or a media type with or without parameters.
            `image/logo.png` is taken for a path: its ending is a known extension.

    Returns:
        `image`, `document` (text and office formats for people, HTML and Markdown among them),
        `data` (JSON, CSV, XML, Parquet and other formats for programs) or `other` (archives,
        fonts, sound, film, code, unknown).

    Example:
        >>> [media_category(x) for x in ("a.svg", "index.html", "text/csv; charset=utf-8", "a.zip")]
        ['image', 'document', 'data', 'other']
    """
    if isinstance(name_or_type, str):
        kind = name_or_type.partition(";")[0].strip().lower()
        if kind in _CATEGORIES or (_TYPE_FORM.fullmatch(kind) and _extension(kind) not in _TYPES):
            return _category_of_type(kind)
    extension = _extension(name_or_type)
    if extension in _OTHER:  # .bat is text to a browser and no document to a reader
        return "other"
    return _category_of_type(media_type(name_or_type))


def _category_of_type(kind: str) -> str:
    known = _CATEGORIES.get(kind)
    if known:
        return known
    if kind.startswith("image/"):
        return "image"
    if kind.endswith(("+json", "+xml", "+yaml", "+cbor")):
        return "data"
    return "document" if kind.startswith("text/") else "other"


def _extension(name: "str | PurePath") -> str:
    text = os.fspath(name)
    if "://" in text:  # a URL: what follows the path is not part of the name
        text = text.partition("#")[0].partition("?")[0]
    last = text.replace("\\", "/").rpartition("/")[2]
    stem, _, extension = last.rpartition(".")
    return extension.lower() if stem.strip(".") else ""
