"""Host images: built once, found again by the hash of everything that went into them.

A tag is `outpost-lab/<image>:<hash>`; the hash covers the image's directory, what it shares, its parent's tag
and its build arguments. Same hash, same image: nothing is built twice, and labs share images.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from outpost_lab import apt_sources, rpm_key
from outpost_lab.commands import as_root, docker, docker_command, run
from outpost_lab.errors import LabError
from outpost_lab.progress import step
from outpost_lab.settings import REPOSITORY, Settings

IMAGES = REPOSITORY / "lab" / "images"
REPOSITORY_PREFIX = "outpost-lab/"

# Machine settings apt inside the images needs as well: proxies, and mirrors that are snapshots of a day.
_APT_OPTIONS = (
    "Acquire::http::Proxy",
    "Acquire::https::Proxy",
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
)


@dataclass(frozen=True)
class Recipe:
    """How an image is made: FROM `parent` (ours or a vendor's), with these directories of lab/images."""

    parent: str
    directories: tuple[str, ...]
    needs_rpm_key: bool = False


RECIPES: Mapping[str, Recipe] = {
    "ubuntu": Recipe("base", ("ubuntu", "host")),
    "astra": Recipe("base", ("astra", "host")),
    "rpm": Recipe("base", ("rpm",)),
    "redos": Recipe("rpm", ("redos", "host"), needs_rpm_key=True),
    "mirror": Recipe("base", ("mirror",)),
    "hospital": Recipe("base", ("hospital",)),
}


class ImageStore:
    """The images of one machine, as `settings` wants them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._tags: dict[str, str] = {}

    def tag(self, image: str) -> str:
        """The tag `image` has, or will have once built."""
        if image not in self._tags:
            self._tags[image] = self._compute_tag(image)
        return self._tags[image]

    def _compute_tag(self, image: str) -> str:
        if image == "base":
            suite = self.settings.suite
            inputs = [*_base_sources(suite), *_base_apt_options(), suite]
            return _tag(image, content_hash([IMAGES / "base"], inputs))
        recipe, parent = self._recipe(image)
        inputs = [parent]
        if recipe.needs_rpm_key:
            inputs.append(rpm_key.public_key(self.settings))
        return _tag(image, content_hash([IMAGES / name for name in recipe.directories], inputs))

    def _recipe(self, image: str) -> tuple[Recipe, str]:
        """The recipe and the tag of its parent; a vendor's image replaces our own base."""
        vendor = self.settings.vendor_images.get(image)
        if vendor:
            directories = ("vendor-rpm", "host") if image == "redos" else ("vendor-deb", "host", "base")
            return Recipe(vendor, directories), vendor
        recipe = RECIPES[image]
        return recipe, self.tag(recipe.parent)

    def ensure(self, images: Iterable[str]) -> None:
        """Build what is missing of `images`, parents first, two at a time."""
        missing = self._missing(images)
        if "base" in missing:
            with step("image base"):
                self._build_base()
        if "rpm" in missing:
            with step("image rpm"):
                self._build("rpm")
        leaves = [image for image in missing if image not in ("base", "rpm")]
        with ThreadPoolExecutor(max_workers=2) as pool:
            for future in [pool.submit(self._build_announced, image) for image in leaves]:
                future.result()

    def _missing(self, images: Iterable[str]) -> list[str]:
        wanted: list[str] = []
        for image in images:
            chain = [image]
            while chain[-1] in RECIPES and chain[-1] not in self.settings.vendor_images:
                chain.append(RECIPES[chain[-1]].parent)
            wanted += [name for name in reversed(chain) if name not in wanted]
        present = set(docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").stdout.split())
        return [image for image in wanted if self.tag(image) not in present]

    def _build_announced(self, image: str) -> None:
        with step(f"image {image}"):
            self._build(image)

    def _build(self, image: str) -> None:
        """docker build with lab/images as context; the RPM key joins it, as it is made on the spot."""
        recipe, parent = self._recipe(image)
        with tempfile.TemporaryDirectory(prefix="outpost-lab-") as context:
            for directory in recipe.directories:
                shutil.copytree(IMAGES / directory, Path(context) / directory, symlinks=True)
            if recipe.needs_rpm_key:
                (Path(context) / "rpm-key").write_text(rpm_key.public_key(self.settings))
            arguments = ["--force-rm", "--build-arg", f"PARENT={parent}", "--tag", self.tag(image)]
            dockerfile = str(Path(context) / recipe.directories[0] / "Dockerfile")
            # The classic builder: BuildKit needs a plug-in that Debian's docker.io does not bring.
            *sudo, program = docker_command()
            build = [*sudo, "env", "DOCKER_BUILDKIT=0", program, "build", *arguments]
            with self._log(image).open("w") as log:
                run([*build, "-f", dockerfile, context], log=log)

    def _build_base(self) -> None:
        """mmdebstrap straight into docker import: no root file system is written to the machine's disk."""
        packages = [
            line for line in (IMAGES / "base" / "packages").read_text().split("\n") if line and line[0] != "#"
        ]
        bootstrap = [
            *as_root(),
            "mmdebstrap",
            "--variant=minbase",
            "--include=" + ",".join(packages),
            *(
                f"--dpkgopt={line}"
                for line in (IMAGES / "base" / "dpkg.cfg").read_text().splitlines()
                if line[:1] != "#"
            ),
            *(f"--aptopt={option}" for option in _base_apt_options()),
            self.settings.suite,
            "-",
            *_base_sources(self.settings.suite),
        ]
        if not shutil.which("mmdebstrap"):
            raise LabError("mmdebstrap is missing. Run lab/bootstrap, it installs what the lab needs.")
        # docker import takes a cut-off archive for a whole one; only a finished bootstrap gets the real tag.
        partial = self.tag("base") + "-partial"
        load = [*docker_command(), "import", "--change", 'CMD ["/bin/bash"]', "-", partial]
        with (
            self._log("base").open("w") as log,
            subprocess.Popen(
                bootstrap, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            ) as producer,
        ):
            loaded = subprocess.run(load, stdin=producer.stdout, stdout=log, stderr=log, check=False)
        if producer.returncode or loaded.returncode:
            words = Path(log.name).read_text().strip()[-1500:]
            raise LabError(f"The base image could not be built from Debian {self.settings.suite}: {words}")
        docker("image", "tag", partial, self.tag("base"))
        docker("image", "rm", partial)

    def _log(self, image: str) -> Path:
        directory = self.settings.directory / "logs"
        directory.mkdir(parents=True, exist_ok=True)
        return directory / f"image-{image}.log"

    def remove(self) -> int:
        """Remove all images the lab ever built on this machine that no container uses; how many went."""
        listed = docker(
            "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"{REPOSITORY_PREFIX}*"
        ).stdout.split()
        return sum(docker("image", "rm", tag, check=False).returncode == 0 for tag in listed)


def content_hash(directories: Iterable[Path], inputs: Iterable[str]) -> str:
    """sha256 (first 12 hex digits) over names, modes and bytes of all files, and over `inputs`, in order."""
    digest = hashlib.sha256()
    for directory in directories:
        for path in sorted(directory.rglob("*")):
            if path.is_symlink():
                content = str(path.readlink()).encode()
            elif path.is_file():
                content = path.read_bytes()
            else:
                continue
            executable = bool(path.lstat().st_mode & 0o100)
            head = f"{directory.name}/{path.relative_to(directory)} {executable} {len(content)}\n"
            digest.update(head.encode() + content)
    for text in inputs:
        digest.update(f"{len(text)}\n{text}".encode())
    return digest.hexdigest()[:12]


def _tag(image: str, digest: str) -> str:
    return f"{REPOSITORY_PREFIX}{image}:{digest}"


def _base_sources(suite: str) -> list[str]:
    return apt_sources.sources_for(suite, apt_sources.read_os_release(), apt_sources.read_machine())


def _base_apt_options() -> list[str]:
    dump = run(["apt-config", "dump"], check=False).stdout
    from_machine = [line.rstrip(";") for line in dump.splitlines() if line.split(" ")[0] in _APT_OPTIONS]
    # One answer a mirror owes us must not fail a whole build.
    return [*from_machine, 'Acquire::Retries "5"']
