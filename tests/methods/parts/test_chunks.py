"""Encoding in chunks is one step with the whole batch, in value and gradients, at less memory."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from spatialbench.methods.base import Method
from spatialbench.methods.clip import Clip
from spatialbench.methods.parts.chunks import in_chunks
from spatialbench.methods.parts.finetuning import FineTuning
from spatialbench.methods.residual_linear import ResidualLinear
from spatialbench.methods.spatial_attn import SpatialAttention
from spatialbench.models import running
from spatialbench.utils.flops import StepFlops, peak
from tests.support.models import SAME, batch, images, step, student

SETTINGS = FineTuning(own_negation_weight=0.5, freeze_logit_scale=False)


def method(name: str = "clip") -> Method:
    made: Method = Clip(student(), SETTINGS)
    if name == "spatial_attn":
        made = SpatialAttention(student(), SAME, value_connection=True, finetuning=SETTINGS)
    if name == "residual_linear":
        made = ResidualLinear(student(), SAME, cache=False, finetuning=SETTINGS)
    return made.double()


def assert_the_same_step(made: Method, data: Any, loss_rtol: float = 1e-12, **changes: Any) -> None:
    """Compare a step with one under changed settings."""
    loss, gradients = step(made, data)
    made.finetuning = replace(SETTINGS, **changes)
    changed_loss, changed = step(made, data)
    torch.testing.assert_close(changed_loss, loss, rtol=loss_rtol, atol=0)
    assert changed.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(changed[name], gradient, rtol=1e-7, atol=1e-12, msg=name)


@pytest.mark.parametrize("chunks", [(2, 3), (1, 0), (3, 5), (0, 4)])
@pytest.mark.parametrize("name", ["clip", "spatial_attn", "residual_linear"])
def test_a_step_in_chunks_is_the_step(name: str, chunks: tuple[int, int]) -> None:
    """Chunks of unequal size, of images, of captions, of one; the VFM's tokens cached and not."""
    made, data = method(name), batch(5, 3)
    if isinstance(made, SpatialAttention):
        made.vfm.prepare(data["pixels"].permute(0, 2, 3, 1).numpy())
    assert_the_same_step(made, data, chunk_images=chunks[0], chunk_captions=chunks[1])


@pytest.mark.parametrize("chunk", [0, 2])
def test_checkpointed_blocks_are_the_blocks(chunk: int) -> None:
    made, data = method("spatial_attn"), batch(4, 3)
    assert_the_same_step(made, data, checkpointing=True, chunk_images=chunk)


def test_off_is_one_plain_call() -> None:
    calls: list[int] = []
    x = torch.ones(5, 2, requires_grad=True)

    def encode(x: Tensor) -> Tensor:
        calls.append(len(x))
        return x.square()

    for size in (0, 5, 9):
        in_chunks(encode, x, size).sum().backward()
    with torch.no_grad():
        in_chunks(encode, x, 2)
    assert calls == [5, 5, 5, 5]
    in_chunks(encode, x, 2).sum().backward()
    assert sorted(calls[4:]) == [1, 1, 2, 2, 2, 2], "each before the loss and after it"


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the most bytes that ``work`` adds to what there was."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    total = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            total += event.nbytes()
            most = max(most, total)
    return most


def test_memory_is_that_of_a_chunk() -> None:
    made, pixels = method(), images(32)

    def work(size: int) -> Callable[[], object]:
        return lambda: in_chunks(made.image, pixels, size).sum().backward()

    work(0)()  # gradients exist from here on
    whole, chunked = peak_bytes(work(0)), peak_bytes(work(2))
    made.finetuning = replace(SETTINGS, checkpointing=True)
    assert chunked < whole / 4
    assert peak_bytes(work(0)) < whole / 1.5


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Stop compilation before the C++ compiler; one number for each compiled graph."""
    made: list[int] = []
    compiler = torch.compile

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        made.append(len(inputs))
        return graph.forward

    running._compiled.cache_clear()
    torch._dynamo.reset()
    monkeypatch.setattr(
        torch, "compile", lambda function, **kwargs: compiler(function, backend=backend, **kwargs)
    )
    yield made
    running._compiled.cache_clear()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_blocks_are_the_blocks_and_share_their_graphs(
    graphs: list[int], checkpointing: bool
) -> None:
    made, data = method("spatial_attn"), batch(4, 3)
    changes = {"compile": True, "checkpointing": checkpointing, "chunk_images": 2}
    assert_the_same_step(made, data, loss_rtol=1e-9, **changes)
    assert 3 <= len(graphs) <= 6, "two halves of a block and the last one's end, not of each block"
    graphs.clear()
    step(made, data)
    assert not graphs, "nothing is compiled twice"
    with torch.no_grad():
        made.eval().image(images(3))
    assert not graphs, "scoring runs as written"


def counted(work: Callable[[], object]) -> StepFlops:
    flops = StepFlops()
    flops.start()
    work()
    flops.stop()
    return flops


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("chunk", [0, 2])
def test_flops_count_what_is_computed_twice_once(checkpointing: bool, chunk: int) -> None:
    made, data = method(), batch(4, 3)
    plain = counted(lambda: step(made, data))
    assert plain.again == 0
    made.finetuning = replace(SETTINGS, checkpointing=checkpointing, chunk_images=chunk)
    flops = counted(lambda: step(made, data))
    assert (flops.again > 0) == (checkpointing or chunk > 0)
    assert flops.once == pytest.approx(plain.once, rel=0.01)


def test_flops_of_a_step_by_hand() -> None:
    """Linear 3 -> 5 on 7 rows: 2 x 7 x 3 x 5 forward, and for the gradient of its weight."""
    layer = torch.nn.Linear(3, 5, bias=False)
    assert counted(lambda: layer(torch.ones(7, 3)).sum().backward()).once == 2 * 2 * 7 * 3 * 5


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H200", 790),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 4090", 165),
        ("Tesla K80", None),
    ],
)
def test_the_peak_of_a_device(name: str, tflops: float | None) -> None:
    known = peak(name)
    assert (known.tflops if known else None) == tflops
