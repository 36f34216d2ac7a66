"""Buffers: memory is used again when nobody refers to it, and never before."""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from numerai_sequence.system import buffers as buffers_module
from numerai_sequence.system.buffers import Buffers, scratch_array

SHAPE = (100, 33)
DTYPES = ["float32", "float16", "int8", "uint8"]

pytestmark = pytest.mark.skipif(
    not buffers_module._CAN_COUNT, reason="references are not counted here: nothing is used again"
)


def address(array):
    return array.ctypes.data


def filled(buffers, value, shape=SHAPE, dtype="float32"):
    array = buffers.empty(shape, dtype)
    array[:] = value
    return array


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (7,), SHAPE, (3, 5, 11), (1000, 129)])
@pytest.mark.parametrize("limit", [0, 3])
def test_array_is_aligned_contiguous_and_as_asked_for(shape, dtype, limit):
    buffers = Buffers(limit)
    kept = []
    for _ in range(5):
        array = buffers.empty(shape, dtype)
        assert (array.shape, array.dtype) == (shape, dtype)
        assert array.size == 0 or address(array) % 64 == 0
        assert array.flags.c_contiguous
        assert array.flags.writeable
        array[:] = 1
        kept.append(array)
        kept = kept[-2:]  # so that some memory is fresh, and some is used again


def test_memory_that_nobody_uses_is_used_again():
    buffers = Buffers(2)
    array = filled(buffers, 1)
    first = address(array)
    del array
    for value in range(5):
        array = filled(buffers, value)
        assert address(array) == first
        del array


def test_array_that_is_held_keeps_its_memory():
    buffers = Buffers(4)
    held = [filled(buffers, value) for value in range(4)]
    for value in range(100, 120):
        filled(buffers, value)
    assert [set(array.ravel().tolist()) for array in held] == [{0}, {1}, {2}, {3}]
    places = {address(array) for array in held}
    assert len(places) == 4
    del held
    assert address(buffers.empty(SHAPE, "float32")) in places


class Holder:
    """Something that a user may have made of an array."""

    def __init__(self, array):
        self.array = array


VIEWS = {
    "the array": lambda array: array,
    "a slice": lambda array: array[10:20],
    "one value": lambda array: array[5, 5:6],
    "a view of a view of a view": lambda array: array[1:][:, ::2][3:].T[:0:-1],
    "a transpose": lambda array: array.T,
    "another dtype": lambda array: array.view(np.uint8)[7:9],
    "a memoryview": memoryview,
    "a memoryview of a view": lambda array: memoryview(array[3:])[1:],
    "bytes of a memoryview": lambda array: memoryview(array).cast("B")[5:6],
    "an array of a memoryview": lambda array: np.asarray(memoryview(array)),
    "np.frombuffer": lambda array: np.frombuffer(array, np.uint8, offset=64, count=3),
    "a subclass": lambda array: array.view(np.matrix)[2:4],
    "a masked array": lambda array: np.ma.masked_less(array, 0, copy=False),
    "a broadcast": lambda array: np.broadcast_to(array[:1], SHAPE),
    "strides of its own": lambda array: np.lib.stride_tricks.as_strided(array, (3,), (8,)),
    "an iterator": lambda array: iter(array),
    "a flat iterator": lambda array: array.flat,
    "a list in a dict": lambda array: {"batch": [array]},
    "an object": Holder,
    "a function": lambda array: lambda: array,
    "the base alone": lambda array: array.base,
    "dlpack": lambda array: array.__dlpack__(),
    "an array from dlpack": lambda array: np.from_dlpack(array),
}


@pytest.mark.parametrize("kind", VIEWS)
def test_anything_made_of_an_array_keeps_its_memory(kind):
    buffers = Buffers(2)
    array = filled(buffers, 7)
    first = address(array)
    held = VIEWS[kind](array)
    del array
    size = SHAPE[0] * SHAPE[1] * 4
    found = bytes((np.ctypeslib.ctypes.c_char * size).from_address(first))
    for value in range(10):
        assert address(filled(buffers, value)) != first
    assert bytes((np.ctypeslib.ctypes.c_char * size).from_address(first)) == found
    del held
    gc.collect()
    assert first in {address(buffers.empty(SHAPE, "float32")) for _ in range(4)}


def test_what_a_cycle_holds_is_used_again_when_it_is_collected():
    buffers = Buffers(1)
    holder = Holder(filled(buffers, 1))
    holder.me, first = holder, address(holder.array)
    del holder
    gc.collect()
    assert address(buffers.empty(SHAPE, "float32")) == first


def test_weak_reference_does_not_keep_the_memory():
    buffers = Buffers(1)
    array = filled(buffers, 1)
    first, weak = address(array), weakref.ref(array)
    del array
    assert weak() is None
    assert address(buffers.empty(SHAPE, "float32")) == first


def tensor_of(backend, array):
    """A tensor of a backend, by the ways in which Keras makes them."""
    if backend == "tensorflow":
        return importlib.import_module("tensorflow").constant(array)
    if backend == "tensorflow-convert":
        return importlib.import_module("tensorflow").convert_to_tensor(array)
    if backend == "tensorflow-dlpack":
        dlpack = importlib.import_module("tensorflow").experimental.dlpack
        return dlpack.from_dlpack(array.__dlpack__())
    if backend == "jax":
        return importlib.import_module("jax.numpy").asarray(array)
    if backend == "jax-put":
        return importlib.import_module("jax").device_put(array)
    return importlib.import_module("torch").from_numpy(array)


BACKENDS = ["tensorflow", "tensorflow-convert", "tensorflow-dlpack", "jax", "jax-put", "torch"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_tensor_that_aliases_an_array_keeps_its_memory(backend):
    pytest.importorskip(backend.split("-")[0])
    buffers, shape = Buffers(3), (1000, 256)
    tensors = []
    for value in range(8):
        array = filled(buffers, value, shape)
        tensors.append(tensor_of(backend, array))
        del array
    for value in range(8):
        values = np.unique(np.asarray(tensors[value]))
        assert values.tolist() == [value]
    del tensors, values
    gc.collect()
    kept = {buffer.ctypes.data for buffer in buffers._kept}
    again = address(buffers.empty(shape, "float32"))
    assert any(0 <= again - start < 64 for start in kept)


def test_one_backend_here_really_aliases():
    """Otherwise the test above would prove nothing."""
    shape, found = (1000, 256), {}
    for backend in BACKENDS:
        if importlib.util.find_spec(backend.split("-")[0]) is None:
            continue
        array = filled(Buffers(0), 1, shape)
        tensor = tensor_of(backend, array)
        array[:] = 2
        found[backend] = bool((np.asarray(tensor) == 2).all())
    if not found:
        pytest.skip("no backend here")
    assert any(found.values()), found


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_no_more_than_the_limit_are_kept(limit):
    buffers = Buffers(limit)
    held = [filled(buffers, value) for value in range(10)]
    weak = [weakref.ref(array.base) for array in held]
    assert [array[0, 0] for array in held] == list(range(10))
    held.clear()
    assert sum(reference() is not None for reference in weak) == limit


def test_last_smaller_batch_does_not_cost_the_others_their_memory():
    buffers = Buffers(2)
    for _ in range(3):
        whole = filled(buffers, 1, (100, 33))
        rest = filled(buffers, 2, (60, 33))
        assert (whole == 1).all()
        assert (rest == 2).all()
        del whole, rest
    places = {address(buffers.empty((100, 33), "float32")) for _ in range(6)}
    assert len(places) == 1


def test_memory_is_used_for_what_is_smaller_but_not_for_what_is_far_smaller():
    buffers = Buffers(1)
    first = address(filled(buffers, 1, (100, 64)))
    assert address(buffers.empty((60, 64), "float32")) == first
    small = buffers.empty((10, 64), "float32")
    assert small.base.nbytes < 5000
    del small
    large = filled(buffers, 3, (200, 64))
    assert (large == 3).all()
    assert large.base.nbytes >= large.nbytes


@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_goes_from_one_dtype_to_another(dtype):
    buffers = Buffers(1)
    first = address(filled(buffers, 1, (64, 64), "float32"))
    columns = 64 * 4 // np.dtype(dtype).itemsize
    array = filled(buffers, 3, (64, columns), dtype)
    assert address(array) == first
    assert (array == 3).all()


def test_threads_never_share_memory():
    buffers, errors = Buffers(6), []
    start = threading.Barrier(8)

    def work(thread):
        rng = np.random.default_rng(thread)
        held = []
        start.wait()
        for step in range(600):
            value = thread * 1000 + step
            held.append((value, filled(buffers, value, (int(rng.integers(50, 101)), 33))))
            if len(held) > rng.integers(0, 4):
                value, array = held.pop(int(rng.integers(len(held))))
                if not (array == value).all():
                    errors.append((thread, step))
                del array

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
    finally:
        sys.setswitchinterval(switch)
    assert not errors
    held = [buffers.empty((100, 33), "float32") for _ in range(20)]
    del held
    assert len(buffers._kept) <= 6 + 8  # each thread may have put one back at the same time


def test_arrays_pass_from_thread_to_thread():
    """One thread makes batches and another uses them, as an enqueuer and a model do."""
    buffers, places = Buffers(8), set()

    def make(value):
        array = filled(buffers, value)
        places.add(address(array))
        return array

    with ThreadPoolExecutor(4) as pool:
        waiting = []
        for value in range(400):
            waiting.append((value, pool.submit(make, value)))
            if len(waiting) > 5:
                value, future = waiting.pop(0)
                assert (future.result() == value).all()
                del future
    assert len(places) < 40


def test_interpreter_that_counts_no_references_gets_fresh_arrays(monkeypatch):
    monkeypatch.setattr(buffers_module, "_CAN_COUNT", False)
    buffers = Buffers(5)
    weak = weakref.ref(filled(buffers, 1).base)
    assert weak() is None
    array = buffers.empty(SHAPE, "float32")
    assert address(array) % 64 == 0


def test_forked_process_uses_memory_of_its_own():
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    buffers = Buffers(2)
    held = filled(buffers, 5)
    free = address(filled(buffers, 6))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        array = filled(buffers, 9)
        os.write(writer, pickle.dumps((address(array) == free, bool((held == 5).all()))))
        os._exit(0)
    os.waitpid(child, 0)
    assert pickle.loads(os.read(reader, 1000)) == (True, True)
    os.close(reader)
    os.close(writer)
    assert (held == 5).all()


def test_borrowed_array_is_the_borrowers_own_and_its_memory_is_borrowed_again():
    first = scratch_array("test", 10, 20)
    assert (first.shape, first.dtype) == ((10, 20), np.uint8)
    first[:] = 1
    other = scratch_array("test", 10, 20)
    other[:] = 2
    scratch_array("test_other", 10, 20)[:] = 3
    with ThreadPoolExecutor(1) as pool:
        elsewhere = pool.submit(lambda: scratch_array("test", 10, 20)).result()
        elsewhere[:] = 4
    assert (first == 1).all()
    assert (other == 2).all()
    place = address(first)
    del first
    again = scratch_array("test", 4, 25)
    assert (again.shape, address(again)) == ((4, 25), place)
    del again, other, elsewhere
    larger = scratch_array("test", 100, 20)
    assert larger.shape == (100, 20)
    place = address(larger)
    del larger
    assert (
        address(scratch_array("test", 1, 2)) == place
    )  # and it is not given up for being too large
    assert scratch_array("test", 0, 20).shape == (0, 20)


def test_threads_that_come_and_go_borrow_the_same_memory():
    """TensorFlow's threads are new to Python at every call."""
    places = set()
    for _ in range(20):
        thread = threading.Thread(
            target=lambda: places.add(address(scratch_array("coming", 50, 50)))
        )
        thread.start()
        thread.join()
    assert len(places) == 1
