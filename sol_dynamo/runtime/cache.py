"""The on-disk cache of compiled objects: content-addressed, checked, shared by many processes.

An entry is one file, `<2 hex>/<key>-<checksum><suffix>`. The key is the hash of everything that
went into it, the checksum that of its bytes: a damaged entry is seen and made anew. Files appear by
one atomic rename, so that a reader sees a whole entry or none. Nothing here knows what entries are.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: processes may then build the same thing twice, which is only slower
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("sol_dynamo")

LIMIT = 2 << 30  # bytes; the entries that were not used for longest go when the cache is larger
GRACE = 600.0  # seconds; what was used so lately may be in use by a linker: `prune` leaves it alone
PRUNE_EVERY = 3600.0  # seconds between two looks at the size, for all processes together
_TEMPORARY = ".new-"
_checked: set[Path] = set()  # entries whose checksum this process has verified


def directory() -> Path:
    """The cache's folder, private to this user; a temporary one where that is impossible."""
    wanted = os.environ.get("SOL_CACHE_DIR")
    return _made(Path(wanted).expanduser() if wanted else _home() / ".cache" / "sol_dynamo")


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # no HOME and no entry in the user database, as in some containers
        return Path("/nonexistent")


@lru_cache(maxsize=8)
def _made(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_private(path)
        handle, probe = tempfile.mkstemp(dir=path, prefix=_TEMPORARY)
        os.close(handle)
        os.unlink(probe)
        return path
    except OSError as e:
        fallback = Path(tempfile.mkdtemp(prefix="sol-cache-"))
        atexit.register(_remove, fallback, os.getpid())
        message = (
            f"sol_dynamo cannot use the cache folder {path} ({e}): compiled code goes to {fallback}"
        )
        warnings.warn(f"{message} and is lost when this process ends", stacklevel=3)
        return fallback


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not at the end of a forked child
        shutil.rmtree(folder, ignore_errors=True)


def _make_private(path: Path) -> None:
    """Code is loaded from here: nobody else may be able to write to it."""
    if not hasattr(os, "geteuid"):
        return
    status = path.stat()
    if status.st_uid not in (os.geteuid(), 0):
        raise PermissionError(f"it belongs to user {status.st_uid}")
    if status.st_mode & 0o077 and status.st_uid == os.geteuid():
        path.chmod(0o700)
    elif status.st_mode & 0o022:
        raise PermissionError("others can write to it")


def key(*parts: object) -> str:
    """The name of what is made from `parts` by this version of the package."""
    from .. import __version__

    digest = hashlib.sha256()
    for p in (__version__, *parts):
        data = (p if isinstance(p, str) else repr(p)).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:32]


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def lookup(name: str, suffix: str) -> Path | None:
    """The path of a sound entry, or None; a damaged one is removed."""
    folder = directory() / name[:2]
    try:
        present = os.listdir(folder)
    except OSError:
        return None
    for path in sorted(folder / p for p in present if p.startswith(f"{name}-")):
        if not path.name.endswith(suffix):  # which may have two dots
            continue
        try:
            if path in _checked:
                os.utime(path)  # also tells whether it is still there
                return path
            if path.name == f"{name}-{_checksum(path.read_bytes())}{suffix}":
                os.utime(path)
                _checked.add(path)
                return path
            log.warning("the cache entry %s is damaged and will be made again", path)
            path.unlink(missing_ok=True)
        except OSError:  # removed by another process between the listing and here
            _checked.discard(path)
    return None


def store(name: str, suffix: str, data: bytes) -> Path:
    """Put bytes into the cache under a name and return their path.

    Several writers of one name are welcome: each entry is whole, and `lookup` takes any of them.
    """
    path = directory() / name[:2] / f"{name}-{_checksum(data)}{suffix}"
    for last in (False, False, True):
        try:
            _write(path, data)
            break
        except FileNotFoundError:  # `clear` of another process took the new file
            if last:
                raise
    _checked.add(path)
    _prune_sometimes()
    return path


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_TEMPORARY)  # with mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def building(name: str) -> Iterator[None]:
    """Held by whoever makes an entry: processes that want the same one wait and then find it.

    Without file locks (some network file systems) they all make it, which is only slower.
    """
    file = None
    if fcntl is not None:
        try:
            file = open(directory() / f".lock-{name[:2]}", "w")  # noqa: SIM115
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass
    try:
        yield
    finally:
        if file is not None:
            file.close()  # gives the lock back, as the end of the process does


def entries() -> list[Path]:
    """All entries, sound or not, without what compilers and refused files leave in folders."""
    root = directory()
    found = [p for p in _files() if p.parent == root or len(p.parent.name) == 2]
    return [p for p in found if not p.name.startswith(".")]


def _files() -> list[Path]:
    """All files in the cache's folder; unlike `glob`, os.walk bears folders that disappear."""
    return [Path(folder, name) for folder, _, names in os.walk(directory()) for name in names]


def size() -> int:
    """Bytes in the cache, with what the compiler itself keeps there."""
    return sum(n for _, n, _ in _used(_files()))


def clear() -> None:
    """Remove everything; libraries that are loaded stay usable."""
    for path in _files():
        if not path.name.startswith(".lock-"):  # one may be held
            path.unlink(missing_ok=True)
    for name in os.listdir(directory()):
        if len(name) > 2:  # what the compiler keeps; folders of entries stay for whoever writes now
            shutil.rmtree(directory() / name, ignore_errors=True)
    _checked.clear()


def prune(limit: int = LIMIT) -> None:
    """Remove the entries that were not used for longest until the rest takes 3/4 of `limit`."""
    now = time.time()
    for when, _, p in _used(_files()):
        if p.name.startswith(_TEMPORARY) and when < now - PRUNE_EVERY:  # its process was killed
            p.unlink(missing_ok=True)
    found = sorted(_used(entries()), reverse=True)
    if sum(n for _, n, _ in found) <= limit:
        return
    total = 0
    for when, n, p in found:
        total += n
        if total > limit - limit // 4 and when < now - GRACE:
            p.unlink(missing_ok=True)
            _checked.discard(p)


def _used(paths: list[Path]) -> list[tuple[float, int, Path]]:
    """(time of last use, bytes, path) of those that are still there."""
    found = []
    for p in paths:
        try:
            status = p.stat()
        except OSError:
            continue
        found.append((status.st_mtime, status.st_size, p))
    return found


def _prune_sometimes() -> None:
    """`prune`, if no process has within the last hour."""
    stamp = directory() / ".pruned"
    try:
        if time.time() - stamp.stat().st_mtime < PRUNE_EVERY:
            return
    except OSError:
        pass
    try:
        stamp.touch()
        prune()
    except OSError as e:
        log.info("the cache was not pruned: %s", e)
