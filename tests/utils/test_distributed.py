"""Two ranks with half a batch each train like one process, with and without chunks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from spatialbench.data.batches import Batch
from spatialbench.methods.clip import Clip
from spatialbench.methods.parts.finetuning import FineTuning
from tests.support.models import batch, student


def halves(whole: Batch) -> list[Batch]:
    """Split unequally: 3 images with 9 pairs, 1 image with 3; captions repeat across them."""
    parts = []
    for images, pairs in ((slice(0, 3), slice(0, 9)), (slice(3, 4), slice(9, 12))):
        part = whole["image"][pairs]
        rest: Any = {name: whole[name][pairs] for name in ("captions", "negated", "record")}
        parts.append(Batch(pixels=whole["pixels"][images], image=part - part.min(), **rest))
    return parts


def step(method: Clip, data: Batch) -> tuple[float, dict[str, torch.Tensor]]:
    """Return loss and gradients, averaged over ranks as DistributedDataParallel does."""
    method.log = lambda *_, **__: None
    method.zero_grad()
    loss = method.double().training_step(data, 0)
    loss.backward()
    named = method.named_parameters()
    gradients = {name: p.grad.clone() for name, p in named if p.grad is not None}
    if dist.is_initialized():
        for gradient in gradients.values():
            dist.all_reduce(gradient)
            gradient /= dist.get_world_size()
    return loss.item(), gradients


def rank(number: int, folder: Path, spec: str, settings: FineTuning, data: list[Batch]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    method = Clip(spec, settings)
    method.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    whole = step(method, data[number])
    # 3 chunks here, 1 there
    method.finetuning = replace(settings, chunk_images=1, chunk_captions=4)
    torch.save([whole, step(method, data[number])], folder / f"{number}.pt")
    dist.destroy_process_group()


def test_two_ranks_are_one_process_with_the_whole_batch(tmp_path: Path) -> None:
    data = batch(4, 3)
    for part in (data["captions"], data["negated"]):
        part[9] = part[0]  # the second rank encodes a caption of the first
    settings = FineTuning(own_negation_weight=0.5, freeze_logit_scale=False)
    method = Clip(student(), settings)
    torch.save(method.state_dict(), tmp_path / "weights.pt")
    loss, gradients = step(method, data)
    mp.spawn(rank, (tmp_path, student(), settings, halves(data)), nprocs=2)
    for number in range(2):
        for its_loss, its_gradients in torch.load(tmp_path / f"{number}.pt", weights_only=True):
            torch.testing.assert_close(its_loss, loss, rtol=1e-12, atol=0)
            assert its_gradients.keys() == gradients.keys()
            for name, gradient in gradients.items():
                torch.testing.assert_close(its_gradients[name], gradient, rtol=1e-9, atol=1e-12)
