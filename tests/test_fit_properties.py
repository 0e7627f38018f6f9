"""What holds for every model, GPU and set of flags: more of a resource never hurts, asking for more never helps."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from serving.fit import fits, highest_utilization, lowest_utilization
from serving.gpus import Gpu, all_gpus
from serving.memory import Engine, memory_of
from serving.models import Model, all_models

models = st.sampled_from(all_models())
gpus = st.sampled_from(all_gpus())
versions = st.sampled_from(["0.8.5", "0.10.2", "0.15.1", "0.19.1", "0.21.0", "0.24.0", "0.27.1", "0.29.0", "0.32.0"])


@st.composite
def engines(draw: st.DrawFn) -> Engine:
    """Flags with an explicit batch: vLLM's own grows at 70 and 160 GiB, where a larger card really holds less."""
    return Engine(
        version=draw(versions),
        max_len=draw(st.integers(128, 65_536)),
        utilization=draw(st.integers(50, 98)) / 100,
        max_num_seqs=draw(st.integers(1, 1024)),
        max_num_batched_tokens=draw(st.integers(256, 16_384)),
        eager=draw(st.booleans()),
        kv_cache_dtype=draw(st.sampled_from(["auto", "fp8"])),
        foreign_gib=draw(st.floats(0, 2)),
        compiled=draw(st.booleans()),
    )


@given(models, gpus, engines(), st.floats(0, 64))
def test_more_memory_never_hurts(model: Model, gpu: Gpu, engine: Engine, more: float) -> None:
    larger = replace(gpu, memory_gib=gpu.memory_gib + more)
    here, there = fits(model, gpu, engine), fits(model, larger, engine)
    assert there.memory.kv_tokens >= here.memory.kv_tokens
    assert there.ok or not here.ok


@given(models, gpus, engines(), st.integers(0, 65_536))
def test_a_longer_context_never_fits_where_a_shorter_does_not(
    model: Model, gpu: Gpu, engine: Engine, longer: int
) -> None:
    short, long = fits(model, gpu, engine), fits(model, gpu, replace(engine, max_len=engine.max_len + longer))
    assert short.ok or not long.ok
    assert long.concurrency <= short.concurrency
    assert long.memory.kv_tokens == short.memory.kv_tokens


@given(models, gpus, engines(), st.integers(0, 1024), st.integers(0, 16_384))
def test_a_larger_batch_never_fits_where_a_smaller_does_not(
    model: Model, gpu: Gpu, engine: Engine, sequences: int, tokens: int
) -> None:
    larger = replace(
        engine,
        max_num_seqs=engine.max_num_seqs + sequences,
        max_num_batched_tokens=(engine.max_num_batched_tokens or 0) + tokens,
    )
    small, large = fits(model, gpu, engine), fits(model, gpu, larger)
    assert large.memory.kv_tokens <= small.memory.kv_tokens
    assert small.ok or not large.ok


@given(models, gpus, engines())
def test_the_longest_context_is_the_longest_that_fits(model: Model, gpu: Gpu, engine: Engine) -> None:
    found = fits(model, gpu, engine)
    if found.memory.card_free < 0 or found.memory.kv_tokens == 0:
        return
    assert fits(model, gpu, replace(engine, max_len=found.memory.kv_tokens)).ok
    assert not fits(model, gpu, replace(engine, max_len=found.memory.kv_tokens + 1)).ok


@given(models, gpus, engines())
def test_the_safe_utilisations_are_what_they_are_called(model: Model, gpu: Gpu, engine: Engine) -> None:
    memory = memory_of(model, gpu, engine)
    high, low = highest_utilization(memory), lowest_utilization(memory, engine.max_len)
    if 0 < high <= 1:
        assert memory_of(model, gpu, replace(engine, utilization=high)).card_free >= -1e-9
        assert memory_of(model, gpu, replace(engine, utilization=high + 0.02)).card_free < 0
    if 0 < low <= 1:
        assert memory_of(model, gpu, replace(engine, utilization=low)).kv_tokens >= engine.max_len
        assert memory_of(model, gpu, replace(engine, utilization=low - 0.02)).kv_tokens < engine.max_len


@given(models, gpus, engines())
def test_what_is_offered_instead_does_fit(model: Model, gpu: Gpu, engine: Engine) -> None:
    found = fits(model, gpu, engine)
    assert found.ok == (not found.shortfalls)
    for change in found.changes:
        match change.key:
            case "engine.gpu_memory_utilization":
                changed = fits(model, gpu, replace(engine, utilization=float(change.value)))
            case "model.max_len":
                changed = fits(model, gpu, replace(engine, max_len=int(change.value)))
            case "engine.max_num_seqs":
                changed = fits(model, gpu, replace(engine, max_num_seqs=int(change.value)))
            case _:
                continue
        assert changed.ok, change
