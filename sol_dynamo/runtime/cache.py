"""The on-disk cache of compiled objects: content-addressed, checked, shared by many processes.

An entry's name is the hash of everything that went into it; its own content's hash lies in a second
file, so that a damaged entry is seen and made anew. Files appear by atomic rename: a reader sees a
whole entry or none.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path

LIMIT = 2 << 30  # bytes; the oldest entries go when the cache has grown past it
_verified: set[Path] = set()


def directory() -> Path:
    """The cache's folder, made with mode 0700; a temporary one where that is impossible."""
    wanted = os.environ.get("SOL_CACHE_DIR")
    path = Path(wanted).expanduser() if wanted else Path.home() / ".cache" / "sol_dynamo"
    return _made(path)


@lru_cache(maxsize=8)
def _made(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = path / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
        return path
    except OSError as e:
        fallback = Path(tempfile.mkdtemp(prefix="sol-cache-"))
        warnings.warn(
            f"{path} cannot be written ({e}): compiled code goes to {fallback}", stacklevel=2
        )
        return fallback


def key(*parts: object) -> str:
    """The name of what is made from `parts` by this version of the package."""
    from .. import __version__

    digest = hashlib.sha256(__version__.encode())
    for p in parts:
        digest.update(repr(p).encode() if not isinstance(p, str) else p.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:32]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def lookup(name: str, suffix: str) -> Path | None:
    """A sound entry's path, or None."""
    path = directory() / (name + suffix)
    if path in _verified and path.exists():
        return path
    try:
        if path.with_suffix(suffix + ".sha256").read_text() == _digest(path):
            os.utime(path)
            _verified.add(path)
            return path
    except OSError:
        pass
    return None


def store(name: str, suffix: str, made: Path) -> Path:
    """Put a file into the cache under a name; whoever comes first or last, the entry is whole."""
    folder = directory()
    path = folder / (name + suffix)
    for target, write in (
        (path, lambda t: shutil.copyfile(made, t)),
        (path.with_suffix(suffix + ".sha256"), lambda t: Path(t).write_text(_digest(made))),
    ):
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".new-")
        os.close(handle)
        write(temporary)
        if suffix == ".so":
            os.chmod(temporary, 0o700)
        os.replace(temporary, target)
    _verified.add(path)
    if hash(name) % 64 == 0:
        prune()
    return path


def entries() -> list[Path]:
    return [p for p in directory().iterdir() if p.is_file() and not p.name.startswith(".")]


def size() -> int:
    """Bytes in the cache."""
    return sum(p.stat().st_size for p in entries())


def clear() -> None:
    for p in entries():
        p.unlink(missing_ok=True)
    _verified.clear()


def prune(limit: int = LIMIT) -> None:
    """Remove the entries that were not used for longest until the rest fits."""
    found = sorted(((p.stat().st_mtime, p.stat().st_size, p) for p in entries()), reverse=True)
    total = 0
    for _, n, p in found:
        total += n
        if total > limit:
            p.unlink(missing_ok=True)
            _verified.discard(p)
