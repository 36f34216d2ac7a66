"""Messages: what goes into a socket comes out of it, and its arrays' memory is where it should."""

from __future__ import annotations

import socket
import threading

import numpy as np
import pytest

from numerai_sequence.feeding.socket_messages import pack, read, unpack, write

BATCH = {
    "x": np.arange(600_000, dtype=np.float32).reshape(200, 3000),  # more than a socket holds
    "y": (np.arange(200, dtype=np.float32), np.full(3, 2, np.int8)),
}


@pytest.fixture
def ends():
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def sent(ends, value, **options):
    sender = threading.Thread(target=write, args=(ends[0], pack(value)))
    sender.start()
    parts = read(ends[1], **options)
    sender.join()
    return unpack(parts)


def test_a_batch_comes_out_as_it_went_in(ends):
    found = sent(ends, BATCH)
    np.testing.assert_array_equal(found["x"], BATCH["x"])
    np.testing.assert_array_equal(found["y"][0], BATCH["y"][0])
    np.testing.assert_array_equal(found["y"][1], BATCH["y"][1])
    assert found["x"].dtype == np.float32
    assert found["y"][1].dtype == np.int8


@pytest.mark.parametrize(
    "array",
    [
        np.empty((0, 5), np.float32),
        np.array(3.5),
        np.arange(24).reshape(4, 6)[:, ::2],
        np.asfortranarray(np.arange(24).reshape(4, 6)),
        np.array(["a", None, "ü"], object),
    ],
    ids=["empty", "scalar", "strided", "columns", "objects"],
)
def test_arrays_of_every_kind(ends, array):
    found = sent(ends, array)
    assert found.shape == array.shape
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_arrays_are_not_pickled_but_sent_as_they_lie():
    first, *arrays = pack(BATCH)
    assert first.nbytes < 1000
    assert [part.nbytes for part in arrays] == [2_400_000, 800, 3]
    assert np.shares_memory(np.frombuffer(arrays[0], np.float32), BATCH["x"])


def test_the_largest_array_lies_in_the_memory_that_is_given(ends):
    given = []

    def empty(shape, dtype):
        given.append(np.empty(shape, dtype))
        return given[-1]

    found = sent(ends, BATCH, empty=empty)
    assert [array.nbytes for array in given] == [BATCH["x"].nbytes]
    assert np.shares_memory(found["x"], given[0])
    found["x"][0] = 7  # a batch may be written to


def test_messages_follow_one_another(ends):
    for value in (0, "place", [1, 2], None):
        assert sent(ends, value) == value


@pytest.mark.parametrize("share", [0, 4, 8, 20, 40, 2_000_000])
def test_an_end_that_closes_amid_a_message_is_an_error(ends, share):
    message = b""

    class Into:
        def sendall(self, part):
            nonlocal message
            message += bytes(part)

    write(Into(), pack(BATCH))
    assert share < len(message)

    def send():
        ends[0].sendall(message[:share])
        ends[0].close()

    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises(EOFError):
        read(ends[1])
    sender.join()


def test_nobody_at_the_other_end_is_an_error(ends):
    ends[1].close()
    with pytest.raises(OSError, match=r"(?i)pipe|reset"):
        write(ends[0], pack(BATCH))
