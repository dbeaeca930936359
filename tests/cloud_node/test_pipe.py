import asyncio
import threading
import time

import pytest

from cloud_node.scheduler import CancelToken, Pipe
from kvwire.errors import Cancelled, DeadlineExceeded


async def test_everything_arrives_in_order_through_a_narrow_pipe() -> None:
    pipe: Pipe[int] = Pipe(2, CancelToken(10))

    def work() -> None:
        for i in range(50):
            pipe.put(i)
        pipe.close(50)

    threading.Thread(target=work).start()
    assert [i async for batch in pipe.batches() for i in batch] == list(range(51))


async def test_a_writer_waits_while_nobody_reads() -> None:
    pipe: Pipe[int] = Pipe(2, CancelToken(10))
    written: list[int] = []

    def work() -> None:
        for i in range(5):
            pipe.put(i)
            written.append(i)
        pipe.close()

    threading.Thread(target=work).start()
    await asyncio.sleep(0.2)
    assert written == [0, 1]
    assert [i async for batch in pipe.batches() for i in batch] == list(range(5))


async def test_a_waiting_writer_gives_up_when_the_reader_goes_away() -> None:
    stop = CancelToken(10)
    pipe: Pipe[int] = Pipe(1, stop)
    pipe.put(1)
    asyncio.get_running_loop().call_later(0.1, stop.set)
    with pytest.raises(Cancelled):
        await asyncio.to_thread(pipe.put, 2)


async def test_a_waiting_writer_gives_up_when_the_time_is_over() -> None:
    pipe: Pipe[int] = Pipe(1, CancelToken(0.1))
    pipe.put(1)
    with pytest.raises(DeadlineExceeded):
        await asyncio.to_thread(pipe.put, 2)


def test_stop_tells_a_deadline_from_a_caller_who_left() -> None:
    stop = CancelToken(0.05)
    assert not stop()
    time.sleep(0.06)
    assert stop()
    with pytest.raises(DeadlineExceeded):
        stop.check()
    stop.set()
    with pytest.raises(Cancelled):
        stop.check()
