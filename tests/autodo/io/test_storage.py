"""Locations on a file system and in a real S3 server on this machine."""

import contextlib
import http.server
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autodo.errors import StoreError
from autodo.io.atomic import atomic_path
from autodo.io.storage import Location, locate
from autodo.io.uri import check_uri, is_uri, without_secrets
from autodo.results import records
from tests.conftest import point_to


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    return locate(
        tmp_path / "root" if request.param == "local" else f"{request.getfixturevalue('bucket')}/folder/root/"
    )


def test_reading_returns_what_was_written(root: Location, tmp_path: Path) -> None:
    file = root / "runs" / "a" / "log.txt"
    assert not file.exists()
    assert not root.exists()
    with pytest.raises(FileNotFoundError):
        file.read_bytes()
    with pytest.raises(FileNotFoundError):
        file.fetch(tmp_path / "copy")
    file.write_bytes(b"first")
    file.write_text("secönd")
    assert file.exists()
    assert root.exists()
    assert file.read_text() == "secönd"
    assert file.read_tail(3) == "secönd".encode()[-3:]
    assert file.read_tail(100) == "secönd".encode()
    file.fetch(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == "secönd".encode()
    (root / "other").upload(tmp_path / "copy")
    assert locate(root.uri).__truediv__("other").read_text() == "secönd"
    (root / "empty").write_bytes(b"")
    assert (root / "empty").read_bytes() == b""
    file.delete()
    file.delete()
    assert not file.exists()


def test_names_in_a_folder_are_without_hidden_ones(root: Location) -> None:
    assert (root / "none").names() == set()
    for name in ("a", "b", ".c"):
        (root / "runs" / name / "config.json").write_bytes(b"{}")
    (root / "runs" / "a" / "failure.json").write_bytes(b"{}")
    (root / "runs" / "file").write_bytes(b"")
    (root / "empty").make_folder()
    assert (root / "empty").names() == set()
    assert root.names() == {"runs", "empty"}
    assert (root / "runs").names() == {"a", "b", "file"}
    names = {"a": {"config.json", "failure.json"}, "b": {"config.json"}, "file": set(), "x": set()}
    assert (root / "runs").names_in(names) == names
    many = names | {f"x{i}": set() for i in range(100)}
    assert (root / "runs").names_in(many) == many


def test_a_large_table_survives(root: Location) -> None:
    table = pa.table({"run_id": ["a"] * 1_000_000, "value": pa.array(range(1_000_000), pa.float64())})
    file = root / "points" / "a.parquet"

    def write(path: Path) -> None:
        with atomic_path(path) as temporary:
            pq.write_table(table, temporary, compression="none", use_dictionary=False)

    file.write_atomic(write)
    assert file.read_parquet(["value"]) == table.select(["value"])


def test_a_failed_write_keeps_the_old_file(root: Location) -> None:
    file = root / "a"
    file.write_text("old")

    def fail(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="a: cannot be written: No space left on device"):
        file.write_atomic(fail)
    assert file.read_text() == "old"
    assert root.names() == {"a"}


def test_names_cannot_leave_the_folder(root: Location) -> None:
    for name in ("..", ".", "", "a/b", "/etc"):
        with pytest.raises(AssertionError):
            root / name


def test_a_file_uri_is_a_path(tmp_path: Path) -> None:
    place = locate(f"file://{tmp_path}/a%20b")
    assert place.local == tmp_path / "a b"
    assert str(place) == f"{tmp_path}/a b"


def test_a_relative_path_prints_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = locate("S") / "runs"
    assert (str(place), place.uri) == ("S/runs", str(tmp_path / "S" / "runs"))


def test_links_that_lead_out_are_not_followed(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    root.mkdir()
    (root / "inside").write_text("inside")
    (root / "file").symlink_to(outside / "secret")
    (root / "folder").symlink_to(outside)
    (root / "good").symlink_to(root / "inside")
    os.mkfifo(root / "pipe")
    place = locate(root)
    assert place.names() == {"inside", "good"}
    assert (place / "good").read_text() == "inside"
    for name in ("file", "folder"):
        with pytest.raises(StoreError, match="leads out of the store"):
            (place / name).read_bytes()
    with pytest.raises(StoreError, match="leads out of the store"):
        (place / "folder" / "new").write_text("x")
    with pytest.raises(StoreError, match="leads out of the store"):
        (place / "folder" / "secret").delete()
    with pytest.raises(StoreError, match="not a regular file"):
        (place / "pipe").read_bytes()
    (place / "file").write_text("new")  # replaces the link
    assert (outside / "secret").read_text() == "secret"
    assert (place / "file").read_text() == "new"
    # The root itself may be a link.
    (tmp_path / "link").symlink_to(root)
    assert (locate(tmp_path / "link") / "inside").read_text() == "inside"


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIA123:c2Vj/cm+V0@bucket/store",
        "s3://AKIA123@bucket/store",
        "s3://bucket/store?access_key=AKIA123&secret_key=c2Vj",
        "abfs://:c2Vj@account.dfs.core.windows.net/container",
        "abfs://container@account.dfs.core.windows.net/x?sas_token=c2Vj",
        "gs://bucket/x?token=c2Vj",
    ],
)
def test_credentials_in_a_uri_are_refused_and_not_printed(uri: str) -> None:
    with pytest.raises(StoreError, match="contains credentials") as caught:
        locate(uri)
    assert "c2Vj" not in str(caught.value)
    assert "AKIA123" not in str(caught.value)
    assert "c2Vj" not in without_secrets(uri)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s4://bucket/x", "s4://bucket/x: unknown scheme 's4'; known: s3, gs, gcs, abfs, abfss, file, or a path"),
        ("s3://", "s3://: names no bucket"),
        ("s3:///x", "s3:///x: names no bucket"),
        ("s3://bucket/x?frob=1", "s3://bucket/x: cannot be used: Unexpected query parameter in S3 URI: 'frob'"),
        ("file://host/x", "file://host/x: names the host 'host'"),
    ],
)
def test_errors_of_uris_are_one_line(uri: str, message: str) -> None:
    with pytest.raises(StoreError) as caught:
        locate(uri)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_containers_are_not_secrets() -> None:
    for uri in ("abfss://container@account.dfs.core.windows.net/x", "gs://anonymous@bucket/x", "s3://bucket/a@b/c"):
        check_uri(uri)
        assert without_secrets(uri) == uri
    assert not is_uri("runs/a://b")
    assert not is_uri("C:/x")


def test_query_options_are_kept_in_the_uri_and_not_printed(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    place = locate(f"{bucket}/x?endpoint_override={endpoint}&scheme=http&region=us-east-1") / "a"
    place.write_text("hello")
    assert str(place) == f"{bucket}/x/a"
    assert locate(place.uri).read_text() == "hello"


def test_the_error_of_a_missing_bucket_is_one_line(bucket: str) -> None:
    place = locate(f"{bucket}-none/x")
    assert place.names() == set()
    with pytest.raises(StoreError, match="x/a: cannot be written: NO_SUCH_BUCKET") as caught:
        (place / "a").write_bytes(b"1")
    assert "\n" not in str(caught.value)
    assert "Request ID" not in str(caught.value)


@pytest.mark.parametrize("action", ["exists", "names", "read_bytes", "delete", "make_folder"])
def test_an_unreachable_server_fails_within_seconds(action: str, monkeypatch: pytest.MonkeyPatch) -> None:
    point_to("http://127.0.0.1:9", monkeypatch)
    started = time.monotonic()
    with pytest.raises(StoreError, match=r"^s3://gone/store.*: cannot be .*Could not connect to server") as caught:
        getattr(locate("s3://gone/store"), action)()
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 20


@contextlib.contextmanager
def refusing_server() -> Iterator[str]:
    """An S3 server that rejects the credentials."""
    body = b"<Error><Code>InvalidAccessKeyId</Code><Message>The key does not exist.</Message></Error>"

    class Handler(http.server.BaseHTTPRequestHandler):
        def refuse(self) -> None:
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PUT = refuse

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_error_of_wrong_credentials_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with refusing_server() as url:
        point_to(url, monkeypatch)
        place = locate("s3://refused/store")
        for action in (place.exists, place.names, place.make_folder):
            with pytest.raises(StoreError, match=r"check the credentials in the environment") as caught:
                action()
            assert "\n" not in str(caught.value)


def test_records_are_written_through_a_location(root: Location) -> None:
    rows = records.SCHEMAS["epochs"].empty_table()
    file = root / "epochs" / "a.parquet"
    file.write_atomic(lambda path: records.write("epochs", rows, path))
    assert file.read_parquet() == rows
