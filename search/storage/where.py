"""`--runs`: a folder, or the address of one in a bucket.

Buckets are read and written by pyarrow, which Ray Tune brings along: there is nothing to install for them. Credentials
are found as the cloud's own tools find them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from evaluation.errors import InputError, first_line
from search.paths import RunFolder

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

SCHEMES = ("s3", "gs", "az", "hf")
PROBE = ".embtune-probe"


@dataclass(frozen=True)
class Where:
    """Where runs are kept.

    Attributes:
        folder: of all runs, on this machine.
        url: of all runs, where `folder` is this machine's copy of them; empty: `folder` is where they are.
    """

    folder: Path
    url: str = ""

    @classmethod
    def of(cls, runs: str | Path) -> Where:
        """What `--runs` says.

        Raises:
            InputError: the address of something that is no bucket.
        """
        scheme, bucket = urlsplit(str(runs)).scheme, urlsplit(str(runs)).netloc
        if "://" not in str(runs):
            return cls(Path(runs))
        if scheme not in SCHEMES or not bucket:
            known = ", ".join(f"{name}://BUCKET/FOLDER" for name in SCHEMES)
            raise InputError(f"--runs {runs}: expected a folder that every node sees, or {known}")
        url = str(runs).rstrip("/")
        return cls(copy_of(url), url)

    def run(self, name: str) -> tuple[Path, str]:
        """Folder of a run on this machine, and its address in the bucket, empty where it is kept in the folder."""
        return (self.folder / name).resolve(), self.url and f"{self.url}/{name}"


def copy_of(url: str) -> Path:
    """This machine's copy of what is at an address: in EMBTUNE_CACHE, else in the user's cache."""
    cache = os.environ.get("EMBTUNE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "embtune")
    parts = urlsplit(url)
    return Path(cache).expanduser() / "runs" / parts.scheme / parts.netloc / parts.path.strip("/")


def file_system(url: str) -> tuple[FileSystem, str]:
    """The file system that an address is in, and the path in it."""
    from pyarrow import fs

    parts = urlsplit(url)
    path = f"{parts.netloc}/{parts.path.strip('/')}"
    if parts.scheme == "s3":
        named = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        region = named or (None if endpoint else fs.resolve_s3_region(parts.netloc))
        return fs.S3FileSystem(region=region, endpoint_override=endpoint), path
    if parts.scheme == "gs":
        return fs.GcsFileSystem(), path
    if parts.scheme == "az":
        account = os.environ.get("AZURE_STORAGE_ACCOUNT")
        if not account:
            raise OSError("AZURE_STORAGE_ACCOUNT does not name the account")
        return fs.AzureFileSystem(account_name=account), path
    found: tuple[FileSystem, str] = fs.FileSystem.from_uri(url)
    return found


def spec_file(where: Where, name: str) -> Path:
    """The spec.json of a run, fetched where it is in a bucket; it need not be there."""
    folder, url = where.run(name)
    spec = RunFolder(folder).spec
    if url:
        require_bucket(where.url)
        system, path = file_system(url)
        if system.get_file_info(f"{path}/{spec.name}").size:
            folder.mkdir(parents=True, exist_ok=True)
            with system.open_input_stream(f"{path}/{spec.name}") as source:
                spec.write_bytes(source.read())
    return spec


def require_bucket(url: str, workers: int = 1) -> None:
    """Write to the bucket and read it back.

    Args:
        workers: processes of one trial.

    Raises:
        InputError: that cannot be done, or a trial would run in several processes, which share a folder.
    """
    if workers > 1:
        raise InputError(
            f"--runs {url}: beside resources.workers {workers}; expected a folder that every node sees, or workers 1"
        )
    try:
        system, path = file_system(url)
        with system.open_output_stream(f"{path}/{PROBE}") as out:
            out.write(b"x")
        with system.open_input_stream(f"{path}/{PROBE}") as back:
            back.read()
        system.delete_file(f"{path}/{PROBE}")
    except Exception as error:  # pyarrow and huggingface_hub have errors of many kinds
        raise InputError(
            f"--runs {url}: cannot be written ({first_line(error)}); expected a bucket that is there, and credentials "
            "as its cloud's own tools find them"
        ) from None
