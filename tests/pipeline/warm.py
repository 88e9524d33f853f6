"""Python programs of a clone, each in a copy (fork) of a process that has imported the libraries, which take two seconds.

The programs, and all of fairway, are imported from the clone, as by `python -m` or `python -c` in its folder. Streams,
environment and exit status are those of bin/python, which calls `hand_over`.
"""

import atexit
import contextlib
import functools
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

LIBRARIES = """constriction dvc.cli.parser dvc.repo numba pandas pyarrow pydantic python_minifier safetensors.torch
sentencepiece torch tqdm yaml"""


@functools.cache
def started() -> str:
    """The address of the process; it ends with this one."""
    folder = tempfile.TemporaryDirectory(prefix="warm")  # its name is short, as that of a socket has to be
    address = str(Path(folder.name, "socket"))
    process = subprocess.Popen([sys.executable, __file__, address], env=os.environ | {"OMP_NUM_THREADS": "1"})
    atexit.register(lambda: (process.terminate(), process.wait(), folder.cleanup()))
    while not Path(address).exists():
        assert process.poll() is None
        time.sleep(0.01)
    return address


def hand_over(address: str, *arguments: str) -> int:
    """Have `python *arguments` run there; its exit status."""
    request = json.dumps([arguments, str(Path.cwd()), dict(os.environ)]).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [b"\n"], [0, 1, 2])
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return int(connection.recv(100))


def serve(address: str) -> None:
    for name in LIBRARIES.split():
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{address}.new")
        server.listen()
        Path(f"{address}.new").rename(address)
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                answer(connection)
            connection.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def answer(connection: socket.socket) -> None:
    """Run what is asked for in one more process, because a stage may end its own; say how it ended."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    request = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    program = os.fork()
    if program == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        act(*json.loads(request))
    connection.sendall(str(os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])).encode())
    os._exit(0)


def act(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    how, what, *rest = arguments
    sys.argv, sys.path[0] = [how, *rest], folder
    status = 0
    try:
        if how == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    sys.exit(hand_over(*sys.argv[1:])) if len(sys.argv) > 2 else serve(sys.argv[1])
