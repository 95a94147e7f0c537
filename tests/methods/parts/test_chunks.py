"""Encoding chunk by chunk is one step with the whole batch, in its value and its gradients, at less memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
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
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.flops import StepFlops, peak
from tests.support.models import SAME, batch, images, student

SETTINGS = FineTuning(own_negation_weight=0.5, freeze_logit_scale=False)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))


def silent(method: Method) -> Method:
    method.log = lambda *_, **__: None
    return method.double()


def step(method: Method, data: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients."""
    method.zero_grad()
    loss = method.training_step(data, 0)
    loss.backward()
    return loss.detach(), {
        name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None
    }


METHODS: dict[str, Callable[[], Method]] = {
    "clip": lambda: Clip(student(), SETTINGS),
    "spatial_attn": lambda: SpatialAttention(
        student(), SAME, value_connection=True, finetuning=SETTINGS
    ),
    "residual_linear": lambda: ResidualLinear(student(), SAME, cache=False, finetuning=SETTINGS),
}


@pytest.mark.parametrize("chunks", [(2, 3), (1, 0), (3, 5), (0, 4)])
@pytest.mark.parametrize("name", METHODS)
def test_a_step_in_chunks_is_the_step(name: str, chunks: tuple[int, int]) -> None:
    """Chunks of unequal size, of images, of captions, of one alone; the VFM's tokens from the cache and computed."""
    method, data = silent(METHODS[name]()), batch(5, 3)
    if isinstance(method, SpatialAttention):
        method.vfm.prepare(data["pixels"].permute(0, 2, 3, 1).numpy())
    loss, gradients = step(method, data)
    method.finetuning = replace(SETTINGS, chunk_images=chunks[0], chunk_captions=chunks[1])
    its_loss, its_gradients = step(method, data)
    torch.testing.assert_close(its_loss, loss, rtol=1e-12, atol=0)
    assert its_gradients.keys() == gradients.keys()
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(
            its_gradients[parameter], gradient, rtol=1e-9, atol=1e-12, msg=parameter
        )


def test_the_gradient_is_of_the_whole_contrast_and_not_of_chunks() -> None:
    """The mean over mini-batches of their own losses, which is what accumulating gradients gives, is another one."""
    torch.manual_seed(0)  # of the student: how much another one hangs on the weights
    method, data = silent(Clip(student(), SETTINGS)), batch(4, 3)
    _, whole = step(method, data)
    parts = []
    for first in (0, 2):
        of = (data["image"] >= first) & (data["image"] < first + 2)
        rows = of.nonzero()[:, 0].tolist()
        part = {
            "pixels": data["pixels"][first : first + 2],
            "image": data["image"][of] - first,
            "captions": [data["captions"][row] for row in rows],
            "negated": [data["negated"][row] for row in rows],
            "record": data["record"][of],
        }
        parts.append(step(method, part)[1]["student.visual.proj"])
    assert (sum(parts) / 2 - whole["student.visual.proj"]).norm() > 0.05 * whole[
        "student.visual.proj"
    ].norm()


def test_off_is_one_plain_call() -> None:
    calls: list[int] = []

    def encode(x: Tensor) -> Tensor:
        calls.append(len(x))
        return x.square()

    x = torch.ones(5, 2, requires_grad=True)
    for size in (0, 5, 9):
        in_chunks(encode, x, size).sum().backward()
    assert calls == [5, 5, 5]
    with torch.no_grad():
        in_chunks(encode, x, 2)
    assert calls[3:] == [5]
    in_chunks(encode, x, 2).sum().backward()
    assert sorted(calls[4:]) == [1, 1, 2, 2, 2, 2], (
        "each chunk once before the loss and once after it"
    )


def peak_bytes(work: Callable[[], object]) -> int:
    """Most bytes that ``work`` holds at a time beside what there was."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    held = most = 0
    for event in seen.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def test_memory_is_that_of_a_chunk() -> None:
    method, pixels = silent(Clip(student(), SETTINGS)), images(32)

    def work(size: int) -> Callable[[], object]:
        return lambda: in_chunks(method.image, pixels, size).sum().backward()

    work(0)()  # gradients exist from here on
    whole, chunked = peak_bytes(work(0)), peak_bytes(work(2))
    method.finetuning = replace(SETTINGS, checkpointing=True)
    assert chunked < whole / 4
    assert peak_bytes(work(0)) < whole / 1.5


@pytest.mark.parametrize("chunk", [0, 2])
def test_checkpointed_blocks_are_the_blocks(chunk: int) -> None:
    method, data = silent(METHODS["spatial_attn"]()), batch(4, 3)
    loss, gradients = step(method, data)
    method.finetuning = replace(SETTINGS, checkpointing=True, chunk_images=chunk)
    its_loss, its_gradients = step(method, data)
    torch.testing.assert_close(its_loss, loss, rtol=1e-12, atol=0)
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(
            its_gradients[parameter], gradient, rtol=1e-9, atol=1e-12, msg=parameter
        )


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Compilation stops before the C++ compiler; holds one number for each graph that was compiled."""
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
    method, data = silent(METHODS["spatial_attn"]()), batch(4, 3)
    loss, gradients = step(method, data)
    method.finetuning = replace(SETTINGS, compile=True, checkpointing=checkpointing, chunk_images=2)
    its_loss, its_gradients = step(method, data)
    torch.testing.assert_close(its_loss, loss, rtol=1e-9, atol=0)
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(
            its_gradients[parameter], gradient, rtol=1e-7, atol=1e-10, msg=parameter
        )
    assert 3 <= len(graphs) <= 6, (
        "two halves of a block and the last one's end, not three times as many"
    )
    graphs.clear()
    step(method, data)
    assert not graphs, "nothing is compiled twice"
    method.eval()
    with torch.no_grad():
        method.image(images(3))
    assert not graphs, "scoring runs as written"


def counted(method: Method, data: Any) -> StepFlops:
    flops = StepFlops()
    flops.start()
    step(method, data)
    flops.stop()
    return flops


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("chunk", [0, 2])
def test_flops_count_what_is_computed_twice_once(checkpointing: bool, chunk: int) -> None:
    method, data = silent(Clip(student(), SETTINGS)), batch(4, 3)
    plain = counted(method, data)
    assert plain.again == 0
    method.finetuning = replace(SETTINGS, checkpointing=checkpointing, chunk_images=chunk)
    found = counted(method, data)
    assert (found.again > 0) == (checkpointing or chunk > 0)
    assert found.once == pytest.approx(plain.once, rel=0.01)


def test_flops_of_a_step_by_hand() -> None:
    """A linear layer of 3 -> 5 on 7 rows: 2 x 7 x 3 x 5 forward, as much for its weight; its input has no gradient."""
    layer = torch.nn.Linear(3, 5, bias=False)
    flops = StepFlops()
    flops.start()
    layer(torch.ones(7, 3)).sum().backward()
    flops.stop()
    assert flops.once == 2 * 2 * 7 * 3 * 5


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
    found = peak(name)
    assert (found.tflops if found else None) == tflops


def test_a_chunk_is_a_number() -> None:
    with pytest.raises(SpatialbenchError, match=r"finetuning\.chunk_images is -1"):
        FineTuning(chunk_images=-1)
