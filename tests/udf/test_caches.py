"""Folders for user code are complete or do not exist, and stay as long as somebody uses them."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from odc_openeo.errors import StorageFailure, UdfUnavailable
from odc_openeo.udf.caches import FolderCache, Lease, UserShare, copy_foreign_tree, measure_tree

SIZE = 100_000


@pytest.fixture
def cache(tmp_path: Path) -> FolderCache:
    return FolderCache(tmp_path, most_bytes=10 * SIZE, kept_s=1000)


def fill(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / name).write_bytes(b"x" * (SIZE // 2))


def refuse(folder: Path) -> None:
    raise AssertionError(folder)


def test_many_at_once_make_one(cache: FolderCache) -> None:
    calls = []

    def make(folder: Path) -> None:
        calls.append(folder)
        time.sleep(0.1)
        fill(folder)

    with ThreadPoolExecutor(8) as executor:
        leases = list(executor.map(lambda _: cache.open("key", make), range(8)))
    assert len(calls) == 1
    assert {lease.folder for lease in leases} == {cache.top / "key"}
    assert measure_tree(cache.top / "key") >= SIZE


def test_what_is_half_made_is_never_used(cache: FolderCache) -> None:
    def fail(folder: Path) -> None:
        (folder / "a").write_bytes(b"half")
        raise UdfUnavailable(reason="no")

    with pytest.raises(UdfUnavailable):
        cache.open("failed", fail)
    assert not list(cache.top.glob("incoming-*"))

    def die(folder: Path) -> None:
        (folder / "a").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    process = os.fork()
    if not process:
        cache.open("killed", die)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGKILL
    (remnant,) = cache.top.glob("incoming-*")
    for key in ("failed", "killed"):
        assert not (cache.top / key).exists()
        assert {p.name for p in cache.open(key, fill).folder.iterdir()} == {"a", "b"}
    os.utime(remnant, (0, 0))
    cache.remove_surplus()
    assert not remnant.exists()


def test_other_processes_are_waited_for_but_not_for_ever(tmp_path: Path) -> None:
    cache = FolderCache(tmp_path, SIZE, 1000, wait_s=0.2)
    started, done = threading.Event(), threading.Event()

    def hang(folder: Path) -> None:
        started.set()
        done.wait(10)

    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(cache.open, "key", hang)
        started.wait(10)
        with pytest.raises(UdfUnavailable, match="Try again later"):
            cache.open("key", fill)
        done.set()
        assert future.result().folder.is_dir()


def test_the_least_recently_used_go_first_unless_they_are_in_use(tmp_path: Path) -> None:
    cache = FolderCache(tmp_path, most_bytes=350_000, kept_s=1000)
    leases = {}
    for age, key in enumerate(("fresh", "older", "used", "oldest")):
        leases[key] = cache.open(key, fill)
        os.utime(tmp_path / f"{key}.lock", (time.time() - 100 * age,) * 2)
    for key in ("fresh", "older", "oldest"):
        del leases[key]
    cache.open("new", fill)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"fresh", "older", "used", "new"}
    cache.open("newer", fill)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} >= {"used", "new", "newer"}
    assert not (tmp_path / "older").exists()
    # A lease ends with the last reference to it; another process gets none.
    assert pickle.loads(pickle.dumps(leases["used"])) is None
    leases.clear()
    FolderCache(tmp_path, 0, 0).remove_surplus()
    assert list(tmp_path.iterdir()) == []


def test_each_user_has_a_share(tmp_path: Path) -> None:
    """Beyond the share, the user's own entries go, the least recently used first, and nobody else's."""

    def open_for(owner: str, key: str, most_entries: int = 3, most_bytes: int = 100 * SIZE) -> Lease:
        share = UserShare(owner, most_entries, most_bytes)
        return FolderCache(tmp_path, 1000 * SIZE, 1000, share=share).open(key, fill)

    def list_keys() -> set[str]:
        return {path.name for path in tmp_path.iterdir() if path.is_dir()}

    def make_older(*keys: str) -> None:
        for age, key in enumerate(reversed(keys), 1):
            os.utime(tmp_path / f"{key}.lock", (time.time() - 10 * age,) * 2)

    open_for("bob", "b1")
    for key in ("a1", "a2", "a3"):
        open_for("alice", key)
    make_older("b1", "a1", "a2", "a3")
    # Used again, by whomever, it is not the oldest any more.
    open_for("bob", "a1")
    open_for("alice", "a4")
    assert list_keys() == {"b1", "a1", "a3", "a4"}
    make_older("b1", "a3", "a1", "a4")
    in_use = open_for("alice", "a3")
    make_older("b1", "a3", "a1", "a4")
    open_for("alice", "a5", most_bytes=int(2.5 * SIZE))
    assert list_keys() == {"b1", in_use.folder.name, "a5"}


def test_old_entries_are_made_again(tmp_path: Path) -> None:
    cache = FolderCache(tmp_path, 10 * SIZE, kept_s=50)
    cache.open("key", fill)
    os.utime(tmp_path / "key.lock", (time.time() - 100,) * 2)
    cache.open("other", fill)
    assert not (tmp_path / "key").exists()
    cache.open("other", refuse)


def test_thousands_of_leases_are_one(cache: FolderCache) -> None:
    before = len(os.listdir("/proc/self/fd"))
    leases = [cache.open("key", fill) for _ in range(2000)]
    assert len(set(map(id, leases))) == 1
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del leases
    assert len(os.listdir("/proc/self/fd")) == before


def test_makers_and_removers_at_once(tmp_path: Path) -> None:
    """Who holds a lease has a complete folder, whatever others do."""
    cache = FolderCache(tmp_path, most_bytes=0, kept_s=0)

    def use(number: int) -> int:
        lease = cache.open(f"key{number % 3}", fill)
        cache.remove_surplus()
        return len(list(lease.folder.iterdir()))

    processes = []
    for seed in range(3):
        process = os.fork()
        if not process:
            os._exit(0 if [use(seed + i) for i in range(30)] == [2] * 30 else 1)
        processes.append(process)
    with ThreadPoolExecutor(3) as executor:
        assert set(executor.map(use, range(30))) == {2}
    assert [os.waitpid(process, 0)[1] for process in processes] == [0, 0, 0]


def test_folders_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailure):
        FolderCache(tmp_path / "file", 0, 0).open("key", fill)


@pytest.mark.parametrize("kind", ["link", "pipe", "socket", "link to a folder"])
def test_only_files_and_folders_are_copied(tmp_path: Path, kind: str) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "folder").mkdir(parents=True)
    target.mkdir()
    place = source / "folder" / "it"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "socket":
        os.mknod(place, 0o140644)
    else:
        place.symlink_to("/etc" if kind == "link to a folder" else "/etc/passwd")
    with pytest.raises((ValueError, OSError)):
        copy_foreign_tree(source, target, SIZE, 10)
    assert not (target / "folder" / "it").exists()


def test_copies_have_limits_and_safe_modes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    fill(source)
    (source / "a").chmod(0o6777)
    target = tmp_path / "target"
    target.mkdir()
    copy_foreign_tree(source, target, SIZE, 2)
    assert (target / "a").stat().st_mode & 0o7777 == 0o644
    assert (target / "b").read_bytes() == (source / "b").read_bytes()
    for most_bytes, most_entries in ((SIZE - 1, 2), (SIZE, 1)):
        again = tmp_path / f"{most_bytes}-{most_entries}"
        again.mkdir()
        with pytest.raises(ValueError, match=r"too large|more than 1 files"):
            copy_foreign_tree(source, again, most_bytes, most_entries)
