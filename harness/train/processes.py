"""One job in several processes of this machine: started, listened to, and ended together."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from accelerate import PartialState

from harness.errors import HarnessError, RequestError
from harness.store.peak_memory import peak
from harness.store.stage import Work
from harness.train.team import ALONE, Team, in_touch

Job: TypeAlias = Callable[[Work, Team], Mapping[str, Any]]
"""What every process does; a function of a module, so that another process finds it."""

PATIENCE = timedelta(minutes=30)
"""The longest that a process waits for another one: the checkpoint of a large model takes minutes,
and so do a step's pairs on a slow machine."""

_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
_CHECK_EVERY = 1.0  # seconds
_LAST_MOMENTS = 2.0  # seconds in which a process that was killed shows that it was


@dataclass(frozen=True)
class _Meeting:
    """Where the processes find each other, and what each of them may use."""

    file: Path
    patience: timedelta
    threads: int


@dataclass(eq=False)
class _Member:
    process: BaseProcess
    connection: Connection[Any, Any]


@dataclass(frozen=True)
class _Done:
    facts: Mapping[str, Any]
    memory: int | None


def in_processes(
    job: Job, work: Work, count: int, patience: timedelta = PATIENCE
) -> Mapping[str, Any]:
    """The facts of the job as the process that leads tells them; all end before this returns.

    One process is this one. Several are started anew, each with its own device, and this one
    only listens: what fails in one of them fails here, and the others are ended.

    Args:
        job: done by every process.
        work: the same for every process; only the leading one reports.
        count: how many.
        patience: the longest that one waits for another.

    Raises:
        RequestError: there are fewer GPUs than processes.
        HarnessError: a process died or left the others waiting.
    """
    if count == 1:
        return job(work, ALONE)
    _check_devices(count)
    threads = max(1, torch.get_num_threads() // count)
    with tempfile.TemporaryDirectory(prefix="team-") as folder:
        meeting = _Meeting(Path(folder) / "meeting", patience, threads)
        with _members(job, work, count, meeting) as members:
            found = _listen(members, work)
    memory = [done.memory for done in found]
    return {**found[0].facts, "process_memory": memory}


def _check_devices(count: int) -> None:
    if torch.cuda.is_available() and torch.cuda.device_count() < count:
        raise RequestError(
            f"'processes' = {count} and this machine has {torch.cuda.device_count()} GPUs: each "
            "process needs one of its own"
        )


@contextmanager
def _members(job: Job, work: Work, count: int, meeting: _Meeting) -> Iterator[list[_Member]]:
    """The processes; none of them is left behind."""
    context = multiprocessing.get_context("spawn")
    members: list[_Member] = []
    try:
        for rank in range(count):
            ours, theirs = context.Pipe()
            given = (theirs, job, replace(work, report=_unheard), Team(rank, count), meeting)
            process = context.Process(target=_serve, args=given, daemon=True)
            with theirs:
                process.start()
                members.append(_Member(process, ours))
        yield members
    finally:
        for member in members:
            member.process.kill()
            member.process.join()
            member.process.close()
            member.connection.close()


def _unheard(done: int, of: int, unit: str) -> None:
    """The report of a process that nobody listens to."""


def _listen(members: Sequence[_Member], work: Work) -> list[_Done]:
    """What every process said at its end.

    Raises:
        Exception: what a process failed of.
    """
    found: dict[int, _Done] = {}
    while len(found) < len(members):
        busy = [m for rank, m in enumerate(members) if rank not in found]
        wait([x for m in busy for x in (m.connection, m.process.sentinel)], _CHECK_EVERY)
        for rank, member in enumerate(members):
            if rank in found:
                continue
            died = not member.process.is_alive()  # before reading: its last words count
            for message in _messages(member):
                if isinstance(message, _Done):
                    found[rank] = message
                elif isinstance(message, BaseException):
                    raise _silent_death(members, busy) or message
                else:
                    work.report(*message)
            if died and rank not in found:
                raise _death(members, rank)
    return [found[rank] for rank in range(len(members))]


def _messages(member: _Member) -> Iterator[Any]:
    with suppress(EOFError, OSError):
        while member.connection.poll():
            yield member.connection.recv()


def _silent_death(members: Sequence[_Member], busy: Sequence[_Member]) -> HarnessError | None:
    """The process that was killed, if one was: the others then fail of its absence."""
    # One that fails by itself says so and stays until it is ended.
    gone = wait([m.process.sentinel for m in busy], _LAST_MOMENTS)
    dead = [rank for rank, m in enumerate(members) if m in busy and m.process.sentinel in gone]
    return _death(members, dead[0]) if dead else None


def _death(members: Sequence[_Member], rank: int) -> HarnessError:
    members[rank].process.join(_LAST_MOMENTS)  # its pipes close before it has a status
    status = members[rank].process.exitcode
    what = f"ended with status {status} and said nothing"
    if status is not None and status < 0:
        what = f"was killed by signal {-status} ({signal.strsignal(-status)})"
        if status == -signal.SIGKILL:
            what += ", most often because memory ran out: use fewer workers or processes"
    return HarnessError(
        f"process {rank + 1} of the {len(members)} of this training run {what}; the same command "
        "goes on from its last checkpoint"
    )


def _serve(
    connection: Connection[Any, Any], job: Job, work: Work, team: Team, meeting: _Meeting
) -> None:
    """The body of a process: meet the others, do the job, say how it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if team.leads:
        work = replace(work, report=lambda *progress: connection.send(progress))
    try:
        _meet(team, meeting)
        facts = job(work, team)
        connection.send(_Done(facts, peak(restarted=True).size))
        dist.destroy_process_group()
    except (Exception, SystemExit) as error:
        connection.send(_portable(error, team))
        # The others would fail of a partner that is gone, and might be heard first.
        with suppress(EOFError, OSError):
            connection.recv()


def _meet(team: Team, meeting: _Meeting) -> None:
    """Make this process one of a group, and accelerate's device its own."""
    gpu = torch.cuda.is_available()
    torch.set_num_threads(meeting.threads)
    os.environ |= {
        "RANK": str(team.rank), "WORLD_SIZE": str(team.size), "LOCAL_RANK": str(team.rank),
        "LOCAL_WORLD_SIZE": str(team.size), "OMP_NUM_THREADS": str(meeting.threads),
    }  # fmt: skip
    for name, value in _LOOPBACK.items():
        if os.path.isdir(f"/sys/class/net/{value}"):
            os.environ.setdefault(name, value)  # nobody else need hear what is said
    with in_touch():
        dist.init_process_group(
            "nccl" if gpu else "gloo", init_method=meeting.file.as_uri(), rank=team.rank,
            world_size=team.size, timeout=meeting.patience,
            device_id=torch.device("cuda", team.rank) if gpu else None,
        )  # fmt: skip
    PartialState(cpu=not gpu, backend="nccl" if gpu else "gloo")


def _portable(error: BaseException, team: Team) -> BaseException:
    """The error with its traceback as a note, or its words where it cannot travel."""
    trace = "".join(traceback.format_exception(error))
    try:
        found: BaseException = pickle.loads(pickle.dumps(error))
    except Exception:  # foreign classes may fail in any way; what they say still counts
        found = HarnessError(f"{type(error).__name__}: {error}")
    found.add_note(f"In process {team.rank + 1} of {team.size}:\n{trace}")
    return found


def _end_with_parent() -> None:
    """Ends this process at once when the one that started it is gone, however it went."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "it was started by in_processes"
    wait([parent.sentinel])
    os._exit(1)
