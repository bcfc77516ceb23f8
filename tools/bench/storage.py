"""Blob transfers on a real Azurite: ours against obstore, adlfs, rclone, azcopy and the bare SDK.

Run it with `hatch run bench:python tools/bench/storage.py`; `--large 1024` adds one large file of
that many MiB, for which the SDK's best setting is searched first. All contenders take turns within
each round, so that a busy machine disturbs them alike; of many small files the best round counts,
of one large file the median. `--commands` compares `infra-core mirror` with rclone and azcopy, each
a process of its own, start-up included; those that are not on `PATH` are left out (azcopy: npm has
it as `@azure-tools/azcopy-linux`).
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra_core.azure.storage import AzureStorageClient, AzureStorageSettings, TransferOptions
from infra_core.azure.testing import AzuriteServer

Job = Callable[[], Awaitable[None]]


class Ours:
    """`AzureStorageClient`; `checked` says whether the blocks of a large file carry an MD5."""

    def __init__(self, azurite: AzuriteServer, concurrency: int, checked: int = 1) -> None:
        settings = AzureStorageSettings(
            "bench-ours",
            azurite.connection_string,
            options=TransferOptions(concurrency=concurrency, block_md5=bool(checked)),
        )
        self.client = AzureStorageClient.from_settings(settings, "strict")

    async def up(self, folder: Path, name: str) -> None:
        self.client.base_path = folder.parent
        await self.client.upload_tree_async(folder, compare="nothing")

    async def down(self, name: str, target: Path) -> None:
        self.client.base_path = target.parent
        await self.client.download_tree_async(target, compare="nothing")

    async def close(self) -> None:
        await self.client.aclose()


class Sdk:
    """`azure-storage-blob`, asynchronous, files in parallel.

    Its own settings are left alone, but for the blocks of a large file: how large they are, in
    MiB (0 for what it does by itself), how many travel at a time, and whether each is checked by
    an MD5 (`validate_content`), as ours are.
    """

    def __init__(
        self,
        azurite: AzuriteServer,
        concurrency: int,
        block: int = 0,
        parallel: int = 4,
        checked: int = 0,
    ) -> None:
        from azure.storage.blob.aio import ContainerClient

        options: Any = {}
        if block:
            fetched = min(block, 4) if checked else block
            options = {
                **dict.fromkeys(("max_block_size", "max_single_put_size"), block << 20),
                **dict.fromkeys(("max_chunk_get_size", "max_single_get_size"), fetched << 20),
            }
        self.container = ContainerClient.from_connection_string(
            azurite.connection_string, "bench-sdk", **options
        )
        self.gate = asyncio.Semaphore(concurrency)
        self.how: Any = {"max_concurrency": parallel, "validate_content": bool(checked)}

    async def up(self, folder: Path, name: str) -> None:
        with contextlib.suppress(Exception):
            await self.container.create_container()

        async def one(path: Path) -> None:
            async with self.gate:
                with path.open("rb") as file:
                    await self.container.upload_blob(
                        f"{name}/{path.name}", file, overwrite=True, **self.how
                    )

        await asyncio.gather(*(one(path) for path in folder.iterdir()))

    async def down(self, name: str, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)

        async def one(blob: str) -> None:
            async with self.gate:
                stream = await self.container.download_blob(blob, **self.how)
                with (target / blob.rpartition("/")[2]).open("wb") as file:
                    await stream.readinto(file)

        blobs = [blob async for blob in self.container.list_blob_names(name_starts_with=f"{name}/")]
        await asyncio.gather(*(one(blob) for blob in blobs))

    async def close(self) -> None:
        await self.container.close()


class Obstore:
    """obstore: the object_store crate of Rust."""

    def __init__(self, azurite: AzuriteServer, concurrency: int) -> None:
        import obstore.store

        self.gate = asyncio.Semaphore(concurrency)
        self.azurite = azurite
        self.store = obstore.store.AzureStore(
            container_name="bench-obstore",
            account_name=azurite.account_name,
            account_key=azurite.account_key,
            endpoint=azurite.blob_url,
            client_options={"allow_http": True, "timeout": "600s"},
        )

    async def up(self, folder: Path, name: str) -> None:
        import obstore

        _make_container(self.azurite, "bench-obstore")

        async def one(path: Path) -> None:
            async with self.gate:
                await obstore.put_async(self.store, f"{name}/{path.name}", path)

        await asyncio.gather(*(one(path) for path in folder.iterdir()))

    async def down(self, name: str, target: Path) -> None:
        import obstore

        target.mkdir(parents=True, exist_ok=True)

        async def one(blob: str) -> None:
            async with self.gate:
                result = await obstore.get_async(self.store, blob)
                with (target / blob.rpartition("/")[2]).open("wb") as file:
                    async for chunk in result.stream():
                        file.write(chunk)

        blobs = [item["path"] for page in obstore.list(self.store, name) for item in page]
        await asyncio.gather(*(one(blob) for blob in blobs))

    async def close(self) -> None:
        pass


class Adlfs:
    """adlfs: the fsspec file system over the SDK."""

    def __init__(self, azurite: AzuriteServer, concurrency: int) -> None:
        self.azurite = azurite
        self.fs: Any = None
        self.concurrency = concurrency

    def _open(self) -> Any:
        if self.fs is None:
            import adlfs

            self.fs = adlfs.AzureBlobFileSystem(
                connection_string=self.azurite.connection_string, asynchronous=True,
                skip_instance_cache=True,
            )  # fmt: skip
        return self.fs

    async def up(self, folder: Path, name: str) -> None:
        _make_container(self.azurite, "bench-adlfs")
        gate = asyncio.Semaphore(self.concurrency)
        fs = self._open()

        async def one(path: Path) -> None:
            async with gate:
                await fs._put_file(str(path), f"bench-adlfs/{name}/{path.name}", overwrite=True)

        await asyncio.gather(*(one(path) for path in folder.iterdir()))

    async def down(self, name: str, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        gate = asyncio.Semaphore(self.concurrency)
        fs = self._open()

        async def one(blob: str) -> None:
            async with gate:
                await fs._get_file(blob, str(target / blob.rpartition("/")[2]))

        blobs = await fs._ls(f"bench-adlfs/{name}", detail=False, invalidate_cache=True)
        await asyncio.gather(*(one(blob) for blob in blobs))

    async def close(self) -> None:
        if self.fs is not None:
            await self.fs.service_client.close()


class Command:
    """A program of its own for each transfer, start-up included."""

    container = ""

    def __init__(self, azurite: AzuriteServer, concurrency: int) -> None:
        self.azurite = azurite
        self.concurrency = concurrency
        self.env = dict(os.environ)

    async def up(self, folder: Path, name: str) -> None:
        _make_container(self.azurite, self.container)
        self.run(self.arguments("up", folder, name))

    async def down(self, name: str, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        self.run(self.arguments("down", target, name))

    def arguments(self, way: str, folder: Path, name: str) -> list[str]:
        raise NotImplementedError

    def run(self, arguments: list[str]) -> None:
        done = subprocess.run(
            arguments, env=self.env, check=False, capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            raise RuntimeError(f"{arguments[0]} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")

    async def close(self) -> None:
        pass


class Mirror(Command):
    """`infra-core mirror`, which flushes each file to the disk."""

    container = "bench-mirror"

    def arguments(self, way: str, folder: Path, name: str) -> list[str]:
        self.env |= {
            "AZURE_STORAGE_CONTAINER": self.container,
            "AZURE_STORAGE_CONNECTION_STRING": self.azurite.connection_string,
            "AZURE_STORAGE_CONCURRENCY": str(self.concurrency),
        }
        program = [sys.executable, "-m", "infra_core.cli"]  # a script may be of an older install
        return [*program, "mirror", way, str(folder), "--compare", "nothing", "--json"]


def signed(azurite: AzuriteServer, container: str) -> tuple[str, str]:
    """The URL of a container, and a token for it."""
    from datetime import datetime, timedelta, timezone

    from azure.storage.blob import ContainerSasPermissions, generate_container_sas

    token = generate_container_sas(
        azurite.account_name,
        container,
        account_key=azurite.account_key,
        permission=ContainerSasPermissions.from_string("racwdl"),
        expiry=datetime.now(timezone.utc) + timedelta(hours=1),
        protocol="https,http",
    )
    return f"{azurite.blob_url}/{container}", token


class Rclone(Command):
    """rclone, with as many transfers at a time."""

    container = "bench-rclone"

    def arguments(self, way: str, folder: Path, name: str) -> list[str]:
        url, token = signed(self.azurite, self.container)
        self.env |= {
            "RCLONE_CONFIG_BENCH_TYPE": "azureblob",
            "RCLONE_CONFIG_BENCH_SAS_URL": f"{url}?{token}",
        }
        there = f"bench:{self.container}/{name}"
        pair = [str(folder), there] if way == "up" else [there, str(folder)]
        many = str(self.concurrency)
        return ["rclone", "copy", "--ignore-times", "--transfers", many, "--checkers", many, *pair]


class Azcopy(Command):
    """azcopy, with as many requests at a time."""

    container = "bench-azcopy"

    def arguments(self, way: str, folder: Path, name: str) -> list[str]:
        url, token = signed(self.azurite, self.container)
        self.env |= {"AZCOPY_CONCURRENCY_VALUE": str(self.concurrency)}
        quiet = ["--log-level", "NONE"]
        if way == "up":
            pair = [f"{folder}/*", f"{url}/{name}?{token}"]
            return ["azcopy", "copy", *pair, "--from-to", "LocalBlob", *quiet]
        pair = [f"{url}/{name}/*?{token}", str(folder)]
        return ["azcopy", "copy", *pair, "--from-to", "BlobLocal", *quiet]


def cpu_seconds() -> float:
    """Processor time of this process and of the programs that it waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


_made: set[str] = set()


def _make_container(azurite: AzuriteServer, name: str) -> None:
    from azure.storage.blob import BlobServiceClient

    if name not in _made:
        with BlobServiceClient.from_connection_string(azurite.connection_string) as service:
            with contextlib.suppress(Exception):
                service.create_container(name)
        _made.add(name)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="bench-storage-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


async def small_files(
    kinds: list[Any], count: int, size: int, rounds: int, concurrency: int
) -> None:
    """Many small files, up and down, in turns."""
    with AzuriteServer() as azurite, temporary_folder() as folder:
        source = folder / "files"
        source.mkdir()
        for index in range(count):
            (source / f"{index:05d}.bin").write_bytes(os.urandom(size))
        contenders = [kind(azurite, concurrency) for kind in kinds]
        best: dict[tuple[str, str], float] = {}
        cpu: dict[tuple[str, str], float] = {}
        for turn in range(rounds + 1):  # the first round warms everything up and does not count
            for contender in contenders:
                name = type(contender).__name__
                # Fresh in each round, removed at the end: ext4 does not use an inode again for some
                # seconds after a file was deleted, and creating files then has to search.
                target = folder / "down" / f"{name}-{turn}" / "files"
                for what in ("up", "down"):
                    # Ours alone flushes: it must not pay for what others left in the cache.
                    os.sync()
                    used = cpu_seconds()
                    started = time.perf_counter()
                    if what == "up":
                        await contender.up(source, "files")
                    else:
                        await contender.down("files", target)
                    seconds = time.perf_counter() - started
                    used = cpu_seconds() - used
                    if turn and seconds < best.get((name, what), float("inf")):
                        best[name, what], cpu[name, what] = seconds, used
                got = sorted(path.name for path in target.iterdir())
                assert got == sorted(path.name for path in source.iterdir()), name
        for contender in contenders:
            await contender.close()
    print(f"{count} files of {size} bytes, {concurrency} at a time, best of {rounds}")
    print(
        f"{'':10}{'up/s':>8}{'CPU ms':>8}{'down/s':>8}{'CPU ms':>8}"
        "   the first as a multiple: up, down"
    )
    ours = {what: best[kinds[0].__name__, what] for what in ("up", "down")}
    for kind in kinds:
        name = kind.__name__
        row = [best[name, "up"], best[name, "down"]]
        print(
            f"{name:10}{count / row[0]:8.0f}{cpu[name, 'up'] / count * 1e3:8.2f}"
            f"{count / row[1]:8.0f}{cpu[name, 'down'] / count * 1e3:8.2f}"
            f"   {row[0] / ours['up']:.2f}  {row[1] / ours['down']:.2f}"
        )


async def large_file(contender: Any, mebibytes: int, work: Path) -> None:
    """One large file up and down; run in a process of its own so that memory is its alone."""
    source = work / "large"
    target = work / "down" / type(contender).__name__ / "large"
    warm = work / "warm"
    warm.mkdir(exist_ok=True)
    (warm / "small").write_bytes(b"x")
    await contender.up(warm, "warm")  # so that no measurement has the imports in it
    os.sync()  # nor for what others left in the cache
    started = time.perf_counter()
    await contender.up(source, "large")
    up = time.perf_counter() - started
    os.sync()
    started = time.perf_counter()
    await contender.down("large", target)
    down = time.perf_counter() - started
    shutil.rmtree(target)
    await contender.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{mebibytes / up:.1f} {mebibytes / down:.1f} {peak:.0f}")


@dataclass
class Large:
    """Rates of one large file in several turns: MiB/s up and down; and the peak of memory.

    What counts is the median. A disk that is busy with what came before makes single turns twice
    as slow, and one that is not makes others twice as fast.
    """

    ups: list[float] = field(default_factory=list)
    downs: list[float] = field(default_factory=list)
    peak: float = 0.0

    @property
    def up(self) -> float:
        """MiB/s."""
        return statistics.median(self.ups)

    @property
    def down(self) -> float:
        """MiB/s."""
        return statistics.median(self.downs)

    def take_turn(self, folder: Path, mebibytes: int, url: str, *contender: str) -> None:
        """Run it once in a fresh process."""
        done = subprocess.run(
            [sys.executable, __file__, "--one", str(mebibytes), str(folder), *contender],
            env={**os.environ, "BENCH_BLOB_URL": url},
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        up, down, peak = map(float, done.stdout.split())
        self.ups.append(up)
        self.downs.append(down)
        self.peak = max(self.peak, peak)

    def __str__(self) -> str:
        return f"up {self.up:6.1f}  down {self.down:6.1f} MiB/s  peak memory {self.peak:.0f} MiB"


def compare_large(mebibytes: int, rounds: int) -> None:
    """One file with ours, and with the SDK at the settings that suit it best.

    Those are searched for with a smaller file first, for uploads and for downloads, without checks
    and with an MD5 for each block. The SDK checks blocks of at most 4 MiB when it downloads. Ours
    runs both ways as well; with checks it also keeps the MD5 of the whole, which the SDK does not.
    """
    with temporary_folder() as folder, AzuriteServer(folder=folder / "azurite-data") as azurite:
        (folder / "large").mkdir()

        def make(size: int) -> None:
            with (folder / "large" / "file.bin").open("wb") as file:
                for _ in range(size):
                    file.write(os.urandom(1 << 20))

        part = max(mebibytes // 4, 64)
        make(part)
        tried: dict[tuple[str, str, str], Large] = {}
        for _ in range(2):
            for setting in itertools.product(("4", "8", "16", "64"), ("1", "4", "8"), "01"):
                large = tried.setdefault(setting, Large())
                large.take_turn(folder, part, azurite.blob_url, "Sdk", *setting)
        print(f"the SDK with one file of {part} MiB: blocks of MiB x blocks at a time")
        for (block, parallel, checked), large in tried.items():
            how = "checked" if checked == "1" else ""
            print(f"{block:>4} x {parallel} {how:8} {large}")
        make(mebibytes)
        turns: dict[tuple[str, ...], Large] = {("Ours", "1"): Large(), ("Ours", "0"): Large()}
        for checked, way in itertools.product("01", ("up", "down")):
            some = [setting for setting in tried if setting[2] == checked]
            best = max(some, key=lambda setting: float(getattr(tried[setting], way)))
            turns[("Sdk", *best)] = Large()
        for _ in range(rounds):
            for contender, large in turns.items():
                large.take_turn(folder, mebibytes, azurite.blob_url, *contender)
    print(f"one file of {mebibytes} MiB, median of {rounds}")
    for contender, large in turns.items():
        print(f"{' '.join(contender):12} {large}")
    for ours, sdk, what in (
        ("1", "1", "both with an MD5 for each block"),
        ("0", "0", "both unchecked"),
        ("1", "0", "ours checked, the SDK unchecked"),
    ):
        mine = turns["Ours", ours]
        others = [large for contender, large in turns.items() if contender[3:] == (sdk,)]
        up, down = (max(getattr(other, way) for other in others) for way in ("up", "down"))
        print(f"ours as a multiple of the SDK's best, {what}:", end=" ")
        print(f"up {mine.up / up:.2f}, down {mine.down / down:.2f}")


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--size", type=int, default=16 * 1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--large", type=int, default=0, metavar="MIB")
    parser.add_argument("--only", nargs="*", default=["Ours", "Obstore", "Adlfs", "Sdk"])
    parser.add_argument("--commands", action="store_true", help="compare programs as well")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        mebibytes, folder, name, *setting = arguments.one
        azurite = AzuriteServer()
        azurite.blob_url = os.environ["BENCH_BLOB_URL"]
        contender = globals()[name](azurite, 4, *map(int, setting))
        asyncio.run(large_file(contender, int(mebibytes), Path(folder)))
        return
    kinds = [globals()[name] for name in arguments.only]
    if arguments.count:
        asyncio.run(
            small_files(
                kinds, arguments.count, arguments.size, arguments.rounds, arguments.concurrency
            )
        )
    if arguments.commands:
        found = [kind for kind in (Rclone, Azcopy) if shutil.which(kind.__name__.lower())]
        programs = [Mirror, *found]
        asyncio.run(
            small_files(
                programs, arguments.count, arguments.size, arguments.rounds, arguments.concurrency
            )
        )
    if arguments.large:
        compare_large(arguments.large, arguments.rounds)


if __name__ == "__main__":
    main()
