"""The student's pre-training: its captions, loss, vocabulary, and the shipped weights' scores."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer

from spatialbench import WEIGHTS
from spatialbench.data.records import Box
from spatialbench.data.relations import PHRASE
from spatialbench.data.rooms.facts import SceneView, View
from spatialbench.data.rooms.kinds import KIND, KINDS
from spatialbench.data.rooms.room_captions import (
    FILLERS,
    TEMPLATES,
    THINGS,
    thing,
    true_of,
    write_captions,
)
from spatialbench.data.rooms.shapes import PALETTE
from spatialbench.models.open_clip_student import OWN, TextTokenizer, load_clip
from spatialbench.pretrain.data import PretrainData
from spatialbench.pretrain.student import StudentPretraining, caption_loss, retrieval_scores
from tests.support.models import quiet
from tools import vocabulary

RELATION_WORDS = {word for phrase in PHRASE.values() for word in phrase.split()} - {"of", "than"}


def scene(*things: tuple[str, str]) -> SceneView:
    views = tuple(
        View(name, colour, "plain", "floor", k + 1, Box(10 * k, 0, 9, 9), 500, 2.0)
        for k, (name, colour) in enumerate(things)
    )
    return SceneView("s", 0, 96, views)


def test_captions_name_what_is_there_and_never_where() -> None:
    named = (("armchair", "red"), ("lamp", "white"))
    rng = np.random.default_rng(0)
    captions = [c for _ in range(300) for c in write_captions(scene(*named), 1, 1, rng)]
    texts = {caption.text for caption in captions}
    assert {"an armchair", "a white lamp", "The lamp is in the room with the armchair."} <= texts
    assert "a red armchair with a white lamp" in texts
    fillers = {text.split()[2] for text in texts if text.startswith("The lamp")}
    assert fillers & (set(FILLERS) - {"is"})
    for caption in captions:
        words = set(caption.text.strip(".").split())
        assert not words & RELATION_WORDS
        claims = {thing(n, c if c in words else None) for n, c in named if n in words}
        assert set(caption.claims) == claims
    assert {"left", "right", "above", "under", "closer", "farther"} <= RELATION_WORDS


def swapped(text: str, *pairs: tuple[str, str]) -> str:
    for a, b in pairs:
        text = text.replace(a, "?").replace(b, a).replace("?", b)
    return text


def test_two_objects_are_named_in_both_orders_in_the_same_words() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        one, other = write_captions(scene(("sofa", "red"), ("lamp", "white")), 0, 1, rng)
        assert other.text == swapped(one.text, ("sofa", "lamp"), ("red", "white")) != one.text
        assert one.claims == other.claims[::-1]
        assert (one.twin, other.twin) == (1, -1)


def test_foils_swap_colours_only_where_both_kinds_come_in_both() -> None:
    rng = np.random.default_rng(0)
    captions = write_captions(scene(("sofa", "red"), ("ball", "blue")), 0, 100, rng)
    foils = {c.text: c.foil for c in captions}
    assert all(foil == swapped(text, ("red", "blue")) for text, foil in foils.items())
    assert {"the red sofa and the blue ball", "the sofa and the ball"} <= set(foils)
    assert "white" not in KIND["ball"].colours
    for pair in ((("lamp", "white"), ("ball", "blue")), (("sofa", "red"), ("ball", "red"))):
        assert all(c.foil == c.text for c in write_captions(scene(*pair), 0, 20, rng))


def test_truth_asks_for_both_things() -> None:
    seen = torch.zeros(2, THINGS, dtype=torch.bool)
    seen[0, [3, 5]] = seen[1, 3] = True
    claims = torch.tensor([[3, 3], [3, 5], [5, 7]])
    assert true_of(seen, claims).tolist() == [[True, True, False], [True, False, False]]


def test_loss_is_the_printed_equation() -> None:
    generator = torch.Generator().manual_seed(0)
    images, captions, foils = 4, 7, 5
    s = torch.randn(images, captions + foils, generator=generator, dtype=torch.float64)
    image, twin = torch.tensor([0, 0, 1, 1, 2, 3, 3]), torch.tensor([1, 0, 2, 3, 4, 6, 5])
    truth = torch.rand(images, captions + foils, generator=generator) < 0.2
    truth[image, torch.arange(captions)] = True
    image_side = text_side = symmetric = 0.0
    for c, i in enumerate(image.tolist()):
        own = math.exp(s[i, c])
        others = sum(math.exp(s[i, t]) for t in range(captions + foils) if not truth[i, t])
        image_side -= math.log(own / (own + others)) / captions
        others = sum(math.exp(s[j, c]) for j in range(images) if not truth[j, c])
        text_side -= math.log(own / (own + others)) / captions
        symmetric += float(s[i, c] - s[i, twin[c]]) ** 2 / captions
    wanted = (image_side + text_side) / 2 + 3 * symmetric
    assert caption_loss(s, image, twin, truth, 3.0).item() == pytest.approx(wanted, rel=1e-12)


def test_retrieval_scores_by_hand() -> None:
    texts = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.9, 1.0]])  # they retrieve images 0 and 2 first
    truth = torch.tensor([[True, False], [False, True], [False, False]])
    scores = retrieval_scores(torch.eye(3), texts, truth)
    expected = {"image_r1": 50, "image_r5": 100, "text_r1": 100 * 2 / 3, "chance": 100 * 2 / 6}
    assert scores == pytest.approx(expected)


def test_every_word_is_one_token_and_the_stored_vocabulary_is_the_learned_one() -> None:
    before = vocabulary.PATH.read_bytes()
    vocabulary.main()
    assert vocabulary.PATH.read_bytes() == before
    tokenize = TextTokenizer(f"{OWN}:random")
    for word in vocabulary.words():
        assert int((tokenize([word]) > 0).sum()) == 3, word  # start, word, end
    assert int((tokenize(["refrigerator"]) > 0).sum()) > 3  # an unknown word is still encoded


def test_the_longest_caption_has_16_tokens_at_most() -> None:
    """The shipped student was trained on no longer ones: see its card."""
    tokenize = TextTokenizer(f"{OWN}:random")
    longest = max((kind.name for kind in KINDS), key=lambda name: len(name.split()))
    filled = f"The {{}} {' '.join(['picture'] * 3)} the {{}}."
    texts = [template.format(*[f"orange {longest}"] * 2) for template in (*TEMPLATES, filled)]
    texts.append(f"The {longest} is farther than the {longest}.")
    assert int((tokenize(texts) > 0).sum(1).max()) <= 16


def test_a_batch_knows_each_caption_s_twin_and_is_scored_in_single_precision() -> None:
    batch = next(iter(PretrainData(images=32, val_images=16, batch_images=16).train_dataloader()))
    twin, rows = batch["twin"], torch.arange(len(batch["captions"]))
    assert torch.equal(twin[twin], rows)
    assert (twin != rows).any()
    assert torch.equal(batch["claims"][twin], batch["claims"].flip(1))
    assert torch.equal(batch["image"][twin], batch["image"])
    module = StudentPretraining(symmetry_from=0.0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        images = module.image(batch["pixels"])
        texts = module.text(batch["captions"] + batch["foils"])
        loss = module.training_step(batch, 0)
    scores = module.student.logit_scale.exp() * images @ texts.T
    truth = true_of(batch["seen"], torch.cat([batch["claims"], batch["foil_claims"]]))
    assert torch.equal(loss, caption_loss(scores, batch["image"], twin, truth, 10.0))


def test_both_orders_are_made_alike_only_after_the_first_steps() -> None:
    """Check by the loss of each step: a weight so large that (4) cannot be missed."""
    losses = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Trainer, module: object, outputs: dict, *_) -> None:
            losses.append(outputs["loss"].item())

    module = StudentPretraining(symmetry=1e9, symmetry_from=0.6, warmup=1)
    data = PretrainData(images=32, val_images=16, batch_images=8)
    quiet(max_steps=5, callbacks=[Watch()]).fit(module, data)
    assert [loss > 1000 for loss in losses] == [False, False, False, True, True]


def test_the_share_of_captions_without_colours_is_of_training_alone() -> None:
    some, none = (
        PretrainData(images=16, val_images=16, batch_images=16, plain=plain) for plain in (1.0, 0.0)
    )
    validation = [next(iter(data.val_dataloader()))["captions"] for data in (some, none)]
    assert validation[0] == validation[1]
    for data, coloured in ((some, False), (none, True)):
        claims = next(iter(data.train_dataloader()))["claims"].flatten()
        colours = claims % (len(PALETTE) + 1) != len(PALETTE)
        assert bool(colours.all() if coloured else not colours.any())


def test_the_gradient_of_equal_captions_adds_up_the_same_every_time() -> None:
    """Enough rows for several threads, nearly all of them of two captions."""
    module, gradients = StudentPretraining(), []
    captions = ["a sofa", "a lamp"] * 500
    weights = torch.randn(len(captions), 128, generator=torch.Generator().manual_seed(0))
    for _ in range(5):
        module.zero_grad()
        (module.text(captions) * weights).sum().backward()
        gradients.append(module.student.text_projection.grad.clone())
    assert all(torch.equal(gradients[0], other) for other in gradients[1:])


def test_the_shipped_student_s_positions_are_fixed_ones() -> None:
    """Training left them, and fine-tuning does, too; float16 is what the file holds."""
    shipped, drawn = (
        load_clip(name).visual.positional_embedding for name in (OWN, f"{OWN}:random")
    )
    assert not shipped.requires_grad
    assert torch.equal(shipped, drawn.half().float())


def test_training_is_the_same_twice(tmp_path: Path) -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(0)
        module = StudentPretraining(warmup=1, export=str(tmp_path / "s.safetensors"))
        data = PretrainData(images=32, val_images=16, batch_images=16)
        quiet(max_steps=2).fit(module, data)
        weights.append(module.student.visual.proj.detach().clone())
    assert torch.equal(*weights)
    module.finish()
    scores = json.loads((tmp_path / "s.json").read_text())
    assert set(scores) == {"image_r1", "image_r5", "text_r1", "chance", "binding"}


def test_the_shipped_weights_have_their_stored_scores() -> None:
    """Score the same 1,000 images of the validation split; bfloat16 rounding may move a few."""
    stored = json.loads((WEIGHTS / f"{OWN}.json").read_text())
    module = StudentPretraining(student=OWN)
    quiet().validate(module, PretrainData(), verbose=False)
    assert module.scores == pytest.approx(stored, abs=1.0)
    spare = 100 - stored["chance"]
    assert stored["text_r1"] > stored["chance"] + 0.85 * spare
    assert stored["image_r1"] > stored["chance"] + 0.5 * spare
