"""Ray ranks: connect the workers of a Ray training as JAX processes, and return their ranks."""

from __future__ import annotations

import socket

from ..system.optional_packages import load_extra
from .keras_compat import active_keras


def connect_ranks() -> tuple[int, int]:
    """Connect this Ray Train worker with the others, and return its rank and their number.

    Call it at the start of the function that Ray's ``JaxTrainer`` runs on each worker, before any
    use of JAX. Then ``fit`` of Keras on JAX adds up the gradients of all workers. It sets Keras's
    ``DataParallel`` distribution with ``auto_shard_dataset=False``, because each sequence reads its
    own rows::

        rank, world_size = connect_ranks()
        training = NumeraiSequence(
            "shards/", rank=rank, world_size=world_size, drop_remainder=True
        )

    Returns
    -------
    rank, world_size : int
        Number of this worker, from 0, and number of workers.

    Raises
    ------
    NumeraiSequenceError
        Ray or JAX is not installed.
    RuntimeError
        The call is not in a Ray Train worker; Keras does not run on JAX; or JAX is already in use.
    """
    keras = active_keras()
    backend = keras.backend.backend() if hasattr(keras, "distribution") else "tensorflow"
    if backend != "jax":
        raise RuntimeError(
            f"connect_ranks: found Keras {keras.__version__} on {backend}, expected Keras 3 on "
            "JAX, because only its fit adds up the gradients of several processes; set "
            "KERAS_BACKEND to jax on all machines, with ray.init(runtime_env={'env_vars': {...}})"
        )
    jax = load_extra("jax", "jax", "ranks", extra="ray")
    context = load_extra("ray.train", "ray[train]", "ranks", extra="ray").get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    if world_size > 1 and not jax.distributed.is_initialized():  # Ray sees to GPUs and TPUs only
        jax.distributed.initialize(_agree_on_address(rank), world_size, rank)
    if jax.process_count() != world_size:
        raise RuntimeError(
            f"connect_ranks: found {jax.process_count()} JAX processes, expected {world_size}; "
            "call it before any other use of JAX"
        )
    distribution = keras.distribution.DataParallel(auto_shard_dataset=False)
    keras.distribution.set_distribution(distribution)
    return rank, world_size


def _agree_on_address(rank: int) -> str:
    """Return a free address on rank 0's machine, where the JAX processes connect."""
    collective = load_extra("ray.train.collective", "ray[train]", "ranks", extra="ray")
    address = None
    if rank == 0:
        with socket.socket() as free:
            free.bind(("", 0))
            host = load_extra("ray", "ray", "ranks", extra="ray").util.get_node_ip_address()
            address = f"{host}:{free.getsockname()[1]}"
    return str(collective.broadcast_from_rank_zero(address))
