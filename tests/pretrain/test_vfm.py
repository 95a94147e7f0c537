"""The VFM's pre-training: its targets, its losses, and the stored scores of the shipped weights."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from spatialbench import WEIGHTS
from spatialbench.models.timm_vfm import OWN
from spatialbench.pretrain.data import PretrainData
from spatialbench.pretrain.vfm import (
    CELLS,
    VfmPretraining,
    depth_cells,
    group_loss,
    group_targets,
    patch_objects,
)
from tests.support.models import quiet


def test_depth_cells_are_means_in_row_order() -> None:
    depth = torch.rand(2, 16, 16) + 0.5
    cells, side = depth_cells(depth, grid=2), 16 // (2 * CELLS)
    for patch in range(4):
        for cell in range(CELLS**2):
            row = (patch // 2) * 8 + (cell // CELLS) * side
            column = (patch % 2) * 8 + (cell % CELLS) * side
            expected = depth[1, row : row + side, column : column + side].mean().log()
            assert cells[1, patch, cell] == pytest.approx(expected.item(), abs=1e-6)


def test_pairs_need_an_object_and_two_patches_with_a_majority() -> None:
    masks = torch.zeros(1, 4, 4, dtype=torch.uint8)
    masks[0, :2, :] = 3
    masks[0, 0, 2] = 5  # one pixel of four: 3 has three quarters
    masks[0, 2:, 0] = 7  # half of the patch
    code, clear = patch_objects(masks, grid=2)
    assert code[0, [0, 1, 3]].tolist() == [3, 3, 0]
    assert clear[0].tolist() == [True, True, False, True]
    same, valid = group_targets(masks, grid=2)
    assert same[0, 0, 1]
    assert not same[0, 0, 3]
    pairs = {(int(p), int(q)) for p, q in valid[0].nonzero()}
    assert pairs == {(0, 1), (1, 0), (0, 3), (3, 0), (1, 3), (3, 1)}


def test_group_loss_by_hand() -> None:
    logits = torch.tensor([[[0.0, 1.0], [-2.0, 0.0]]], dtype=torch.float64)
    same = torch.tensor([[[True, True], [False, True]]])
    valid = torch.tensor([[[False, True], [True, False]]])
    expected = (math.log(1 + math.exp(-1.0)) + math.log(1 + math.exp(-2.0))) / 2
    assert group_loss(logits, same, valid).item() == pytest.approx(expected, rel=1e-12)


def test_the_shipped_weights_have_their_stored_scores() -> None:
    stored = json.loads((WEIGHTS / f"{OWN}.json").read_text())
    module = VfmPretraining(vfm=OWN)
    module.heads.load_state_dict(load_file(WEIGHTS / f"{OWN}-heads.safetensors"))
    quiet().validate(module, PretrainData(names=0, pairs=0), verbose=False)
    assert module.scores == pytest.approx(stored, abs=0.5)
    assert stored["depth_abs_rel"] < 20
    assert stored["grouping"] > 90
