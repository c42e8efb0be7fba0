"""service/build-release: what makes a new release, what is refused, and the id a host will see."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "service/build-release"


@pytest.fixture
def release() -> ModuleType:
    loader = SourceFileLoader("build_release", str(SCRIPT))
    spec = spec_from_loader("build_release", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def wheel(folder: Path, requirement: str) -> None:
    with zipfile.ZipFile(folder / "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl", "w") as file:
        file.writestr(
            "torch-2.13.0.dist-info/METADATA",
            f"Name: torch\nRequires-Dist: sympy\nRequires-Dist: {requirement}\n",
        )


def test_a_torch_that_wants_nvidias_packages_is_refused_with_the_remedy(
    release: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel(tmp_path, 'nvidia-cudnn-cu13 (==9.19.0) ; platform_system == "Linux"')
    with pytest.raises(SystemExit) as stopped:
        release.refuse_gpu_torch(tmp_path)
    assert stopped.value.code == 1
    assert "PIP_EXTRA_INDEX_URL" in capsys.readouterr().err


def test_a_cpu_torch_is_taken(release: ModuleType, tmp_path: Path) -> None:
    wheel(tmp_path, "filelock")
    release.refuse_gpu_torch(tmp_path)


@pytest.mark.parametrize(
    ("version", "cuda", "said"),
    [("2.13.0+cpu", "None", "2.13.0+cpu"), ("2.13.0+cu126", "'12.6'", "2.13.0+cu126"),
     ("2.13.0", "None", "2.13.0+cpu"), ("2.13.0", "'13.0'", "2.13.0+cu130")],
)  # fmt: skip
def test_the_manifest_names_the_build_of_torch(
    release: ModuleType, tmp_path: Path, version: str, cuda: str, said: str
) -> None:
    with zipfile.ZipFile(tmp_path / f"torch-{version}-cp311-cp311-manylinux_2_28_x86_64.whl", "w") as file:
        file.writestr(
            "torch/version.py",
            f"__version__ = '{version}'\ndebug = False\ncuda: Optional[str] = {cuda}\nhip: Optional[str] = None\n",
        )
    assert release.torch_build(tmp_path) == said


@pytest.mark.parametrize(
    ("path", "rebuilds"),
    [
        ("outpost/inference/brain.py", True),
        ("bundles/brain_extraction/outpost.yaml", True),
        ("Dockerfile", True),
        ("requirements-image.txt", True),
        ("outpost/demo/series.py", False),
        ("outpost/inference/__pycache__/brain.pyc", False),
    ],
)
def test_a_release_is_built_anew_only_when_something_in_it_changed(
    release: ModuleType, tmp_path: Path, path: str, rebuilds: bool
) -> None:
    for name in ("Dockerfile", "build-release", "requirements-image.txt", path):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before")
    release.SERVICE = tmp_path
    before = release.digest_of_inputs("0.1.0", None)
    assert release.digest_of_inputs("0.1.0", None) == before
    (tmp_path / path).write_text("after")
    assert (release.digest_of_inputs("0.1.0", None) != before) is rebuilds


def test_another_version_or_base_is_another_release(release: ModuleType) -> None:
    inputs = {
        release.digest_of_inputs(version, base)
        for version in ("0.1.0", "0.2.0")
        for base in (None, "astra:1.8")
    }
    assert len(inputs) == 4


def test_a_release_without_its_whole_archive_does_not_count(release: ModuleType, tmp_path: Path) -> None:
    manifest = '{"inputs": "abc", "image": {"archive": "image.tar.gz", "archive_bytes": 5}}'
    (tmp_path / "manifest.json").write_text(manifest)
    assert not release.is_built(tmp_path, "abc")
    (tmp_path / "image.tar.gz").write_bytes(b"1234")
    assert not release.is_built(tmp_path, "abc")
    (tmp_path / "image.tar.gz").write_bytes(b"12345")
    assert release.is_built(tmp_path, "abc")
    assert not release.is_built(tmp_path, "abd")


@pytest.fixture
def saved_image(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A tiny image as `docker save` writes it, and the id Docker gave it."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as rootfs:
        rootfs.addfile(tarfile.TarInfo("empty"))
    command = ["docker", "import", "-", "outpost-test:release"]
    name = (
        subprocess.run(command, input=content.getvalue(), capture_output=True, check=True)
        .stdout.decode()
        .strip()
    )
    saved = subprocess.run(["docker", "save", "outpost-test:release"], capture_output=True, check=True).stdout
    (tmp_path / "image.tar.gz").write_bytes(gzip.compress(saved, 1))
    yield tmp_path / "image.tar.gz", name
    subprocess.run(["docker", "rmi", "outpost-test:release"], capture_output=True, check=True)


def test_the_manifest_tells_the_id_a_host_will_see(
    release: ModuleType, saved_image: tuple[Path, str]
) -> None:
    archive, name = saved_image
    assert release.image_id(archive) == name


def test_an_archive_cut_short_is_not_released(release: ModuleType, saved_image: tuple[Path, str]) -> None:
    archive, _ = saved_image
    archive.write_bytes(archive.read_bytes()[:-400])
    with pytest.raises((EOFError, tarfile.ReadError, SystemExit)):
        release.image_id(archive)


def test_the_bundles_in_the_manifest_name_their_weights(release: ModuleType) -> None:
    weights = {bundle["name"]: set(bundle["weights_sha256"]) for bundle in release.bundles()}
    assert weights == {
        "brain_extraction": {"data/models/bbox_model.pt", "data/models/model.pt"},
        "radiograph_orientation": {"models/network.pt"},
    }


def test_builds_of_the_checkout_are_named_by_content_and_only_two_are_kept(
    release: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "DIST", tmp_path)
    monkeypatch.setattr(release, "docker", lambda *_arguments, check: None)
    declared = release.declared_version()
    assert release.development_version(None).startswith(f"{declared}-")
    for age, name in enumerate(
        (f"{declared}-00000003", f"{declared}-00000002", f"{declared}-00000001", declared)
    ):
        (tmp_path / "releases" / name).mkdir(parents=True)
        os.utime(tmp_path / "releases" / name, (1000 - age, 1000 - age))
    release.make_current(f"{declared}-00000003")
    release.forget_old_builds()
    left = {path.name for path in (tmp_path / "releases").iterdir()}
    assert left == {f"{declared}-00000003", f"{declared}-00000002", declared, "current"}
    assert (tmp_path / "releases/current").read_text() == f"{declared}-00000003\n"
