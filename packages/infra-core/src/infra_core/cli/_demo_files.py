"""The files that the demonstration serves: small, real, and the same every time."""

import json
import random
import struct
import zlib

__all__ = ["demo_files"]


def demo_files() -> dict[str, tuple[bytes, str]]:
    """Path on the server to body and content type."""
    rows = "".join(f"{n},job-{n:04},completed,{n * 37 % 1000}\n" for n in range(500))
    report = {"batch": "demo", "pages": [{"n": n, "ok": n % 7 != 0} for n in range(200)]}
    page = "<!doctype html><title>infra-core demo</title><h1>It survived.</h1>\n"
    files = {
        "/index.html": (page.encode(), "text/html; charset=utf-8"),
        "/data/jobs.csv": (b"n,job,state,ms\n" + rows.encode(), "text/csv"),
        "/data/report.json": (json.dumps(report, indent=1).encode(), "application/json"),
        "/docs/manual.pdf": (pdf("infra-core demo"), "application/pdf"),
        "/archive/large.bin": (noise(3 * 1024 * 1024), "application/octet-stream"),
        "/slow/drip.bin": (noise(96 * 1024), "application/octet-stream"),
        "/docs/Übersicht 1.txt": ("naïve café, 日本語\n".encode(), "text/plain; charset=utf-8"),
    }
    for number in range(1, 7):
        files[f"/images/logo.png?v={number}"] = (png(64, 40 * number), "image/png")
    return files


def noise(size: int) -> bytes:
    """Bytes that do not compress, the same in every run."""
    return random.Random(size).randbytes(size)


def png(side: int, hue: int) -> bytes:
    """A square picture with a gradient."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(
        b"\0" + bytes(v for x in range(side) for v in (hue % 256, x * 4 % 256, y * 4 % 256))
        for y in range(side)
    )
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return signature + body


def pdf(title: str) -> bytes:
    """A one-page document."""
    stream = f"BT /F1 24 Tf 72 720 Td ({title}) Tj ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources 6 0 R>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        b"<</Font<</F1 5 0 R>>>>",
    ]
    body = b"%PDF-1.4\n"
    offsets = []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    count = len(objects) + 1
    trailer = b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n" % (count, len(body))
    return body + b"xref\n0 %d\n0000000000 65535 f \n" % count + table + trailer + b"%%EOF\n"
