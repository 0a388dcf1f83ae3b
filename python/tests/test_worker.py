"""The warm worker, driven as the shim drives it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from host import Host, become_subreaper, drain, spawn

SAMPLE = str(Path(__file__).parent / "sample.py")


@pytest.fixture(scope="module")
def host():
    become_subreaper()
    with Host([{"file": SAMPLE}]) as host:
        assert host.ready["event"] == "ready", host.ready
        yield host


def run(host, function, args=None, **task):
    return host.run(function, args, file=SAMPLE, **task)


def test_a_task_runs_in_a_child_of_the_host(host):
    result = run(host, "add", {"a": 2, "b": 3})
    assert result.code == 0
    assert result.outputs == {"result": 5}
    assert result.out == b"adding 2 3\n"


def test_the_module_is_imported_once(host):
    first = run(host, "loaded_by").outputs["result"]
    second = run(host, "loaded_by").outputs["result"]
    assert first == second == host.ready["pid"]
    assert run(host, "pid").outputs["result"] != host.ready["pid"]


def test_positional_arguments_and_classes(host):
    assert run(host, "add", [1, 2]).outputs["result"] == 3
    assert run(host, "Group.method").outputs["result"] == "in a class"


def test_environment_folder_umask_and_output_file(host, tmp_path):
    output = tmp_path / "out.json"
    result = run(host, "where", folder=str(tmp_path), output=str(output))
    assert result.code == 0 and "outputs" not in result.done
    assert output.read_text() == f'{{"result": "{tmp_path}"}}'
    result = run(host, "environment", ["COLOUR"], env={"COLOUR": "blue"})
    assert result.outputs["result"] == "blue"
    assert run(host, "environment", ["HOME"], clear_env=True).outputs["result"] is None


def test_children_draw_different_numbers(host):
    drawn = {run(host, "draws").outputs["result"] for _ in range(3)}
    assert len(drawn) == 3


def test_an_exception_shows_the_users_frames_first(host):
    result = run(host, "fails")
    assert result.code == 1
    assert result.error["type"] == "ValueError"
    assert result.error["message"].startswith("ValueError: bad row (sample.py:")
    assert result.error["where"]["function"] == "inner"
    log = result.err.decode()
    assert "kobza_worker" not in log
    last = log[log.rindex("Traceback (your code") :]
    assert "in fails" in last and "in inner" in last and "JSONDecodeError" in log


def test_an_exception_without_words(host):
    result = run(host, "silent")
    assert result.code == 1
    assert "its __str__ raised RuntimeError" in result.error["message"]
    assert "Silent" in result.err.decode()


@pytest.mark.parametrize("function", ["unstorable", "not_a_number", "circular"])
def test_what_cannot_be_stored(host, function):
    result = run(host, function)
    assert result.code == 1
    assert result.error["cause"] == "storage"
    assert f"{function} returned a" in result.error["message"]


def test_leaving_without_a_word(host):
    result = run(host, "leaves", [0])
    assert (result.code, result.done) == (0, None)
    assert run(host, "leaves", [7]).code == 7


def test_sys_exit(host):
    assert run(host, "exits", [0]).code == 0
    result = run(host, "exits", [3])
    assert result.code == 3 and result.error["message"] == "the function called sys.exit(3)"
    result = run(host, "exits", ["no data today"])
    assert result.code == 1 and result.error["message"] == "no data today"


def test_a_fork_whose_both_sides_come_back_reports_once(host):
    worker = host.workers()[0]
    result = worker.run({"function": "forks", "file": SAMPLE})
    assert result.outputs["result"] == worker.pid


def test_closed_descriptors_and_streams(host, tmp_path):
    for function in ("closes_out", "closes_stream"):
        output = tmp_path / function
        result = run(host, function, output=str(output))
        assert result.code == 0
        assert output.read_text() == '{"result": "fine"}'


def test_binary_and_unencodable_logs(host):
    result = run(host, "binary")
    assert result.code == 0
    assert result.err == bytes(range(256))
    assert result.out == b"\\udcff lone surrogate\n"


def test_a_deaf_task_dies_by_force(host):
    worker = host.workers()[0]
    out, err = worker.send({"function": "deaf", "file": SAMPLE})
    with os.fdopen(os.dup(out), "rb", buffering=0) as log:
        assert log.readline() == b"deaf\n"
    os.kill(worker.pid, signal.SIGTERM)
    os.kill(worker.pid, signal.SIGKILL)
    _, status = os.waitpid(worker.pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    drain([out, err])
    assert run(host, "nop").code == 0, "the parent goes on"


def test_too_much_memory(host):
    result = run(host, "eats_memory", limits={"memory_bytes": 1 << 30})
    assert result.code == 1
    assert (result.error["type"], result.error["cause"]) == ("MemoryError", "limit")


def test_too_large_outputs(host):
    result = run(host, "large", [5 << 20])
    assert result.code == 1 and result.error["cause"] == "limit"
    assert "Return large data as a data frame" in result.error["message"]


def test_endless_recursion(host):
    result = run(host, "deep")
    assert result.code == 1 and result.error["type"] == "RecursionError"
    assert len(result.err) < 20_000


def test_threads_are_waited_for(host):
    result = run(host, "thread_after")
    assert result.code == 0 and result.out == b"later\n"


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("nopp", "has no 'nopp'; did you mean 'nop'?"),
        ("constant", "constant is a int, not a function"),
    ],
)
def test_functions_that_are_none(host, function, words):
    result = run(host, function)
    assert result.code == 1 and words in result.error["message"]


def test_a_module_that_is_missing(host):
    result = host.run("no_such_module:main")
    assert result.code == 1
    assert "No module named 'no_such_module'" in result.error["message"]
    result = host.run("main", file="/no/such/file.py")
    assert "there is no file /no/such/file.py" in result.error["message"]


def test_reuse_runs_many_tasks_in_one_process(host):
    worker = host.workers(tasks=4)[0]
    pids = set()
    for _ in range(2):
        result = worker.run({"function": "pid", "file": SAMPLE}, wait=False)
        pids.add(result.outputs["result"])
    result = worker.run(
        {"function": "environment", "args": ["COLOUR"], "file": SAMPLE, "env": {"COLOUR": "red"}},
        wait=False,
    )
    assert result.outputs["result"] == "red"
    assert "last" not in result.done
    result = worker.run({"function": "environment", "args": ["COLOUR"], "file": SAMPLE})
    assert result.outputs["result"] is None
    assert result.done["last"] and pids == {worker.pid}


def test_reuse_ends_after_a_task_that_left_threads(host):
    worker = host.workers(tasks=10)[0]
    result = worker.run({"function": "thread_after", "file": SAMPLE})
    assert result.done["last"] and result.code == 0


def test_a_worker_that_nobody_wants_ends(host):
    worker = host.workers()[0]
    worker.channel.close()
    assert os.waitpid(worker.pid, 0)[1] == 0


def test_workers_outlive_their_parent():
    become_subreaper()
    host = Host([{"file": SAMPLE}])
    worker = host.workers()[0]
    host.process.kill()
    host.close()
    assert worker.run({"function": "nop", "file": SAMPLE}).code == 0


def test_spawn(tmp_path):
    result = spawn({"function": "loaded_by", "file": SAMPLE})
    assert result.code == 0
    result = spawn({"function": "fails", "file": SAMPLE})
    assert result.code == 1 and result.error["where"]["function"] == "inner"


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import no_such_module\n", "No module named 'no_such_module' (broken.py:1 in <module>)"),
        ("def f(:\n", "invalid syntax (broken.py, line 1) (broken.py:1)"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("1 / 0\n", "ZeroDivisionError"),
    ],
)
def test_imports_that_fail(tmp_path, text, words):
    with Host([{"file": write(tmp_path, "broken.py", text)}]) as host:
        assert host.ready["event"] == "failed"
        assert words in host.ready["error"]["message"]
        assert "kobza_worker" not in host.ready["error"]["traceback"]


def test_an_import_that_hangs(tmp_path):
    file = write(
        tmp_path, "slow.py", "import time\ntry:\n  time.sleep(100)\nexcept Exception: pass\n"
    )
    with Host([{"file": file}], import_timeout=0.2) as host:
        error = host.ready["error"]
        assert error["cause"] == "timeout" and error["where"]["line"] == 3


def test_threads_at_import_forbid_forking(tmp_path):
    file = write(
        tmp_path,
        "threads.py",
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True, name='poller').start()\n",
    )
    with Host([{"file": file}]) as host:
        assert host.ready["mode"] == "spawn"
        assert "poller" in host.ready["reason"]


def test_the_files_to_watch(host):
    files = [entry[0] for entry in host.ready["files"]]
    assert files[-1] == SAMPLE
    assert all(file.endswith("-packages") for file in files[:-1])


def test_two_files_of_one_name(tmp_path):
    files = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        files.append(write(tmp_path / folder, "flow.py", f"def which(): return '{folder}'\n"))
    files.append(write(tmp_path, "json.py", "def which(): return 'not the standard one'\n"))
    with Host([{"file": file} for file in files]) as host:
        found = [host.run("which", file=file).outputs["result"] for file in files]
    assert found == ["a", "b", "not the standard one"]


def test_forking_twice_works_where_cloning_does_not(tmp_path):
    """A library whose threads end before a fork and start again: forks go the general way."""
    pytest.importorskip("numpy")
    file = write(
        tmp_path,
        "maths.py",
        "import numpy\ndef go():\n  ones = numpy.ones((300, 300))\n  return float((ones @ ones).sum())\n"
        "def draw():\n  return float(numpy.random.random())\n",
    )
    become_subreaper()
    with Host([{"file": file}]) as host:
        assert host.ready["mode"] == "fork", host.ready
        assert host.run("go", file=file).outputs["result"] == 300.0**3
        assert len({host.run("draw", file=file).outputs["result"] for _ in range(2)}) == 2


def test_another_runner(tmp_path):
    write(tmp_path, "mine.py", "def run(task):\n  return {'result': task['context']['who']}\n")
    with Host([], path=[str(tmp_path)]) as host:
        result = host.run("anything", runner="mine:run", context={"who": "me"})
        assert result.outputs["result"] == "me"
