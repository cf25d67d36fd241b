"""An S3 that is not ours: moto's server, a process of its own on loopback, which checks every signature."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

BUCKET, FORBIDDEN_BUCKET = "archive", "someone-elses"
REGION = "eu-central-1"
_SETUP_CALLS = 5
_START_S = 60
# The least that the archive needs.
_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["s3:PutObject", "s3:GetObject", "s3:AbortMultipartUpload"],
            "Resource": f"arn:aws:s3:::{BUCKET}/*",
        },
        # For the tests' own questions.
        {"Effect": "Allow", "Action": ["s3:ListBucket*"], "Resource": f"arn:aws:s3:::{BUCKET}"},
    ],
}


@dataclass(frozen=True)
class S3Server:
    """A server with a user who may write and read in `BUCKET`, and not in `FORBIDDEN_BUCKET`."""

    port: int
    access_key: str
    secret_key: str
    log: Path

    def variables(self, port: int | None = None) -> dict[str, str]:
        """The environment of somebody who uses it, through a proxy on `port` if there is one."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port or self.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": REGION,
        }

    def sizes(self, prefix: str) -> dict[str, int]:
        """The objects below a prefix that can be read, with their sizes in bytes."""
        listed = self._client().list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return {entry["Key"]: entry["Size"] for entry in listed.get("Contents", [])}

    def parts(self, key: str) -> int:
        """How many parts an object was made of; 0 when it came in one request."""
        etag: str = self._client().head_object(Bucket=BUCKET, Key=key)["ETag"]
        return int(etag.strip('"').partition("-")[2] or 0)

    def answers(self, method: str, prefix: str) -> list[int]:
        """The statuses that requests for objects below a prefix were answered with, in order."""
        line = rf'"\S*{method} /{BUCKET}/{re.escape(prefix)}\S* HTTP/1.1\S*" (\d+)'
        return [int(status) for status in re.findall(line, self.log.read_text("utf-8"))]

    def unfinished_uploads(self) -> list[str]:
        """Names of the objects of which only parts are there."""
        listed = self._client().list_multipart_uploads(Bucket=BUCKET)
        return [entry["Key"] for entry in listed.get("Uploads", [])]

    def _client(self) -> Any:
        return _client("s3", self.port, self.access_key, self.secret_key)


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """A server for a block; what it says goes to a file in `folder`."""
    log = folder / "s3-server.log"
    environment = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": str(_SETUP_CALLS)}
    with log.open("wb") as output:
        command = [sys.executable, "-m", "moto.server", "-p", "0"]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        port = _port(process, log)
        yield S3Server(port, *_set_up(port), log)
    finally:
        process.kill()
        process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        if told := re.search(r"Running on http://127\.0\.0\.1:(\d+)", log.read_text("utf-8")):
            return int(told[1])
        time.sleep(0.05)
    raise AssertionError(f"the S3 server did not start:\n{log.read_text('utf-8')}")


def _set_up(port: int) -> tuple[str, str]:
    """These are the calls that nobody has to sign. All others have to come from the user that is made here."""
    iam, s3 = (_client(service, port, "nobody", "nothing") for service in ("iam", "s3"))
    iam.create_user(UserName="archiver")
    iam.put_user_policy(UserName="archiver", PolicyName="archive", PolicyDocument=json.dumps(_POLICY))
    key = iam.create_access_key(UserName="archiver")["AccessKey"]
    for bucket in (BUCKET, FORBIDDEN_BUCKET):
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    return key["AccessKeyId"], key["SecretAccessKey"]


def _client(service: str, port: int, access_key: str, secret_key: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name=REGION,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
    )
