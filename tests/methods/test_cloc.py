"""CLOC: (1) to (6) as loops, what is no negative, who learns, and a plain CLIP that remains."""

import math
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor

from spatialbench.data.batches import Batch
from spatialbench.data.locations import NamedBoxes, named_boxes
from spatialbench.data.records import Box, Record
from spatialbench.data.relations import CONVERSE, RELATIONS, Statement
from spatialbench.methods.clip import Clip
from spatialbench.methods.cloc import ALIKE, Cloc, ClocReadout, region_contrast
from tests.support.checks import close, refused
from tests.support.models import NAMES, batch, images, shaken, silent, step, student
from tests.utils.test_distributed import step as step_of_ranks

BOXES = {
    "sofa": Box(0, 0, 16, 8),
    "lamp": Box(24, 20, 8, 12),
    "bed": Box(4, 20, 10, 6),
    "floor lamp": Box(16, 2, 4, 16),
}


def record(row: int, subject: str, other: str, **changes: object) -> Record:
    given = {"boxes": BOXES, "image_size": (32, 32), **changes}
    return Record(str(row), row // 3, subject, "left", other, **given)


def records(**changes: object) -> list[Record]:
    """Return records for the rows of ``batch()``."""
    return [record(k, NAMES[k % 4], NAMES[(k + 1 + k // 4) % 4], **changes) for k in range(12)]


def cloc(**arguments: object) -> Cloc:
    torch.manual_seed(0)
    made = shaken(Cloc(student(), **arguments))
    made.prepare(records(), "squash")
    return silent(made)


def prompted(model: Cloc, prompt: Tensor, image: Tensor) -> Tensor:
    """Return (1) for one prompt [W] and one image uint8 [1, 3, S, S], by open_clip's own tower."""
    visual, layer = model.student.visual, model.prompter.layer
    x = visual.transformer(visual._embeds((image - model.mean) / model.std))
    x = torch.cat([prompt[None], visual.ln_post(x)[0]])
    attention = layer.self_attn
    q, k, v = (layer.norm1(x) @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, -1)
    rows = [[math.exp(a @ b / math.sqrt(len(a))) for b in k] for a in q]
    weights = torch.tensor([[each / sum(row) for each in row] for row in rows], dtype=x.dtype)
    x = x + attention.out_proj(weights @ v)
    hidden = layer.linear1(layer.norm2(x))
    x = x + layer.linear2(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2)
    return model.prompter.projection(sum(x) / len(x))


def of_box(model: Cloc, box: Tensor) -> Tensor:
    waves: list[float] = []
    for coordinate in box.tolist():
        angles = [coordinate * math.pi * 2**k for k in range(8)]
        waves += [*map(math.sin, angles), *map(math.cos, angles)]
    return model.prompter.box(box.new_tensor(waves))


@torch.no_grad()
def test_the_equations_as_loops() -> None:
    model, data = cloc(weight=0.7, regions=2).double(), batch(4, 3)
    chosen = named_boxes(data, model.records, model.boxes, 2)
    chosen = NamedBoxes(chosen.image, chosen.names, chosen.boxes.double())
    z, t, square = [], [], 0.0
    for image, name, box in zip(*chosen, strict=True):
        x, text = data["pixels"][image : image + 1], model.text(model.tokenize([f"a {name}"]))[0]
        z.append(prompted(model, of_box(model, box), x))
        t.append(text)
        hidden = model.box_head[0](prompted(model, model.prompter.phrase(text), x))
        said = model.box_head[2](hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2)
        square += sum(float(a - b) ** 2 for a, b in zip(box, said, strict=True))
    scale, count = float(model.student.logit_scale.exp()), len(z)
    e = [[math.exp(scale * float(a @ b / a.norm())) for b in t] for a in z]
    apart = [[m == n or float(t[m] @ t[n]) <= ALIKE for n in range(count)] for m in range(count)]
    assert not all(map(all, apart)), "names repeat"
    total = 0.0
    for m in range(count):
        others = [n for n in range(count) if apart[m][n]]
        total -= math.log(e[m][m] / sum(e[m][n] for n in others))
        total -= math.log(e[m][m] / sum(e[n][m] for n in others))
    phrases = [f"a {name}" for name in NAMES]
    contrast, ground = model.region_losses(model.tokens(data["pixels"]), chosen, phrases)
    assert float(contrast) == pytest.approx(total / (2 * count), rel=1e-9)
    assert float(ground) == pytest.approx(square / (4 * count), rel=1e-9)
    loss = model.training_step(data, 0)  # its boxes are in float32
    expected = model.finetuning_loss(data) + 0.7 * (contrast + ground)
    close(loss, expected, rtol=1e-5)


def test_texts_that_may_name_the_same_are_no_negatives() -> None:
    """Texts at 0, 18 and 60 degrees: cosines 0.951 (left out), 0.5 and 0.743 (kept)."""
    angles = torch.tensor([0.0, 18.0, 60.0], dtype=torch.float64).deg2rad()
    texts = torch.stack([angles.cos(), angles.sin()], dim=1)
    regions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=torch.float64)
    s = (2 * regions @ texts.T).exp().tolist()
    kept = {0: (0, 2), 1: (1, 2), 2: (0, 1, 2)}
    expected = 0.0
    for m, others in kept.items():
        expected -= math.log(s[m][m] / sum(s[m][n] for n in others)) / 6
        expected -= math.log(s[m][m] / sum(s[n][m] for n in others)) / 6
    alike, scale = texts @ texts.T > ALIKE, torch.tensor(2.0)
    found = region_contrast(regions, texts, alike, scale)
    assert float(found) == pytest.approx(expected, rel=1e-12)
    alone = region_contrast(regions[:2], texts[:2], alike[:2, :2], scale)
    assert float(alone) == 0, "no negative is left"


@torch.no_grad()
def test_what_may_name_the_same_is_settled_before_training() -> None:
    """By t', whatever the text tower makes of the names by now."""
    model, data = cloc(), batch(4, 3)
    chosen = named_boxes(data, model.records, model.boxes, 4)
    tokens, phrases = model.tokens(data["pixels"]), [f"a {name}" for name in NAMES]
    begun = model.text(model.tokenize(list(model.row)))
    close(model.begun, begun, rtol=1e-6)
    assert not (begun @ begun.T > ALIKE).all()
    model.student.token_embedding.weight.zero_()
    model.student.positional_embedding.zero_()
    same = model.text(model.tokenize(phrases))
    assert (same @ same.T > ALIKE).all(), "it no longer tells the names apart"
    assert float(model.region_losses(tokens, chosen, phrases)[0]) > 0
    model.begun = model.begun[:1].expand_as(model.begun)
    assert float(model.region_losses(tokens, chosen, phrases)[0]) == 0


def test_the_regions_teach_both_towers_and_the_heads() -> None:
    model, data = cloc(), batch(4, 3)
    chosen = named_boxes(data, model.records, model.boxes, 4)
    tokens = model.tokens(data["pixels"])
    sum(model.region_losses(tokens, chosen, [f"a {name}" for name in NAMES])).backward()
    named = dict(model.named_parameters())
    still = {name for name, p in named.items() if p.grad is None or not bool(p.grad.any())}
    # its class token's projection and temperature are read by the cosine alone
    assert still == {"student.visual.proj", "student.logit_scale"}


def test_embeddings_in_training_are_those_that_are_scored() -> None:
    model, data = cloc(weight=0.0).double(), batch(4, 3)
    loss, _ = step(model, data)
    close(loss, model.finetuning_loss(data).detach())


def test_the_heads_learn_at_the_connection_s_rate() -> None:
    model = cloc()
    own = {name for name, _ in model.named_parameters() if not name.startswith(model.pretrained)}
    assert {name.split(".")[0] for name in own} == {"prompter", "box_head"}


def test_images_without_a_box_weigh_nothing() -> None:
    model, data = cloc(), batch(4, 3)
    model.prepare([record(0, "sofa", "lamp"), *records(boxes={})[1:]], "squash")
    whole, _ = step(model, data)
    chosen = named_boxes(data, model.records, model.boxes, 4)
    assert chosen.image.tolist() == [0, 0]
    terms = model.region_losses(model.tokens(data["pixels"]), chosen, ["a sofa", "a lamp"])
    close(whole, (model.finetuning_loss(data) + 0.25 * sum(terms)).detach(), rtol=1e-5)
    rest = Batch({**data, "record": data["record"].clone()})
    rest["record"][rest["record"] == 0] = 1
    loss, gradients = step(model, rest)
    close(loss, model.finetuning_loss(rest).detach(), rtol=1e-6)
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    heads = {name for name, _ in model.named_parameters() if not name.startswith("student.")}
    assert heads <= gradients.keys(), "DistributedDataParallel waits for every gradient"


def test_objects_without_a_box_are_counted_and_none_at_all_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = Cloc(student())
    model.prepare(records(), "squash")
    assert capsys.readouterr().err == ""
    model.prepare([*records(), record(12, "clock", "sofa")], "squash")
    assert "1 of 26 named objects have no box and are no regions" in capsys.readouterr().err
    with refused("no named object of the training set has a box: give records with boxes"):
        model.prepare(records(boxes={}), "squash")


def test_arguments_out_of_range_are_refused() -> None:
    with refused("weight is -1.0; it must be 0 or more"):
        Cloc(student(), -1.0)
    with refused("regions is 0; it must be 1 or more"):
        Cloc(student(), regions=0)


def rank(number: int, folder: Path, spec: str, data: list[Batch]) -> None:
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    torch.distributed.init_process_group("gloo", init_method=meet, rank=number, world_size=2)
    method = Cloc(spec, regions=2)
    method.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    method.prepare(records(), "squash")
    torch.save(step_of_ranks(silent(method), data[number]), folder / f"{number}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_with_equally_many_regions_are_one_process(tmp_path: Path) -> None:
    model, data = cloc(regions=2), batch(4, 3)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    halves = []
    for start in (0, 2):
        pairs = slice(3 * start, 3 * start + 6)
        rest = {name: data[name][pairs] for name in ("captions", "negated", "record")}
        image = data["image"][pairs] - start
        halves.append(Batch(pixels=data["pixels"][start : start + 2], image=image, **rest))
    _, gradients = step_of_ranks(model, data)
    mp.spawn(rank, (tmp_path, student(), halves), nprocs=2)
    for number in range(2):
        _, found = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert found.keys() == gradients.keys()
        for name, gradient in gradients.items():
            close(found[name], gradient, rtol=1e-6, atol=1e-8)  # boxes are in float32


def readout() -> ClocReadout:
    """Return a readout that finds what BOXES says, in every image but the first, which is empty."""
    model = ClocReadout(student()).eval()
    texts = {name: model.text(model.tokenize([f"a {name}"]))[0] for name in NAMES}

    def said(asked: Tensor, tokens: Tensor) -> Tensor:
        rows = []
        for text, image in zip(asked, tokens, strict=True):
            (name,) = (name for name in NAMES if torch.allclose(texts[name], text, atol=1e-6))
            b = BOXES[name]
            corners = [b.x / 32, b.y / 32, (b.x + b.w) / 32, (b.y + b.h) / 32]
            rows.append([each * bool(image.any()) for each in corners])
        return torch.tensor(rows)

    model.said = said
    return model


@torch.no_grad()
def test_a_readout_compares_the_centres_of_the_boxes() -> None:
    model = readout()
    said = [Statement(a, r, b) for r in RELATIONS for a in NAMES for b in NAMES if a != b]
    features = torch.stack([torch.zeros(17, 48), torch.ones(17, 48)])
    row = torch.ones(len(said), dtype=torch.long)
    score = dict(
        zip(said, model.pair_scores(features, row, [s.caption for s in said]), strict=True)
    )
    for each, found in score.items():
        (ax, ay), (bx, by) = (BOXES[name].centre for name in (each.subject, each.object))
        truth = {"left": bx - ax, "right": ax - bx, "above": by - ay, "under": ay - by}
        assert float(found) == pytest.approx(truth.get(each.relation, 0.0) / 32, abs=1e-6)
        assert float(found) == -float(score[each.negated]), "exactly"
        opposite = Statement(each.subject, CONVERSE[each.relation], each.object)
        assert float(found) == -float(score[opposite])
    mixed = model.pair_scores(
        features, row * torch.arange(len(said)) % 2, [s.caption for s in said]
    )
    assert not mixed[::2].any(), "the first image is empty"


@torch.no_grad()
def test_a_readout_reads_the_heads_of_the_page_that_it_starts_from() -> None:
    trained, model = cloc().eval(), ClocReadout(student()).eval()
    model.start_from(trained.state_dict(), "cloc")
    x, caption = images(3), "The sofa is left of the bed."
    texts = model.text(model.tokenize(["a sofa", "a bed"]))
    tokens = trained.student.visual.ln_post(trained.tokens(x))
    sofa, bed = (trained.said(text.expand(3, -1), tokens) for text in texts)
    found = model.scores(x, torch.arange(3), [caption] * 3)
    close(found, ((bed[:, 0] + bed[:, 2]) - (sofa[:, 0] + sofa[:, 2])) / 2, rtol=1e-4, atol=1e-6)
    assert model.image(x).equal(trained.image(x))
    with refused(r"init_from: the prompter of clip does not fit \(prompter\.box\.weight\)"):
        model.start_from(Clip(student()).state_dict(), "clip")


def test_a_readout_takes_the_checkpoint_of_a_cloc() -> None:
    trained, model = cloc().eval(), ClocReadout(student()).eval()
    for source in (trained, model):
        checkpoint = {"state_dict": trained.state_dict()}
        source.on_save_checkpoint(checkpoint)
        model.on_load_checkpoint(checkpoint)
        model.load_state_dict(checkpoint["state_dict"])
        close(model.state_dict(), trained.state_dict(), 0)
    other = Clip(student())
    checkpoint = {"state_dict": other.state_dict()}
    other.on_save_checkpoint(checkpoint)
    with refused("the checkpoint is of spatialbench.methods.clip.Clip, not of .*ClocReadout"):
        model.on_load_checkpoint(checkpoint)


def test_a_readout_refuses_other_captions_and_training() -> None:
    model = readout()
    with refused("needs two named objects: cannot read the caption 'A red sofa.'"):
        model.scores(images(1), torch.zeros(1, dtype=torch.long), ["A red sofa."])
    with refused("trains nothing: set trainer.max_steps to 0"):
        model.training_step({}, 0)
