"""What fault tests share with service tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from running import StoreScp


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[StoreScp]:
    """DCMTK's storescp, running."""
    pacs = StoreScp(tmp_path / "pacs").start()
    yield pacs
    pacs.stop()
