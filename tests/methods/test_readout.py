"""Dense readouts: equations (1)-(6) as loops, exact signs, ties; whose checkpoints they read."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from spatialbench.data.relations import CONVERSE, RELATIONS, Statement
from spatialbench.evaluation.caption_benchmark import CaptionBenchmark
from spatialbench.evaluation.controls import checks
from spatialbench.evaluation.controls.suite import Controls
from spatialbench.methods.base import Method
from spatialbench.methods.clip import Clip
from spatialbench.methods.readout import Readout, guidance
from spatialbench.methods.refiner import Refiner
from spatialbench.methods.spatial_attn import SpatialAttention
from spatialbench.models.timm_vfm import OWN, depth_head, load_vfm
from spatialbench.models.towers import merge_heads
from spatialbench.utils.checkpoints import class_path
from tests.evaluation.test_controls import both_ways
from tests.support.checks import close, refused
from tests.support.models import NAMES, OTHER, SAME, images, shaken, silent, student

ATTENTIONS = ("value", "vv", "trident")


def readout(attention: str = "value", vfm: str = SAME, **arguments: Any) -> Readout:
    return Readout(student(), vfm, attention, **arguments).eval()


def with_head(folder: Path) -> tuple[str, Tensor]:
    """Save a VFM with a depth head beside it; return its spec and the head's weight [4, 48]."""
    model = load_vfm(SAME).model
    weight = torch.randn(4, 48)
    heads = {"depth.weight": weight, "depth.bias": torch.randn(4), "group": torch.ones(1)}
    save_file(model.state_dict(), folder / "vit.safetensors")
    save_file(heads, folder / "vit-heads.safetensors")
    return f"spatialbench_same:{folder / 'vit.safetensors'}", weight


def patches(model: Readout) -> Tensor:
    """o_p on the student's grid [2, 16, D'], bilinear by hand where the VFM has 2 x 2 patches."""
    pixels = (images(2) - model.vfm.mean) / model.vfm.std
    whole = model.vfm.model.forward_features(pixels)[:, model.vfm.model.num_prefix_tokens :]
    if whole.shape[1] == 16:
        return whole
    share = torch.tensor([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]], dtype=whole.dtype)
    return torch.einsum("yi,xj,bijd->byxd", share, share, whole.unflatten(1, (2, 2))).flatten(1, 2)


def weights(attention: str, v: Tensor, o: Tensor) -> Tensor:
    """Attention of one head of one image, [17, 17], from v [17, d] and o [16, D'], by hand."""
    if attention == "value":
        return torch.eye(17, dtype=v.dtype)
    if attention == "vv":
        rows = [[math.exp(a @ b / math.sqrt(len(a))) for b in v] for a in v]
        return torch.tensor([[each / sum(row) for each in row] for row in rows], dtype=v.dtype)
    cosine = [[float(a @ b / a.norm() / b.norm()) for b in o] for a in o]
    mean = sum(map(sum, cosine)) / 256
    made = torch.eye(17, dtype=v.dtype)
    for p in range(16):
        logits = [3.0 * (cosine[p][q] - 1.2 * mean) for q in range(16)]
        kept = [math.exp(x) if x >= 0 or q == p else 0.0 for q, x in enumerate(logits)]
        made[1 + p, 1:] = torch.tensor([each / sum(kept) for each in kept])
    return made


@pytest.mark.parametrize("vfm", [SAME, OTHER])
@pytest.mark.parametrize("attention", ATTENTIONS)
@torch.no_grad()
def test_equations_1_to_3_by_open_clip_s_own_blocks_and_loops(attention: str, vfm: str) -> None:
    model = readout(attention, vfm).double()
    visual = model.student.visual
    x = visual._embeds((images(2) - model.mean) / model.std)
    *before, last = visual.transformer.resblocks
    for block in before:
        x = block(x)
    projected = last.ln_1(x) @ last.attn.in_proj_weight.T + last.attn.in_proj_bias
    v = projected.chunk(3, -1)[2].unflatten(-1, (3, 16)).transpose(1, 2)  # [2, 3, 17, 16]
    o = patches(model) if attention == "trident" else torch.zeros(2, 16, 1)
    heads = [[weights(attention, h, o[m]) @ h for h in v[m]] for m in range(2)]
    a = torch.stack([torch.stack(each) for each in heads])
    f = visual.ln_post(last.attn.out_proj(merge_heads(a)))[:, 1:] @ visual.proj
    expected = (f / f.norm(dim=-1, keepdim=True)).unflatten(1, (4, 4))
    close(model.dense(images(2)), expected, 1e-6)


@torch.no_grad()
def test_equations_4_to_6_as_loops(tmp_path: Path) -> None:
    vfm, weight = with_head(tmp_path)
    model = readout(vfm=vfm).double()
    dense, prompts = model.dense(images(2)), {"sofa": "a sofa", "armchair": "an armchair"}
    texts = {name: model.text(model.tokenize([said]))[0] for name, said in prompts.items()}
    depth = (patches(model) @ weight.T.double() + model.depth_head.bias).mean(-1).view(2, 4, 4)

    def centre(m: int, name: str) -> list[float]:
        cells = [(r, c) for r in range(4) for c in range(4)]
        mass = [math.exp(30 * float(dense[m, r, c] @ texts[name])) for r, c in cells]
        places = [((c + 0.5) / 4, (r + 0.5) / 4, float(depth[m, r, c])) for r, c in cells]
        weighted = [[u * w for w in place] for u, place in zip(mass, places, strict=True)]
        return [sum(each) / sum(mass) for each in zip(*weighted, strict=True)]

    for relation in RELATIONS:
        axis = {"left": 0, "right": 0, "above": 1, "under": 1}.get(relation, 2)
        for m in range(2):
            apart = centre(m, "armchair")[axis] - centre(m, "sofa")[axis]
            expected = apart if relation in ("left", "above", "close") else -apart
            caption = Statement("sofa", relation, "armchair").caption
            found = model.pair_scores(model.pair_features(images(2)), torch.tensor([m]), [caption])
            assert float(found) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("attention", ATTENTIONS)
@torch.no_grad()
def test_the_sign_changes_exactly_with_the_order_of_names_and_with_the_converse(
    tmp_path: Path, attention: str
) -> None:
    model = readout(attention, with_head(tmp_path)[0])
    said = [Statement(a, r, b) for r in RELATIONS for a in NAMES for b in NAMES if a != b]
    forms = [said, [s.negated for s in said]]
    forms += [[Statement(s.subject, CONVERSE[s.relation], s.object) for s in said]]
    row = torch.arange(len(said)) % 2
    scores = [model.scores(images(2), row, [s.caption for s in form]) for form in forms]
    assert scores[0].equal(-scores[1])
    assert scores[0].equal(-scores[2])
    assert (scores[0] != 0).all()


@torch.no_grad()
def test_blind_is_at_50_and_swapped_captions_are_the_negative(tmp_path: Path) -> None:
    evidence = Controls(both_ways(), 2, "readout").run(readout(vfm=with_head(tmp_path)[0]))
    assert {"blind", "swapped"} <= set(checks.exact(evidence))
    assert evidence.values()["blind: all"] == 50
    assert (evidence.answers("blind") != 0).all()  # by its answers, which cancel, not by ties
    assert (evidence.answers("swapped") == -evidence.answers(checks.OWN)).all()


def test_the_diagonal_stays_where_all_patches_are_alike() -> None:
    """Above a mean cosine of 1 / 1.2 every entry would be masked: each patch then reads itself."""
    alike = torch.ones(1, 5, 8) + 1e-3 * torch.randn(1, 5, 8)
    assert guidance(alike).equal(torch.eye(5)[None])
    mixed = torch.cat([alike, torch.randn(1, 5, 8)])
    close(guidance(mixed)[1], guidance(mixed[1:])[0], 1e-6)  # one image does not change another


@torch.no_grad()
def test_without_a_depth_head_close_and_far_are_ties_and_it_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = readout()
    assert "no depth head: close and far are ties, exactly 50" in capsys.readouterr().err
    assert model.vfm is None  # nothing needs it
    captions = [Statement("sofa", relation, "lamp").caption for relation in RELATIONS]
    scores = model.scores(images(1), torch.zeros(6, dtype=torch.long), captions)
    assert (scores == 0).tolist() == [relation in ("close", "far") for relation in RELATIONS]


def test_the_shipped_vfm_has_a_depth_head_and_a_damaged_one_is_one_line(tmp_path: Path) -> None:
    head, vfm = depth_head(OWN), load_vfm(OWN)
    assert head.in_features == vfm.model.embed_dim
    assert not any(parameter.requires_grad for parameter in head.parameters())
    spec, _ = with_head(tmp_path)
    for content in (b"nothing", None):
        path = tmp_path / "vit-heads.safetensors"
        path.write_bytes(content) if content else save_file({"group": torch.ones(1)}, path)
        with refused("vit-heads.safetensors: no linear read-out of depth"):
            depth_head(spec)


def checkpoint(method: Method) -> dict[str, Any]:
    """Return what Lightning writes of a method."""
    state = {name: value.clone() for name, value in method.state_dict().items()}
    made = {"state_dict": state, "hyper_parameters": dict(method.hparams)}
    method.on_save_checkpoint(made)
    return made


def loaded(method: Method, attention: str = "value") -> Readout:
    model, made = readout(attention), checkpoint(method)
    model.on_load_checkpoint(made)
    model.load_state_dict(made["state_dict"])
    return model


@pytest.mark.parametrize("attention", ATTENTIONS)
@torch.no_grad()
def test_it_reads_what_a_connection_does_to_the_tower(tmp_path: Path, attention: str) -> None:
    vfm, x = with_head(tmp_path)[0], images(2)
    method = shaken(SpatialAttention(student(), vfm, cache=False, value_connection=True)).eval()
    # shaken moves the VFM, too, which no checkpoint holds
    save_file(method.vfm.model.state_dict(), tmp_path / "vit.safetensors")
    model = loaded(method, attention)
    assert model.dense(x).equal(method.dense(x, model.attend(x)))
    assert model.image(x).equal(method.image(x))
    plain = readout(attention)
    plain.load_state_dict(model.state_dict(), strict=False)
    assert not plain.dense(x).allclose(model.dense(x), atol=1e-3)


@torch.no_grad()
def test_it_reads_a_fine_tuned_clip_its_own_checkpoint_and_the_refiner_s_blocks() -> None:
    x, tuned = images(2), shaken(Clip(student())).eval()
    model = loaded(tuned)
    assert model.image(x).equal(tuned.image(x))
    assert model.dense(x).equal(tuned.dense(x, lambda v: v))
    assert not model.dense(x).allclose(readout().dense(x), atol=1e-3)
    own = shaken(readout())
    assert loaded(own).dense(x).equal(own.dense(x))
    refined = Refiner(student(), blocks=2).eval()
    shaken(refined.refiner)
    model = loaded(refined)
    assert model.dense(x).equal(refined.dense(x, lambda v: v))
    assert not model.dense(x).allclose(readout().dense(x), atol=1e-3)


class OwnMap(Clip):
    """A method whose dense map is not from the last block."""

    def dense(self, x: Tensor) -> Tensor:
        raise AssertionError


def test_what_it_cannot_read_is_one_line() -> None:
    model = readout()
    cases = {
        "is of no method, so it has no image tower to read out": {"state_dict": {}},
        "OwnMap has a dense map of its own": checkpoint(OwnMap(student())),
        r"student is '.*other\.json:random', this page's is .*--track": checkpoint(
            Clip(student("other"))
        ),
        "unknown key 'colour' for .*Clip": {
            "method": class_path(Clip(student())),
            "hyper_parameters": {"student": student(), "colour": 1},
        },
    }
    for message, made in cases.items():
        with refused(message):
            model.on_load_checkpoint(made)


def test_captions_outside_of_the_grammar_and_training_are_refused() -> None:
    model, row = readout(), torch.zeros(1, dtype=torch.long)
    with refused("needs two named objects: cannot read the caption 'A red sofa.'"):
        model.scores(images(1), row, ["A red sofa."])
    source: Any = type("Source", (), {"name": "whatsup"})
    with refused("whatsup: this page scores only captions of the form"):
        CaptionBenchmark(source).run(model)
    with refused("trains nothing: set trainer.max_steps to 0"):
        silent(model).training_step({}, 0)
