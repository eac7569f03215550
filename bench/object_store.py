"""Compare an upload through the gateway into MinIO with a raw PUT of the same bytes to the same MinIO."""

import argparse
import contextlib
import http.client
import os
import tempfile
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from minio import Minio
from qcstack.demo.rest import RestClient
from qcstack.minio import MinioMissingError, MinioServer, minio_binary
from run import MIB, random_disk, stack, timed

BUCKET = "raw"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upload-mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    try:
        minio_binary()
    except MinioMissingError as exc:
        print(f"upload into MinIO: not measured, {exc}")
        return
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp", prefix="qc-bench-") as scratch,
        MinioServer(Path(scratch, "minio")) as server,
    ):
        disk = random_disk(Path(scratch, "disk.raw"), arguments.upload_mib)
        client = Minio(
            server.endpoint,
            access_key=server.access_key_file.read_text(encoding="ascii").strip(),
            secret_key=server.secret_key_file.read_text(encoding="ascii").strip(),
            secure=False,
        )
        client.make_bucket(BUCKET)
        # The stack's own file names a directory; variables go over it.
        os.environ |= {
            "QC_IMAGE_STORE_DIRECTORY__PATH": "",
            "QC_IMAGE_STORE_S3__ENDPOINT": server.endpoint,
            "QC_IMAGE_STORE_S3__BUCKET": "images",
            "QC_IMAGE_STORE_S3__ACCESS_KEY_FILE": str(server.access_key_file),
            "QC_IMAGE_STORE_S3__SECRET_KEY_FILE": str(server.secret_key_file),
        }
        with stack() as layout:
            rest = RestClient(layout.gateway_port, lambda _curl: None)
            raw, through = [], []
            for _ in range(arguments.rounds):
                url = client.presigned_put_object(BUCKET, "disk")
                raw.append(timed(partial(put, url, disk)))
                client.remove_object(BUCKET, "disk")
                through.append(
                    timed(lambda: rest.upload("/v1/images/bench", disk, lambda _done, _total: None))
                )
                rest.call("DELETE", "/v1/images/bench")
    best_raw, best_through = (arguments.upload_mib / min(times) for times in (raw, through))
    print(
        f"upload into MinIO: {best_through:.0f} MiB/s; raw PUT: {best_raw:.0f} MiB/s; "
        f"ratio {best_through / best_raw:.2f} (best of {arguments.rounds})"
    )


def put(url: str, disk: Path) -> None:
    """Send the disk in one request, without a client that does anything else."""
    target = urlsplit(url)
    connection = http.client.HTTPConnection(target.netloc, blocksize=MIB)
    with contextlib.closing(connection), disk.open("rb") as body:
        headers = {"Content-Length": str(disk.stat().st_size)}
        connection.request("PUT", f"{target.path}?{target.query}", body, headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"MinIO answered the PUT with {answer.status}")


if __name__ == "__main__":
    main()
