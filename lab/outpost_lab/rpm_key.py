"""The key that signs the lab's RPMs: made on the spot, kept in LAB_DIR, never in the repository."""

from __future__ import annotations

from pathlib import Path

from outpost_lab.commands import run
from outpost_lab.locks import exclusive
from outpost_lab.settings import Settings

USER_ID = "Outpost lab (repackaged RPMs, not a vendor's) <lab@outpost.invalid>"


def home(settings: Settings) -> Path:
    return settings.cache / "rpm-key"


def public_key(settings: Settings) -> str:
    """The armoured public key; made together with its secret half when it is not there yet."""
    exported = home(settings) / "RPM-GPG-KEY-OUTPOST-LAB"
    with exclusive(settings.cache / "rpm-key.lock"):
        if not exported.exists():
            _make(home(settings), exported)
    return exported.read_text()


def _make(directory: Path, exported: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    gpg = ["gpg", "--homedir", str(directory), "--batch", "--no-tty", "--quiet"]
    # RSA: the one kind every rpm that RED OS 7.3 and 8 carry can verify.
    run([*gpg, "--passphrase", "", "--quick-generate-key", USER_ID, "rsa3072", "sign", "never"])
    armoured = run([*gpg, "--armor", "--export", USER_ID]).stdout
    # gpg leaves an agent running for this directory; nothing else ends it.
    run(["gpgconf", "--homedir", str(directory), "--kill", "all"], check=False)
    partial = exported.with_suffix(".partial")
    partial.write_text(armoured)
    partial.rename(exported)
