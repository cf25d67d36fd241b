"""Python processes that tests start, without the second of processor time that each takes to import its modules.

    process = subprocess.Popen([PYTHON, "-m", "services.runtime"], env=env, stdout=log)

`PYTHON` is our interpreter. While `forks_python` is in force (in every session of pytest), `subprocess`, and asyncio
with it, doesn't start it anew: a server, which has imported what the module imports and has done nothing else, forks.
The process is our child in every respect: its arguments, environment, folder, standard files, session, limits and umask
are those that `subprocess` would give it, and so are its exit status and whatever `Popen` does with it. It ends as the
interpreter ends, too. `/proc` still shows the server's arguments and first environment.

There is a server for each module and each set of variables that the interpreter or imports read (`_READ_AT_START`), in
each process that starts some; it ends with that process. What a fork can't have is left to a real start: `-c` and
scripts, descriptors to keep, other users, and every system but Linux. `PYTHON` behind a shell is a real start as well.

Forks share what a process decides once: the seed of its hashes, and what imports make at random. What is about a fresh
process uses `sys.executable`: imports and their cost, the installed script, other interpreters, other users.

A program that only works in a fork is found by the tests that start it anew: the kills at random of `tests/kills`,
those of `oa_platform.process` and of the wheel, all that `oa up` and `oa demo` start, `oa` in a shell (as in the pages
that are followed), and, with the fixture `real_processes`, the whole path and the kills of `tests/e2e`.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import io
import itertools
import os
import pickle
import pkgutil
import resource
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from oa_localstack.processes import launch

PYTHON = "/./".join(sys.executable.rsplit("/", 1))
"""The interpreter by a name of its own, which is a path to it for everybody else."""

_READ_AT_START = (b"PYTHON", b"LANG", b"LC_", b"LD_", b"MALLOC_", b"TZ", b"TMPDIR", b"GRPC_", b"OTEL_")
_LOADED_LATER = {
    "apps.cli": ("apps.cli.*",),
    "httpx": ("httpcore", "h2.connection", "anyio._backends._asyncio", "certifi"),
    "uvicorn": ("uvicorn.lifespan.off", "uvloop", "concurrent.futures.thread"),
}
"""What each of these loads on first use: a server has loaded it if it has loaded these."""
_FORK_EXEC: Callable[..., int] = subprocess._fork_exec  # type: ignore[attr-defined]
"""With what `subprocess` starts processes."""
_SET_CHILD_SUBREAPER = 36
_NUMBER_BYTES = 8
_NOT_SET_UP = 255
"""The status of a process that `Popen` waits for and never shows."""


class _Given(NamedTuple):
    """What `subprocess` gives to the function that forks and executes, by its names for it."""

    args: Sequence[str | bytes | os.PathLike[str]]
    executable_list: tuple[bytes, ...]
    close_fds: bool
    fds_to_keep: tuple[int, ...]
    cwd: str | bytes | os.PathLike[str] | None
    env_list: list[bytes] | None
    p2cread: int
    p2cwrite: int
    c2pread: int
    c2pwrite: int
    errread: int
    errwrite: int
    errpipe_read: int
    errpipe_write: int
    restore_signals: bool
    start_new_session: bool
    process_group: int
    gid: int | None
    gids: list[int] | None
    uid: int | None
    umask: int
    preexec_fn: object

    @property
    def is_plain(self) -> bool:
        """Whether it asks for nothing that a fork can't have. A real start also says best that there is no folder."""
        others = (self.gid, self.gids, self.uid, self.preexec_fn)
        return (
            self.close_fds
            and self.fds_to_keep == (self.errpipe_write,)
            and self.umask == -1
            and others == (None,) * len(others)
            and self.executable_list == (os.fsencode(self.args[0]),)
            and self.folder.is_dir()
        )

    @property
    def standard_files(self) -> tuple[int, int, int]:
        """The descriptors for standard input, output and errors; those that are not given are inherited."""
        given = (self.p2cread, self.c2pwrite, self.errwrite)
        return tuple(own if one == -1 else one for own, one in enumerate(given))  # type: ignore[return-value]

    @property
    def environment(self) -> dict[bytes, bytes]:
        """The environment of the process."""
        variables = _variables() if self.env_list is None else self.env_list
        return {name: value for name, _, value in (variable.partition(b"=") for variable in variables)}

    @property
    def folder(self) -> Path:
        """The current directory of the process."""
        return Path.cwd() if self.cwd is None else Path.cwd() / os.fsdecode(self.cwd)


def _variables() -> Iterator[bytes]:
    """Our own environment. Libraries have set variables, which `os.environ` doesn't have."""
    environ = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
    return itertools.takewhile(bool, environ)  # type: ignore[arg-type]


class _Command(NamedTuple):
    """A module's program, and how `launch` is to tie it to its parent, if it is."""

    ties: tuple[int, ...]
    flags: tuple[str, ...]
    module: str
    arguments: tuple[bytes, ...]

    @classmethod
    def of(cls, args: Sequence[str | bytes | os.PathLike[str]]) -> _Command | None:
        """What `args` ask for; None if a fork can't be that."""
        words = [os.fsdecode(word) for word in args]
        ties: tuple[int, ...] = ()
        if words[:4] == [sys.executable, "-I", "-S", launch.__file__]:
            ties, words = tuple(map(int, words[4:8])), words[8:]
        if words[:1] != [PYTHON] or "-m" not in words:
            return None
        at = words.index("-m")
        flags, module, arguments = words[1:at], words[at + 1], words[at + 2 :]
        if not {*flags} <= {"-P", "-u"}:
            return None
        return cls(ties, tuple(flags), module, tuple(map(os.fsencode, arguments)))


class _Request(NamedTuple):
    """What a server needs to know for a fork."""

    command: _Command
    environment: dict[bytes, bytes]
    folder: Path
    start_new_session: bool
    process_group: int


# ---------------------------------------------------------------- in the process that starts others


class _Server:
    """A server that runs: a child that has imported a module's imports."""

    def __init__(self, flags: tuple[str, ...], module: str, environment: dict[bytes, bytes], folder: Path) -> None:
        self._channel, theirs = socket.socketpair()
        with theirs:
            code = f"from oa_testing.fork_server import serve; serve({theirs.fileno()}, {module!r})"
            self._process = subprocess.Popen(
                [sys.executable, *flags, "-c", code],
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._module = module

    def fork(self, request: _Request, descriptors: Sequence[int]) -> int:
        """Return the id of a new process of ours."""
        content = pickle.dumps(request)
        with _adopting(), contextlib.suppress(ConnectionError):
            socket.send_fds(self._channel, [len(content).to_bytes(_NUMBER_BYTES)], descriptors)
            self._channel.sendall(content)
            if answer := _received(self._channel, _NUMBER_BYTES):
                return int.from_bytes(answer)
        raise ChildProcessError(f"the fork server of {self._module} has ended; its words are among our errors")

    def end(self) -> None:
        """End the server. Its forks live on."""
        self._channel.close()
        self._process.wait()


class _Servers:
    """The servers of this process."""

    def __init__(self) -> None:
        self._servers: dict[Any, _Server] = {}
        self._lock = threading.Lock()

    def fork_exec(self, *given: Any) -> int:
        """Start a process for `subprocess`; returns its id."""
        one = _Given(*given[: len(_Given._fields)])
        command = _Command.of(one.args) if one.is_plain else None
        if command is None:
            return _FORK_EXEC(*given)
        request = _Request(command, one.environment, one.folder, one.start_new_session, one.process_group)
        with self._lock:
            server = self._server(request)
            return server.fork(request, [*one.standard_files, one.errpipe_write])

    def _server(self, request: _Request) -> _Server:
        command = request.command
        at_start = {name: value for name, value in request.environment.items() if name.startswith(_READ_AT_START)}
        key = (command.flags, command.module, frozenset(at_start.items()))
        if key not in self._servers:
            self._servers[key] = _Server(command.flags, command.module, at_start, request.folder)
        return self._servers[key]

    def end(self) -> None:
        """End all of them."""
        with self._lock:
            while self._servers:
                self._servers.popitem()[1].end()


@contextlib.contextmanager
def forks_python() -> Iterator[None]:
    """Let `subprocess` fork what begins with `PYTHON`, for the time of the block."""
    if sys.platform != "linux":
        yield
        return
    servers = _Servers()
    try:
        with _starting(servers.fork_exec):
            yield
    finally:
        servers.end()


@contextlib.contextmanager
def starts_python() -> Iterator[None]:
    """Let `subprocess` start everything anew, for the time of the block."""
    with _starting(_FORK_EXEC):
        yield


@contextlib.contextmanager
def _starting(function: Callable[..., int]) -> Iterator[None]:
    module: Any = subprocess
    before = module._fork_exec, module._USE_POSIX_SPAWN
    # From Python 3.13 on, `posix_spawn` would come first; the documentation of `subprocess` says how to switch it off.
    module._fork_exec, module._USE_POSIX_SPAWN = function, False
    try:
        yield
    finally:
        module._fork_exec, module._USE_POSIX_SPAWN = before


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Become the parent of each process below us whose own parent ends: of a fork, that is how it gets ours.

    It is for no longer than a fork takes, so that a test's orphans go to the system's first process, as they do
    elsewhere.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _received(channel: socket.socket, count: int) -> bytes:
    """So many bytes; fewer if the other side has closed."""
    content = bytearray()
    while len(content) < count and (part := channel.recv(count - len(content))):
        content += part
    return bytes(content)


# ---------------------------------------------------------------- in the server


def serve(descriptor: int, module: str) -> None:
    """Fork for each request until the other side of the socket closes; in a fork, be the program of `module`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # Ctrl-C is for the processes of a test
    _load(module)
    gc.collect()
    gc.freeze()
    if len([*Path("/proc/self/task").iterdir()]) > 1:
        sys.exit(f"fork server: what {module} imports starts threads, and these are not in a fork")
    channel = socket.socket(fileno=descriptor)
    while True:
        length, received, _, _ = socket.recv_fds(channel, _NUMBER_BYTES, 4)
        if not length:
            return None
        request = pickle.loads(_received(channel, int.from_bytes(length)))  # noqa: S301 - our parent's
        if (command := _forked(channel, request, received)) is not None:
            del channel
            return _run(command)
        for one in received:
            os.close(one)


def _load(module: str) -> None:
    """Import what the program imports. Its own module is not kept: it is run in the fork, as `__main__`."""
    imported = importlib.import_module(module)
    own = f"{module}.__main__" if hasattr(imported, "__path__") else module
    importlib.import_module(own)
    for name in (later for user, all_later in _LOADED_LATER.items() if user in sys.modules for later in all_later):
        if name.endswith(".*"):
            path = importlib.import_module(name.removesuffix(".*")).__path__
            names = [one.name for one in pkgutil.walk_packages(path, name.removesuffix("*"))]
        else:
            names = [name]
        for one in names:
            if ".tests" not in one:
                importlib.import_module(one)
    del sys.modules[own]


def _forked(channel: socket.socket, request: _Request, received: list[int]) -> _Command | None:
    """Fork. Returns the command in the fork when it is set up, and None in the server."""
    free, freeing = os.pipe()
    told, telling = os.pipe()
    between = os.fork()
    if between == 0:
        if child := os.fork():
            os.write(telling, child.to_bytes(_NUMBER_BYTES))
            os._exit(0)
        for one in (freeing, told, telling):
            os.close(one)
        channel.close()
        os.read(free, 1)  # ends when the server has closed the other side: then our parent is who asked for us
        os.close(free)
        _set_up(request, received)
        return request.command
    os.close(free)
    os.close(telling)
    os.waitpid(between, 0)
    os.close(freeing)
    channel.sendall(os.read(told, _NUMBER_BYTES))
    os.close(told)
    return None


# ---------------------------------------------------------------- in the fork


def _set_up(request: _Request, received: list[int]) -> None:
    """Get what `subprocess` would give. `Popen` waits for the end of the pipe for errors, and raises what is in it."""
    *files, errors = received
    try:
        if request.start_new_session:
            os.setsid()
        if request.process_group != -1:
            os.setpgid(0, request.process_group)
        os.chdir(request.folder)
    except OSError as error:
        os.write(errors, f"{type(error).__name__}:{error.errno:x}:noexec".encode())
        os._exit(_NOT_SET_UP)
    for own, one in enumerate(files):
        os.dup2(one, own)
        os.close(one)
    _take_limits(os.getppid())
    coerced = {name: value for name, value in os.environb.items() if name == b"LC_CTYPE"}  # the interpreter's doing
    os.environ.clear()
    os.environb.update(request.environment | coerced)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    os.close(errors)


def _take_limits(parent: int) -> None:
    """Inherit what our parent has now, and the server had perhaps not when it was started."""
    for name in dir(resource):
        if name.startswith("RLIMIT_"):
            number = getattr(resource, name)
            resource.setrlimit(number, resource.prlimit(parent, number))
    status = Path(f"/proc/{parent}/status").read_text("ascii")
    os.umask(int(status.partition("Umask:")[2].split()[0], 8))


def _run(command: _Command) -> None:
    """Run the program as `python -m` does, with standard files as the interpreter opens them."""
    sys.stdin, sys.stdout, sys.stderr = (_standard_file(own) for own in range(3))
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    sys.argv = ["-m", *map(os.fsdecode, command.arguments)]
    sys.orig_argv = [PYTHON, *command.flags, "-m", command.module, *sys.argv[1:]]
    if not sys.flags.safe_path:
        sys.path[0] = str(Path.cwd())
    if command.ties:
        launch.tie(*command.ties)
    runpy._run_module_as_main(command.module)  # type: ignore[attr-defined]


def _standard_file(own: int) -> io.TextIOWrapper:
    like: Any = (sys.stdin, sys.stdout, sys.stderr)[own]
    binary = open(  # noqa: SIM115 - it is open as long as the process runs
        own, "wb" if own else "rb", buffering=0 if own and like.write_through else -1, closefd=False
    )
    return io.TextIOWrapper(
        binary,
        like.encoding,
        like.errors,
        "\n",
        line_buffering=not like.write_through and (own == 2 or os.isatty(own)),
        write_through=like.write_through,
    )
