"""What is on disk is complete or not there."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest

from bakeoff.errors import StoreError
from bakeoff.store import SCHEMA_VERSION, Store, find_run, new_run


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "run")


def end_cell(store, cell_id, status, **extra):
    """Run a cell without a process: open it and let it end with this status."""
    partial = store.open_cell(cell_id)
    (partial / "log.txt").write_text(f"{status}\n")
    store.finish_cell(cell_id, {"status": status, "reason": "", "wall_s": 1.0, "seconds": {}} | extra)


def test_json_is_stamped_and_comes_back(store):
    """What is written is read back, with the schema version and with null for what JSON cannot say."""
    path = store.folder / "a" / "b.json"
    store.write_json(path, {"reward": float("nan"), "steps": 3})
    assert store.read_json(path) == {"schema_version": SCHEMA_VERSION, "reward": None, "steps": 3}


def test_frame_comes_back(store):
    """A frame is written as Parquet with its columns and without its index."""
    frame = pd.DataFrame({"prompt_id": ["a", "b"], "value": [0.5, 1.0]}, index=[7, 8])
    path = store.folder / "scores.parquet"
    store.write_frame(path, frame)
    pd.testing.assert_frame_equal(pd.read_parquet(path), frame.reset_index(drop=True))


def test_failed_write_leaves_the_old_file(store, monkeypatch):
    """An error between the temporary file and the rename leaves the old content and no debris."""
    path = store.folder / "plan.json"
    store.write_json(path, {"cells": [1]})
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        store.write_json(path, {"cells": [1, 2]})
    assert store.read_json(path)["cells"] == [1]
    assert [each.name for each in store.folder.iterdir()] == ["plan.json"]


def test_kill_while_writing_leaves_the_old_file(store):
    """A process killed between write and rename leaves the old content, and commit sweeps its debris."""
    partial = store.open_cell("c")
    store.write_json(partial / "ledger.json", {"steps": 1})
    script = (
        "import os, sys; from pathlib import Path; from bakeoff.store import Store\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), 9)\n"
        "Store(Path(sys.argv[1])).write_json(Path(sys.argv[2]), {'steps': 2})"
    )
    done = subprocess.run([sys.executable, "-c", script, store.folder, partial / "ledger.json"], check=False)
    assert done.returncode == -9
    assert store.read_json(partial / "ledger.json")["steps"] == 1
    assert list(partial.glob(".*.tmp"))
    store.finish_cell("c", {"status": "ok"})
    assert sorted(path.name for path in store.cell("c").iterdir()) == ["ledger.json", "status.json"]


def test_a_cell_that_died_as_it_ended_leaves_what_others_leave(store):
    """A crash right after the status was written: the next run makes the record, without what attempts resume from."""
    partial = store.open_cell("c")
    for name in ("checkpoints", "probes"):
        (partial / name).mkdir()
    store.write_json(partial / "progress.json", {"phase": "evaluate"})
    store.write_json(partial / "status.json", {"status": "ok"})
    store.recover_cell("c")
    assert [path.name for path in store.cell("c").iterdir()] == ["status.json"]


def test_another_schema_version_is_refused(store):
    """A run written by another version is neither read nor written to; the error names file and way out."""
    store.write_bytes(store.plan_path, json.dumps({"schema_version": 99}).encode())
    with pytest.raises(StoreError, match=r"plan\.json has schema version 99.*reads and writes version 1") as caught:
        Store(store.folder)
    assert "--name" in caught.value.fix


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b""])
def test_unreadable_json_is_a_store_error(store, content):
    """Half a file, or a file of something else, is told by name."""
    path = store.folder / "status.json"
    store.write_bytes(path, content)
    with pytest.raises(StoreError, match=r"status\.json"):
        store.read_json(path)


def test_cell_ends_as_a_whole(store):
    """A cell that ends well has its record, no progress and no checkpoints, and nothing is left of .partial."""
    partial = store.open_cell("c")
    (partial / "checkpoints").mkdir()
    store.write_json(partial / "progress.json", {"phase": "train"}, durable=False)
    assert not store.is_done("c")
    end_cell(store, "c", "ok")
    assert store.is_done("c")
    assert not partial.exists()
    assert sorted(path.name for path in store.cell("c").iterdir()) == ["log.txt", "status.json"]


def test_retry_takes_the_place_of_a_failure(store):
    """A failed cell is replaced by its next attempt; a cell that ended well is never replaced."""
    end_cell(store, "c", "oom")
    assert not store.is_done("c")
    end_cell(store, "c", "ok")
    assert (store.cell("c") / "log.txt").read_text() == "ok\n"
    assert [path.name for path in (store.folder / "cells").iterdir()] == ["c"]
    with pytest.raises(StoreError, match="complete already"):
        end_cell(store, "c", "ok")


@pytest.mark.parametrize(("status", "kept"), [("infra_error", True), ("diverged", False), ("timeout", False)])
def test_checkpoints_outlive_only_a_failure_from_outside(store, status, kept):
    """What infra_error left is there for a retry; after any other failure a retry starts afresh."""
    (store.open_cell("c") / "checkpoints").mkdir()
    end_cell(store, "c", status)
    partial = store.open_cell("c")
    assert sorted(path.name for path in partial.iterdir()) == (["checkpoints", "log.txt"] if kept else [])
    assert store.cell("c").exists() is not kept


def test_crash_before_the_rename_is_recovered(store):
    """A cell whose status is written but whose folder is not renamed counts as ended, not as lost."""
    end_cell(store, "c", "oom")
    partial = store.open_cell("c")
    store.write_json(partial / "status.json", {"status": "ok"})
    store.cell("c").rename(store.cell("c").with_name("c.old"))
    store.recover_cell("c")
    assert store.is_done("c")
    assert [path.name for path in (store.folder / "cells").iterdir()] == ["c"]


def test_stage_is_committed_once(store):
    """A stage appears under its name when it is complete, and a second one is refused."""
    for _ in range(2):
        store.write_json(store.partial_stage("s") / "stage.json", {"kind": "pairs"})
        if not store.stage("s").exists():
            assert store.commit(store.partial_stage("s")) == store.stage("s")
    with pytest.raises(StoreError, match="complete already"):
        store.commit(store.partial_stage("s"))


def test_lock_dies_with_its_holder(store):
    """Another process cannot take a lock while its holder lives, and can once the holder was killed."""
    from filelock import Timeout

    script = (
        "import sys, time; from pathlib import Path; from bakeoff.store import Store\n"
        "with Store(Path(sys.argv[1])).lock('stage', 's'):\n    print('held', flush=True); time.sleep(1000)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, store.folder], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(Timeout):
        store.lock("stage", "s").acquire(timeout=0)
    with store.lock("stage", "other").acquire(timeout=0):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with store.lock("stage", "s").acquire(timeout=5):
        pass


@pytest.mark.parametrize("name", ["", "..", "a/b", "../x", ".hidden", "a b", "-x", "c.partial", "x" * 200, "a\n"])
def test_run_names_play_no_tricks_with_paths(name, tmp_path):
    """A run's name is a plain folder name, whoever chose it."""
    with pytest.raises(StoreError, match="cannot be a run's name"):
        new_run(name, tmp_path)


def test_runs_are_found_by_name_folder_and_age(tmp_path, monkeypatch):
    """A run is found under the runs folder, by its path, or as the last one; a misspelt one gets a hint."""
    monkeypatch.setenv("BAKEOFF_RUNS", str(tmp_path))
    with pytest.raises(StoreError, match="there is no run"):
        find_run()
    for age, name in ((200, "first"), (100, "second")):
        store = new_run(name)
        store.write_json(store.plan_path, {"cells": []})
        os.utime(store.plan_path, (1e9 - age, 1e9 - age))
    assert find_run().folder == tmp_path / "second"
    assert find_run("first").folder == tmp_path / "first"
    assert find_run(str(tmp_path / "first")).folder == tmp_path / "first"
    with pytest.raises(StoreError, match="frist") as caught:
        find_run("frist")
    assert "'first'" in caught.value.fix
