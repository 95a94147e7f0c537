"""The plain student: CLIP as open_clip computes it."""

import torch
import torch.nn.functional as F

from spatialbench.methods.clip import Clip
from tests.support.models import NAMES, SIZE, images, student


def test_it_is_open_clip() -> None:
    method, x = Clip(student()), images(3)
    mean = torch.tensor((0.48145466, 0.4578275, 0.40821073)).view(3, 1, 1)
    std = torch.tensor((0.26862954, 0.26130258, 0.27577711)).view(3, 1, 1)
    expected = method.student.encode_image((x / 255 - mean) / std, normalize=True)
    torch.testing.assert_close(method.image(x), expected, rtol=1e-5, atol=1e-6)
    tokens = method.tokenize([f"The {name} is left of the bed." for name in NAMES])
    expected = method.student.encode_text(tokens, normalize=True)
    torch.testing.assert_close(method.text(tokens), expected, rtol=1e-5, atol=1e-6)


def test_embeddings_have_unit_norm_and_are_float32_in_any_precision() -> None:
    method, x = Clip(student()), images(2)
    with torch.autocast("cpu", torch.bfloat16):
        image, text = method.image(x), method.text(method.tokenize(["The sofa."]))
        dense = method.dense(x)
    assert image.shape == (2, 24)
    assert text.shape == (1, 24)
    assert dense.shape == (2, SIZE // 8, SIZE // 8, 24)
    for embeddings in (image, text, dense):
        assert embeddings.dtype == torch.float32
        torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(embeddings.shape[:-1]))
    assert F.cosine_similarity(image, method.image(x)).min() > 0.99
