"""A service whose model fails as a test wants it to, and the studies to send to it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from mr_series import ball, write_mr_series
from pydicom import dcmread
from running import BUNDLE, Service

from outpost.inference.golden import write_golden
from outpost.inference.phantom import head_phantom

HERE = Path(__file__).resolve().parent


def write_bundle(folder: Path, sizes: Sequence[int] = (256, 128), memory_mib: int = 200) -> Path:
    """The bundle that comes with Outpost, with the switchable model in place of its networks."""
    shutil.copytree(BUNDLE, folder)
    config = json.loads((folder / "configs/inference.json").read_text())
    config["inferer"] = {"_target_": "switchable_model.SwitchableModel", "edge": "@sizes#edge"}
    (folder / "configs/inference.json").write_text(json.dumps(config))
    manifest = yaml.safe_load((folder / "outpost.yaml").read_text())
    manifest["sizes"] = [
        {"name": "full" if size == sizes[0] else str(size), "values": {"edge": size}, "tolerance": 0.99}
        for size in sizes
    ]
    manifest["engines"]["candidates"] = []
    manifest["resources"]["memory_mib"] = memory_mib
    (folder / "outpost.yaml").write_text(yaml.safe_dump(manifest))
    write_golden(head_phantom() > 45, folder / "golden/head_phantom.npz")
    return folder


class SwitchableService(Service):
    """`outpost serve` on the switchable bundle. `fault` switches; `study` makes one to send."""

    def __init__(
        self,
        root: Path,
        destinations: Sequence[tuple[str, int]],
        *,
        sizes: Sequence[int] = (256, 128),
        **sections: dict[str, Any],
    ) -> None:
        inference = {
            "bundle": str(write_bundle(root / "bundle", sizes)),
            "timeout_seconds": 20,
            "golden_period_seconds": 60,
            "optimise_after_idle_seconds": 0,
            **sections.pop("inference", {}),
        }
        super().__init__(root, destinations, inference=inference, **sections)
        self._fault_file = root / "fault.json"
        self._studies = 0

    def start(self, environment: dict[str, str] | None = None) -> SwitchableService:
        paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        super().start(
            {
                "OUTPOST_TEST_FAULT": str(self._fault_file),
                "PYTHONPATH": os.pathsep.join(paths),
                **(environment or {}),
            }
        )
        return self

    def fault(self, kind: str | None = None, **details: Any) -> None:
        """Switch a fault on; without a kind, all is well again."""
        if kind is None:
            self._fault_file.unlink(missing_ok=True)
            return
        written = self._fault_file.with_suffix(".new")
        written.write_text(json.dumps({"kind": kind, **details}))
        written.replace(self._fault_file)

    def send_study(self, shape: tuple[int, int, int] = (70, 64, 72)) -> str:
        """Send a new study of (slices, rows, columns); returns its UID once every instance is acknowledged."""
        self._studies += 1
        folder = self.root / f"study-{self._studies}"
        files = write_mr_series(folder, ball(shape, value=500))
        sent = self.storescu(folder)
        assert sent.returncode == 0, sent.stderr
        return str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)

    def ready(self) -> bool:
        return bool(self.http.get("/v2/health/ready").status_code == 200)

    def events(self) -> list[str]:
        """Codes of what the service decided by itself, oldest first; read from the journal's own file."""

        with sqlite3.connect(self.storage / "journal.sqlite3") as journal:
            return [row[0] for row in journal.execute("SELECT code FROM events ORDER BY id")]
