"""A DICOMweb server behind a proxy: asked through it only where the configuration names it."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file
from pydicom.filereader import read_file_meta_info

from outpost.config import Destination
from outpost.delivery.scu import PeerUnreachable
from outpost.delivery.stow import StowPeer

BEHIND = "http://archive.invalid/dicom-web/studies"


class Proxy(BaseHTTPRequestHandler):
    """A proxy whose other side says that every instance is stored; it keeps the address that it was asked for."""

    asked: list[str]
    instance: str
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        type(self).asked.append(self.path)
        while size := int(self.rfile.readline().strip() or b"0", 16):
            self.rfile.read(size + 2)
        self.rfile.readline()
        stored = {"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [self.instance]}}]}}
        body = json.dumps(stored).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "x.dcm"
    shutil.copy(str(get_testdata_file("MR_small.dcm")), file)
    return file


@pytest.fixture
def proxy(image: Path) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    instance = str(read_file_meta_info(image).MediaStorageSOPInstanceUID)
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), type("OneProxy", (Proxy,), {"asked": asked, "instance": instance})
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_result_goes_by_the_proxy_that_the_configuration_names(
    image: Path, proxy: tuple[str, list[str]]
) -> None:
    address, asked = proxy
    StowPeer(BEHIND, "", None, address).store(image)
    assert asked == [BEHIND]


def test_a_proxy_of_the_environment_never_sees_a_result(
    image: Path, proxy: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, asked = proxy
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, address)
    with pytest.raises(PeerUnreachable):
        StowPeer(BEHIND, "", None).store(image)
    assert asked == []


def test_a_proxy_is_refused_where_it_would_count_for_nothing() -> None:
    assert Destination(name="pacs", stow_url=BEHIND, stow_proxy="http://proxy:3128").stow_proxy
    with pytest.raises(ValueError, match="stow_proxy without stow_url"):
        Destination(name="pacs", ae_title="PACS", host="pacs", port=104, stow_proxy="http://proxy:3128")
    # A password belongs in no log, and this key is printed.
    with pytest.raises(ValueError, match="stow_proxy"):
        Destination(name="pacs", stow_url=BEHIND, stow_proxy="http://user:word@proxy:3128")
