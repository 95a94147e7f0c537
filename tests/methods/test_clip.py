"""The plain student: CLIP as open_clip computes it."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from spatialbench.methods.clip import Clip
from tests.support.models import NAMES, SIZE, images, student


def test_it_is_open_clip() -> None:
    method = Clip(student())
    x = images(3)
    mean, std = (
        torch.tensor(value).view(3, 1, 1)
        for value in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    )
    expected = method.student.encode_image((x / 255 - mean) / std, normalize=True)
    torch.testing.assert_close(method.image(x), expected, rtol=1e-5, atol=1e-6)
    tokens = method.tokenize([f"The {name} is left of the bed." for name in NAMES])
    torch.testing.assert_close(
        method.text(tokens),
        method.student.encode_text(tokens, normalize=True),
        rtol=1e-5,
        atol=1e-6,
    )


def test_everything_of_the_student_is_trained_but_the_temperature() -> None:
    method = Clip(student())
    frozen = [name for name, parameter in method.named_parameters() if not parameter.requires_grad]
    assert frozen == ["student.logit_scale"]


def test_embeddings_have_unit_norm_and_are_float32_in_any_precision() -> None:
    method = Clip(student())
    with torch.autocast("cpu", torch.bfloat16):
        found = (
            method.image(images(2)),
            method.text(method.tokenize(["The sofa."])),
            method.dense(images(2)),
        )
    assert [tuple(part.shape) for part in found] == [
        (2, 24),
        (1, 24),
        (2, SIZE // 8, SIZE // 8, 24),
    ]
    for part in found:
        assert part.dtype == torch.float32
        torch.testing.assert_close(part.norm(dim=-1), torch.ones(part.shape[:-1]))
    assert F.cosine_similarity(found[0], method.image(images(2))).min() > 0.99
