"""RoIAlign of a dense map."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from spatialbench.data.boxes import check_boxes


def region_tokens(
    dense: Tensor, boxes: Tensor, image: Tensor, size: int | tuple[int, int]
) -> Tensor:
    """Crop regions from a dense map by RoIAlign: [N, r r, D], unit norm, row by row.

    The map is [B, h, w, D]; boxes [N, 4] are x0 y0 x1 y1 in [0, 1] of the image, in row ``image``
    int64 [N] of the map. ``size`` is r, or rows and columns; 1 gives one vector per region.

    Raises:
        SpatialbenchError: there is no box, or one that is not finite, empty, or outside of the
            image.
    """
    check_boxes(boxes)
    height, width = dense.shape[1:3]
    with exact(dense):
        dense = single(dense)
        scale = dense.new_tensor([width, height, width, height])
        rois = torch.cat([image[:, None].to(dense), boxes.to(dense) * scale], dim=1)
        tokens = roi_align(dense.permute(0, 3, 1, 2), rois, output_size=size, aligned=True)
        return F.normalize(tokens.flatten(2).transpose(1, 2), dim=-1)  # from [N, D, r, r]


def exact(x: Tensor) -> torch.autocast:
    """Disable autocast on the device of ``x``."""
    return torch.autocast(x.device.type, enabled=False)


def single(x: Tensor) -> Tensor:
    """Float32, or float64 where ``x`` has it."""
    return x if x.dtype == torch.float64 else x.float()
