"""Deformable convolution: every tap of the kernel is moved and weighted by what the input shows there."""

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from rankdet.models.precision import without_autocast


class DeformableConv2d(nn.Conv2d):
    """Modulated deformable convolution (Deformable ConvNets v2, CVPR 2019, Sec. 3.2) in the place of a plain one.

    plain: a convolution without bias; its parameter `weight`, stride, padding, dilation and groups go over. A second
    convolution `offset` on the same input, of the same shape, says for each of the K taps of each output cell how far
    from its place it looks (y, x in cells) and, through a sigmoid, how much it counts; all groups share that. It starts
    at zero, so that the taps are in place and count 0.5: half of the plain convolution's output, as the paper has it.
    (The authors' operator doubles the sigmoid and so starts as the plain convolution. The paper trains `offset` at a
    tenth of the learning rate; here it has that of the other layers.)
    """

    def __init__(self, plain: nn.Conv2d) -> None:
        shape = {name: getattr(plain, name) for name in ("kernel_size", "stride", "padding", "dilation")}
        super().__init__(plain.in_channels, plain.out_channels, groups=plain.groups, bias=False, **shape)
        num_taps = self.kernel_size[0] * self.kernel_size[1]
        self.offset = nn.Conv2d(plain.in_channels, 3 * num_taps, **shape)
        self.weight = plain.weight
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        """float [B, in_channels, H, W] -> [B, out_channels, H', W'] as of the plain convolution, in x's dtype.

        Computed in float32 at least, also under autocast: positions want the digits, and torchvision's kernel has no
        bfloat16. Taps outside the image read zeros.
        """
        with without_autocast(x.device.type):
            steering = self.offset(x.to(self.offset.weight.dtype))
            dtype = torch.promote_types(steering.dtype, torch.float32)
            num_taps = self.offset.out_channels // 3
            offsets, modulation = steering.to(dtype).split([2 * num_taps, num_taps], dim=1)
            out = deform_conv2d(
                x.to(dtype),
                offsets,
                self.weight.to(dtype),
                stride=self.stride,
                padding=self.padding,
                dilation=self.dilation,
                mask=modulation.sigmoid(),
            )
        return out.to(x.dtype)
