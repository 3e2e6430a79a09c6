"""The cache gives back what was stored, whatever happens to its files and whoever else uses it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from sol_dynamo.runtime import cache


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_checked", set())
    return tmp_path / "cache"


def forget() -> None:
    """As a new process: nothing has been verified."""
    cache._checked.clear()


def test_store_and_lookup():
    name = cache.key("some source", ("-O2",), 3)
    assert cache.lookup(name, ".o") is None
    path = cache.store(name, ".o", b"object")
    assert cache.lookup(name, ".o") == path and path.read_bytes() == b"object"
    assert cache.lookup(name, ".so") is None
    forget()
    assert cache.lookup(name, ".o") == path
    assert cache.entries() == [path] and cache.size() >= 6


def test_keys_tell_parts_apart(monkeypatch):
    keys = [cache.key("ab", "c"), cache.key("a", "bc"), cache.key("abc"), cache.key("ab", "c", "")]
    assert len(set(keys)) == 4
    monkeypatch.setattr("sol_dynamo.__version__", "another")
    assert cache.key("abc") not in keys


@pytest.mark.parametrize("damage", [b"", b"objec", b"Object", b"object and more"])
def test_damaged_entry_is_removed_and_made_again(damage, caplog):
    name = cache.key("source")
    path = cache.store(name, ".o", b"object")
    path.write_bytes(damage)
    forget()
    assert cache.lookup(name, ".o") is None and not path.exists()
    assert "damaged" in caplog.text
    assert cache.lookup(name, ".o") is None
    assert cache.store(name, ".o", b"object") == path
    forget()
    assert cache.lookup(name, ".o") == path


def test_an_entry_that_another_process_removed():
    name = cache.key("source")
    path = cache.store(name, ".o", b"object")
    path.unlink()
    assert cache.lookup(name, ".o") is None


def test_two_writers_with_different_bytes_leave_whole_entries():
    name = cache.key("source")
    paths = {cache.store(name, ".o", b"one"), cache.store(name, ".o", b"two")}
    forget()
    found = cache.lookup(name, ".o")
    assert found in paths and found.read_bytes() in (b"one", b"two")


def test_private(folder, tmp_path, monkeypatch):
    cache.store(cache.key("x"), ".so", b"library")
    for path in [folder, *folder.rglob("*")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077 or path.name.startswith("."), path
    lax = tmp_path / "lax"
    lax.mkdir(mode=0o777)
    lax.chmod(0o777)
    monkeypatch.setenv("SOL_CACHE_DIR", str(lax))
    assert cache.directory() == lax and stat.S_IMODE(lax.stat().st_mode) == 0o700


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs chown")
def test_a_folder_of_someone_else_is_not_trusted(tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    os.chown(other, 12345, 12345)
    monkeypatch.setenv("SOL_CACHE_DIR", str(other))
    with pytest.warns(UserWarning, match="belongs to user 12345"):
        assert cache.directory() != other


def test_unwritable_folder_falls_back_with_one_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SOL_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="lost when this process ends"):
        first = cache.directory()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.directory() == first
        path = cache.store(cache.key("x"), ".o", b"object")
    assert path.is_relative_to(first) and cache.lookup(cache.key("x"), ".o") == path


def test_the_fallback_goes_with_its_process(tmp_path):
    code = "from sol_dynamo.runtime import cache; print(cache.directory())"
    (tmp_path / "file").touch()
    environment = {**os.environ, "SOL_CACHE_DIR": str(tmp_path / "file" / "x")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "sol-cache-" in done.stdout and not Path(done.stdout.strip()).exists()


def test_prune_removes_what_was_not_used_for_longest():
    now = time.time()
    paths = [cache.store(cache.key(i), ".o", bytes(1000)) for i in range(10)]
    for i, path in enumerate(paths):
        os.utime(path, (now, now - 10_000 * (10 - i)))
    cache.prune(limit=100_000)
    assert len(cache.entries()) == 10
    assert cache.lookup(cache.key(0), ".o") == paths[0]  # used just now
    cache.prune(limit=4000)
    left = {p for p in paths if p.exists()}
    assert left == {paths[0], paths[8], paths[9]}


def test_prune_leaves_what_may_be_in_use_and_removes_what_was_left_behind():
    path = cache.store(cache.key(0), ".o", bytes(1000))
    fresh, old = (path.with_name(f".new-{n}") for n in ("fresh", "old"))
    for p in (fresh, old):
        p.touch()
    os.utime(old, (0, 0))
    cache.prune(limit=10)
    assert path.exists() and fresh.exists() and not old.exists()


def test_clear(folder):
    for i in range(3):
        cache.store(cache.key(i), ".o", b"object")
    (folder / "zig").mkdir()
    (folder / "zig" / "x").write_bytes(bytes(100))
    assert cache.size() >= 118
    cache.clear()
    assert cache.entries() == [] and cache.size() == 0
    assert cache.lookup(cache.key(1), ".o") is None
    cache.store(cache.key(1), ".o", b"object")
    assert cache.lookup(cache.key(1), ".o") is not None


HAMMER = """
import random, sys
from sol_dynamo.runtime import cache
random.seed(int(sys.argv[1]))
for _ in range(300):
    i = random.randrange(8)
    name, data = cache.key(i), bytes([i]) * (20_000 + i)
    cache._checked.clear()
    found = cache.lookup(name, ".o")
    if found is None:
        found = cache.store(name, ".o", data)
    try:
        assert found.read_bytes() == data, "a torn entry was read"
    except FileNotFoundError:
        pass  # removed meanwhile
    move = random.random()
    if move < 0.05:
        found.unlink(missing_ok=True)
    elif move < 0.08:
        cache.prune(limit=50_000)
    elif move < 0.09:
        cache.clear()
"""


def test_many_processes_at_once():
    command = [sys.executable, "-c", HAMMER]
    running = [
        subprocess.Popen([*command, str(i)], stderr=subprocess.PIPE, text=True) for i in range(5)
    ]
    errors = [p.communicate()[1] for p in running]
    assert all(p.returncode == 0 for p in running), errors
    for i in range(8):
        found = cache.lookup(cache.key(i), ".o")
        assert found is None or found.read_bytes() == bytes([i]) * (20_000 + i)


def test_a_lock_keeps_others_waiting_and_ends_with_its_process(tmp_path):
    code = (
        "import sys, time\nfrom sol_dynamo.runtime import cache\n"
        "with cache.building('ab'):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with cache.building("cd"):  # another name's
        pass
    holder.kill()
    holder.communicate()
    with cache.building("ab"):
        pass
