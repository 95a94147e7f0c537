"""The student's pre-training: its captions, its loss, its vocabulary, and the stored scores of the shipped weights."""

from __future__ import annotations

import json
import math

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
from spatialbench.pretrain import vocabulary
from spatialbench.pretrain.data import PretrainData
from spatialbench.pretrain.student import StudentPretraining, caption_loss, retrieval_scores


def _scene(*things: tuple[str, str]) -> SceneView:
    views = tuple(
        View(name, colour, "plain", "floor", k + 1, Box(10 * k, 0, 9, 9), 500, 2.0)
        for k, (name, colour) in enumerate(things)
    )
    return SceneView("s", 0, 96, views)


RELATION_WORDS = {word for phrase in PHRASE.values() for word in phrase.split()} - {"of", "than"}


def test_captions_name_what_is_there_and_never_where() -> None:
    scene = _scene(("armchair", "red"), ("lamp", "white"))
    rng = np.random.default_rng(0)
    captions = [c for _ in range(300) for c in write_captions(scene, 1, 1, rng)]
    texts = {c.text for c in captions}
    assert {"an armchair", "a white lamp", "The lamp is in the room with the armchair."} <= texts
    assert "a red armchair with a white lamp" in texts
    assert any(
        c.text.startswith("The lamp") and c.text.split()[2] in set(FILLERS) - {"is"}
        for c in captions
    )
    for caption in captions:
        words = set(caption.text.strip(".").split())
        assert not words & RELATION_WORDS
        wanted = {
            thing(n, c if c in words else None)
            for n, c in (("armchair", "red"), ("lamp", "white"))
            if n in words
        }
        assert set(caption.claims) == wanted
    assert not {"left", "right", "above", "under", "closer", "farther"} - RELATION_WORDS


def test_two_objects_are_named_in_both_orders_in_the_same_words() -> None:
    scene = _scene(("sofa", "red"), ("lamp", "white"))
    rng = np.random.default_rng(0)
    for _ in range(50):
        one, other = write_captions(scene, 0, 1, rng)
        exchanged = one.text.replace("sofa", "?").replace("lamp", "sofa").replace("?", "lamp")
        exchanged = exchanged.replace("red", "?").replace("white", "red").replace("?", "white")
        assert other.text == exchanged != one.text
        assert one.claims == other.claims[::-1]
        assert (one.twin, other.twin) == (1, -1)


def test_foils_exchange_colours_only_where_both_kinds_come_in_both() -> None:
    rng = np.random.default_rng(0)
    captions = write_captions(_scene(("sofa", "red"), ("ball", "blue")), 0, 100, rng)
    foils = {c.text: c.foil for c in captions}
    assert foils["the red sofa and the blue ball"] == "the blue sofa and the red ball"
    assert foils["the blue ball and the red sofa"] == "the red ball and the blue sofa"
    assert foils["the sofa and the ball"] == "the sofa and the ball"
    assert "white" not in KIND["ball"].colours
    for pair in ((("lamp", "white"), ("ball", "blue")), (("sofa", "red"), ("ball", "red"))):
        for caption in write_captions(_scene(*pair), 0, 20, rng):
            assert caption.foil == caption.text


def test_truth_asks_for_both_things() -> None:
    seen = torch.zeros(2, THINGS, dtype=torch.bool)
    seen[0, [3, 5]] = True
    seen[1, 3] = True
    claims = torch.tensor([[3, 3], [3, 5], [5, 7]])
    assert true_of(seen, claims).tolist() == [[True, True, False], [True, False, False]]


def test_loss_is_the_printed_equation() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures, captions, foils = 4, 7, 5
    scores = torch.randn(pictures, captions + foils, generator=generator, dtype=torch.float64)
    image = torch.tensor([0, 0, 1, 1, 2, 3, 3])
    truth = torch.rand(pictures, captions + foils, generator=generator) < 0.2
    truth[image, torch.arange(captions)] = True
    image_side = text_side = 0.0
    for c in range(captions):
        i = int(image[c])
        own = math.exp(scores[i, c])
        others = sum(math.exp(scores[i, t]) for t in range(captions + foils) if not truth[i, t])
        image_side -= math.log(own / (own + others)) / captions
        others = sum(math.exp(scores[j, c]) for j in range(pictures) if not truth[j, c])
        text_side -= math.log(own / (own + others)) / captions
    twin = torch.tensor([1, 0, 2, 3, 4, 6, 5])
    symmetric = (
        sum(float(scores[image[c], c] - scores[image[c], twin[c]]) ** 2 for c in range(captions))
        / captions
    )
    wanted = (image_side + text_side) / 2 + 3 * symmetric
    assert caption_loss(scores, image, twin, truth, 3.0).item() == pytest.approx(wanted, rel=1e-12)


def test_retrieval_scores_by_hand() -> None:
    images = torch.eye(3)
    texts = torch.tensor(
        [[1.0, 0.5, 0.0], [0.0, 0.9, 1.0]]
    )  # first finds picture 0, second picture 2
    truth = torch.tensor([[True, False], [False, True], [False, False]])
    found = retrieval_scores(images, texts, torch.tensor([0, 1]), truth)
    assert found["image_r1"] == 50.0  # the second caption's first picture is 2, it is true of 1
    assert found["image_r5"] == 100.0
    assert found["text_r1"] == pytest.approx(100 * 2 / 3)
    assert found["chance"] == pytest.approx(100 * 2 / 6)


def test_every_word_is_one_token_and_the_stored_vocabulary_is_the_learned_one() -> None:
    before = vocabulary.PATH.read_bytes()
    vocabulary.main()
    assert vocabulary.PATH.read_bytes() == before
    tokenize = TextTokenizer(f"{OWN}:random")
    for word in vocabulary.words():
        assert int((tokenize([word]) > 0).sum()) == 3, word  # start, word, end
    assert int((tokenize(["refrigerator"]) > 0).sum()) > 3  # an unknown word still encodes


def test_the_longest_caption_has_16_tokens_at_most() -> None:
    tokenize = TextTokenizer(f"{OWN}:random")
    longest = max((kind.name for kind in KINDS), key=lambda name: len(name.split()))
    filled = f"The {{}} {' '.join(['picture'] * 3)} the {{}}."
    tokens = tokenize(
        [template.format(*[f"orange {longest}"] * 2) for template in (*TEMPLATES, filled)]
    )
    assert int((tokens > 0).sum(1).max()) <= 16  # what the shipped student has read: see its card
    assert int((tokenize([f"The {longest} is farther than the {longest}."]) > 0).sum()) <= 16


def test_a_batch_knows_each_caption_s_twin_and_is_scored_in_single_precision() -> None:
    batch = next(iter(PretrainData(images=32, val_images=16, batch_images=16).train_dataloader()))
    count, twin = len(batch["captions"]), batch["twin"]
    assert torch.equal(twin[twin], torch.arange(count))
    assert torch.equal(batch["claims"][twin], batch["claims"].flip(1))
    assert torch.equal(batch["image"][twin], batch["image"])
    assert (twin != torch.arange(count)).any()
    module = StudentPretraining(symmetry_from=0.0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        images, texts = (
            module.image(batch["pixels"]),
            module.text(batch["captions"] + batch["foils"]),
        )
        found = module.training_step(batch, 0)
    scores = module.student.logit_scale.exp() * images @ texts.T
    truth = true_of(batch["seen"], torch.cat([batch["claims"], batch["foil_claims"]]))
    assert torch.equal(
        found, caption_loss(scores, batch["image"], twin, truth, module.hparams["symmetry"])
    )


def test_both_orders_are_made_alike_only_after_the_first_steps() -> None:
    """By the loss of each step: a weight so large that (4) cannot be missed."""
    losses = []

    class Watch(Callback):
        def on_train_batch_end(
            self, trainer: Trainer, module: StudentPretraining, outputs: dict, *_: object
        ) -> None:
            losses.append(outputs["loss"].item())

    module = StudentPretraining(symmetry=1e9, symmetry_from=0.6, warmup=1)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(
        max_steps=5, accelerator="cpu", callbacks=[Watch()], enable_model_summary=False, **quiet
    )
    trainer.fit(module, PretrainData(images=32, val_images=16, batch_images=8))
    assert [loss > 1000 for loss in losses] == [False, False, False, True, True]


def test_the_share_of_captions_without_colours() -> None:
    scene = _scene(("sofa", "red"), ("lamp", "white"))
    for plain, texts in ((0.0, {"a red sofa", "a white lamp"}), (1.0, {"a sofa", "a lamp"})):
        rng = np.random.default_rng(0)
        assert {c.text for _ in range(20) for c in write_captions(scene, 2, 0, rng, plain)} == texts


def test_the_validation_s_captions_do_not_change_with_the_training_s() -> None:
    some, none = (
        PretrainData(images=16, val_images=16, batch_images=16, plain=plain) for plain in (1.0, 0.0)
    )
    assert (
        next(iter(some.val_dataloader()))["captions"]
        == next(iter(none.val_dataloader()))["captions"]
    )
    for data, coloured in ((some, False), (none, True)):
        claims = next(iter(data.train_dataloader()))["claims"]
        assert {bool(c) for c in claims.flatten() % (len(PALETTE) + 1) != len(PALETTE)} == {
            coloured
        }


def test_the_gradient_of_equal_captions_adds_up_the_same_every_time() -> None:
    """Enough rows for several threads, nearly all of them of two captions."""
    module = StudentPretraining()
    captions = ["a sofa", "a lamp"] * 500
    weights = torch.randn(len(captions), 128, generator=torch.Generator().manual_seed(0))
    found = []
    for _ in range(5):
        module.zero_grad()
        (module.text(captions) * weights).sum().backward()
        found.append(module.student.text_projection.grad.clone())
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_the_shipped_student_s_positions_are_fixed_ones() -> None:
    """Nothing moved them, and fine-tuning does not either; float16 is what the file holds."""
    shipped, drawn = (
        load_clip(name).visual.positional_embedding for name in (OWN, f"{OWN}:random")
    )
    assert not shipped.requires_grad
    assert torch.equal(shipped, drawn.half().float())


def test_training_is_the_same_twice(tmp_path) -> None:  # type: ignore[no-untyped-def]
    weights = []
    for _ in range(2):
        torch.manual_seed(0)
        module = StudentPretraining(warmup=1, export=str(tmp_path / "s.safetensors"))
        trainer = Trainer(
            max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, PretrainData(images=32, val_images=16, batch_images=16))
        weights.append(module.student.visual.proj.detach().clone())
    assert torch.equal(*weights)
    module.finish(tmp_path)
    scores = json.loads((tmp_path / "s.json").read_text())
    assert set(scores) == {"image_r1", "image_r5", "text_r1", "chance", "binding"}


def test_the_shipped_weights_have_their_stored_scores() -> None:
    """On the same 1,000 pictures of the validation split; bfloat16 rounding may move a few of them."""
    stored = json.loads((WEIGHTS / f"{OWN}.json").read_text())
    module = StudentPretraining(student=OWN)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    trainer.validate(module, PretrainData(), verbose=False)
    for name, value in stored.items():
        assert module.scores[name] == pytest.approx(value, abs=1.0), name
    assert stored["text_r1"] > stored["chance"] + 0.85 * (100 - stored["chance"])
    assert stored["image_r1"] > stored["chance"] + 0.5 * (100 - stored["chance"])
