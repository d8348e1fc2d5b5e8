"""Batch norm over the batch of all workers, for CPUs, where torch.nn.SyncBatchNorm refuses to run."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Sum = Callable[[Tensor], Tensor]


def share_statistics(module: nn.Module, sum_over_workers: Sum) -> nn.Module:
    """Exchanges every batch norm for one over all workers' batches, its state and the names of its state unchanged.

    torch's own on a GPU, ours on a CPU. Returns `module`, or what took its place if it is a batch norm itself.
    """
    if isinstance(module, nn.BatchNorm2d):
        weight = module.weight
        if weight.is_cuda:
            return nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return WholeBatchNorm2d(module, sum_over_workers)
    for name, child in module.named_children():
        setattr(module, name, share_statistics(child, sum_over_workers))
    return module


class WholeBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d of the batch that the workers' batches make together, which need not be of one size.

    Args:
        norm: whose parameters and buffers become this module's.
        sum_over_workers: all-reduce.
    Shape:
        images [b, C, H, W] -> the same.
    """

    def __init__(self, norm: nn.BatchNorm2d, sum_over_workers: Sum) -> None:
        assert norm.affine
        assert norm.track_running_stats
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.train(norm.training)
        self._sum = sum_over_workers

    @torch.compiler.disable
    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            return super().forward(images)
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            mean, variance, count = self._statistics(images)
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        result: Tensor = _Normalise.apply(images, self.weight, self.bias, mean, variance, count, self.eps, self._sum)
        return result

    def _statistics(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, biased variance and number of values of each channel. Shape: -> [C], [C], []."""
        # What nn.BatchNorm2d uses itself; torch.var_mean takes 15 times as long on channels-last images.
        # With running statistics, which stay as they are, those of 16-bit images have 32 bits.
        unused = torch.zeros_like(self.weight, requires_grad=False)
        mean, variance = torch.batch_norm_update_stats(images, unused, unused, 0.0)
        # float64, in which the mean square less the squared mean keeps all digits that float32 has.
        mean, variance = mean.double(), variance.double()
        count = mean.new_full((1,), images.numel() / images.shape[1])
        count, mean, square = self._sum(torch.cat([count, count * mean, count * (variance + mean.square())])).split(
            [1, len(mean), len(mean)]
        )
        mean = mean / count
        variance = (square / count - mean.square()).clamp(min=0)
        dtype = self.weight.dtype
        return mean.to(dtype), variance.to(dtype), count.to(dtype)


class _Normalise(torch.autograd.Function):
    """y = weight (x - mean) / sqrt(variance + eps) + bias, with mean and variance functions of all workers' x.

    With x^ the normalised x and <.> the mean over the whole batch, dL/dx = weight / sigma (g - <g> - x^ <g x^>)
    (Ioffe and Szegedy, ICML 2015). The gradients of weight and bias are this worker's share: whoever averages the
    gradients of all parameters averages these too.
    """

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        count: Tensor,
        eps: float,
        sum_over_workers: Sum,
    ) -> Tensor:
        ctx.save_for_backward(images, weight, mean, variance, count)
        ctx.eps, ctx.sum = eps, sum_over_workers
        return F.batch_norm(images, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, mean, variance, count = ctx.saved_tensors
        # As if mean and variance were constants: the sums that the rest needs are the gradients of weight and bias.
        by_images, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            gradients[0], images, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        mean_product, mean_gradient = (ctx.sum(torch.stack([by_weight, by_bias])) / count).unbind()
        inverse_deviation = (variance + ctx.eps).rsqrt()
        slope = weight * inverse_deviation.square() * mean_product
        offset = weight * inverse_deviation * mean_gradient - slope * mean
        by_images = by_images.addcmul_(images, _per_channel(slope), value=-1).sub_(_per_channel(offset))
        return by_images, by_weight, by_bias, None, None, None, None, None


def _per_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
