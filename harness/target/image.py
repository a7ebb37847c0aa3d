# SPDX-License-Identifier: GPL-2.0-only
"""The guest's root file system: Debian's packages, our init, and two SSH keys made for this image alone.

The recipe is `vm-images/image`. No root rights are needed: packages are unpacked, not configured.
"""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from harness.errors import BuildError, MissingError
from harness.progress import Progress
from harness.target.artifacts import Image
from harness.target.cache import Cache, digest_of, digest_of_tree
from harness.target.children import run
from harness.target.places import VM_IMAGES

_RECIPE = VM_IMAGES / "image"
_PROGRAMS = {"mmdebstrap": "mmdebstrap", "mkfs.erofs": "erofs-utils", "cc": "gcc", "apt-get": "apt"}

# What nobody reads in the guest: a third of the packages' size.
_UNUSED = (
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/info",
    "usr/share/lintian",
    "usr/lib/x86_64-linux-gnu/gconv",
    "var",
)
_DIRECTORIES = ("dev", "payload", "proc", "root/.ssh", "run", "sys", "tmp", "var", "etc/dropbear")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/shells": "/bin/sh\n",
    "etc/hostname": "hmm-guest\n",
    "etc/hosts": "127.0.0.1 localhost hmm-guest\n",
}


def provide_image(*, cache: Cache, progress: Progress) -> Image:
    """The image of today's recipe, from the cache or built in about 15 s.

    Raises `MissingError` for a program that is not installed, `BuildError` if a step fails.
    """
    suite = _suite()
    key = _key(suite)

    def build(directory: Path) -> None:
        with progress.step("building the guest image") as step:
            _require_programs()
            root = directory / "tree"
            step.update(f"packages of {suite}")
            _unpack_packages(suite, root, directory)
            step.update("byte code")
            _complete(root, directory)
            step.update("packing")
            pack(root, directory / "root.erofs")
            shutil.rmtree(root)

    entry = cache.entry("image", key, build, progress=progress, needs=512 << 20)
    return Image(
        key=key,
        root=entry / "root.erofs",
        client_key=entry / "client_key",
        host_key=(entry / "host_key.pub").read_text().strip(),
    )


def pack(tree: Path, target: Path) -> None:
    """Packs `tree` as the erofs file `target`, everything owned by root.

    Not compressed: an emulated CPU pays more for decompression than the host pays for reading.
    """
    # fmt: off
    run(
        [
            "mkfs.erofs", "--quiet",
            "--all-root",  # the tree belongs to whoever builds
            "-T0",         # no clock in the content
            "-x-1",        # no extended attributes: the kernel need not know them
            target, tree,
        ],
        what=f"packing {target.name}",
    )
    # fmt: on


def _suite() -> str:
    """The distribution's code name, "bookworm": the guest is of the machine's own suite, as the mirrors are."""
    try:
        return platform.freedesktop_os_release()["VERSION_CODENAME"]
    except (OSError, KeyError) as error:
        raise MissingError(
            "this system does not say which Debian suite it is (VERSION_CODENAME in /etc/os-release)",
            hint="the guest image is made of the machine's own Debian packages; the Vagrantfile has such a machine",
        ) from error


def _key(suite: str) -> str:
    """Recipe and suite, not the versions of packages: a warm run must not ask the network."""
    return digest_of(suite, repr((_UNUSED, _DIRECTORIES, _FILES)), digest_of_tree(_RECIPE))


def _require_programs() -> None:
    missing = sorted({package for program, package in _PROGRAMS.items() if shutil.which(program) is None})
    if missing:
        raise MissingError(
            f"building the guest image needs {', '.join(missing)}", hint=f"apt-get install {' '.join(missing)}"
        )


def _unpack_packages(suite: str, root: Path, scratch: Path) -> None:
    words = (line.partition("#")[0].strip() for line in (_RECIPE / "packages").read_text().splitlines())
    sources = run(
        ["apt-get", "indextargets", "--format", "deb $(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
        what="reading apt's sources",
    )
    # Other people's repositories may be among them; the suite's own, its updates and its security are named alike.
    lines = sorted({line for line in sources.splitlines() if line.split()[2].startswith(suite)})
    if not lines:
        raise BuildError(
            f"apt has no index of {suite}", hint="apt-get update; see /etc/apt/sources.list.d if that does not help"
        )
    temporary = scratch / "tmp"
    temporary.mkdir()
    # fmt: off
    run(
        [
            "mmdebstrap", "--quiet",
            "--format=directory",
            "--variant=extract",              # unpack only: nothing of the guest runs here
            "--mode=chrootless",              # ... hence no root rights, no name spaces
            "--skip=check/chrootless",        # it warns root of maintainer scripts; none is run
            "--skip=output/dev",              # device nodes need root rights; the guest has devtmpfs
            "--include=" + ",".join(word for word in words if word),
            suite, root,
            "-",
        ],
        what="unpacking the guest's packages",
        stdin="\n".join(lines).encode() + b"\n",
        env={**os.environ, "TMPDIR": str(temporary)},
        hint="a mirror that cannot be reached, or apt's index is older than the mirror: apt-get update",
    )
    # fmt: on
    shutil.rmtree(temporary)


def _complete(root: Path, directory: Path) -> None:
    """Makes a bootable root of unpacked packages; leaves the keys that the host needs in `directory`."""
    for name in _UNUSED:
        shutil.rmtree(root / name, ignore_errors=True)
    for name in _DIRECTORIES:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, text in _FILES.items():
        (root / name).write_text(text)
    _compile_python(root)
    _make_keys(root, directory)
    for applet in run([root / "bin/busybox", "--list-full"], what="listing busybox's applets").split():
        link = root / applet
        if not link.is_symlink() and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to("/bin/busybox")
    (root / "sbin/init").unlink(missing_ok=True)  # busybox has one too
    run(
        ["cc", "-O2", "-Wall", "-static", "-o", root / "sbin/init", _RECIPE / "init.c"],
        what="compiling the guest's init",
        hint="apt-get install gcc libc6-dev",
    )


def _guest_program(root: Path, program: str) -> list[str | Path]:
    """The words that run a program of the guest here, with the guest's own libraries."""
    libraries = f"{root}/lib/x86_64-linux-gnu:{root}/usr/lib/x86_64-linux-gnu"
    return [root / "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "--library-path", libraries, root / program]


def _compile_python(root: Path) -> None:
    """Byte-compiles everything with the guest's own Python: 20 s of imports in the guest become 1 s."""
    run(
        [
            *_guest_program(root, "usr/bin/python3"),
            *("-S", "-m", "compileall", "-q", "-j0", "-s", str(root), "-p", "/"),
            # packing sets all times to 0, so byte code must not be compared with them
            *("--invalidation-mode", "unchecked-hash"),
            *sorted((root / "usr/lib").glob("python3*")),
        ],
        what="byte-compiling the guest's Python",
        env={**os.environ, "PYTHONHOME": str(root / "usr")},
    )


def _make_keys(root: Path, directory: Path) -> None:
    """One key pair for the server and one for the client. ed25519: the cheapest to sign and verify."""
    # imported here, since a warm run makes no keys and this costs a tenth of a second
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    output = run(
        [*_guest_program(root, "usr/bin/dropbearkey"), "-t", "ed25519", "-f", root / "etc/dropbear/host_key"],
        what="making the guest's host key",
    )
    public = [line for line in output.splitlines() if line.startswith("ssh-ed25519 ")]
    if len(public) != 1:
        raise BuildError(f"dropbearkey printed no public key: {output}")
    (directory / "host_key.pub").write_text(" ".join(public[0].split()[:2]) + "\n")

    client = Ed25519PrivateKey.generate()
    key = directory / "client_key"
    key.touch(mode=0o600)
    key.write_bytes(client.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    authorized = root / "root/.ssh/authorized_keys"
    authorized.write_bytes(client.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b"\n")
    authorized.chmod(0o600)
    for private in ("root", "root/.ssh"):
        (root / private).chmod(0o700)
