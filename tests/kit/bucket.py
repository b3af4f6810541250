"""An S3 server on this machine: moto's, in an environment of its own, since it asks for older packages than embtune."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOTO = Path(sys.prefix) / "moto" / "bin" / "moto_server"
BUCKET = "runs"


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Start it, with one bucket. Yields the environment variables that lead a process to it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([str(MOTO), "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not _answers(f"{url}/{BUCKET}"):
            assert server.poll() is None, f"{MOTO} ended"
            assert time.monotonic() < deadline, f"{MOTO} does not answer"
            time.sleep(0.05)
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    finally:
        server.kill()
        server.wait()


def _answers(bucket: str) -> bool:
    """Make the bucket, once the server takes requests."""
    try:
        urllib.request.urlopen(urllib.request.Request(bucket, method="PUT"), timeout=5).close()
    except OSError:
        return False
    return True


def only_these(environment: dict[str, str]) -> dict[str, str]:
    """This process's environment, led to the server and nowhere else."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | environment
