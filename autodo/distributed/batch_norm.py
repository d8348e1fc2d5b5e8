"""Batch norm over the batches of all processes, on every device.

torch.nn.SyncBatchNorm refuses to run on a CPU. On a GPU it picks the processes that have images with boolean masks, for
which the host waits three times a layer.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from autodo.errors import ConfigError

AllReduce = Callable[[Tensor], Tensor]


def share_statistics(module: nn.Module, all_reduce: AllReduce) -> nn.Module:
    """Replaces every batch norm by one over the batches of all processes; the state and its names stay the same.

    Returns `module`, or its replacement if it is a batch norm.

    Raises:
        ConfigError: if it has a batch norm of another kind.
    """
    if isinstance(module, _BatchNorm):
        _check_kind(module)
        assert isinstance(module, nn.BatchNorm2d)
        return WholeBatchNorm2d(module, all_reduce)
    for name, child in module.named_children():
        setattr(module, name, share_statistics(child, all_reduce))
    return module


def _check_kind(norm: nn.Module) -> None:
    # BatchNormAct2d of timm is a batch norm with an activation in it, which `WholeBatchNorm2d` applies too.
    known = type(norm) in (nn.BatchNorm2d, WholeBatchNorm2d) or type(norm).__name__ == "BatchNormAct2d"
    if not known or not norm.affine or not norm.track_running_stats or norm.momentum is None:
        raise ConfigError(
            f"workers: the network has the batch norm {norm}, which cannot be computed over several workers: "
            "nn.BatchNorm2d with weights, running statistics and a momentum can; set workers: 1"
        )


class WholeBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d over the batches of all processes, whose sizes may differ.

    Args:
        norm: batch norm whose parameters and buffers this module takes over. Modules in it are applied to the result,
            in their order.
        all_reduce: sum over the processes.
    Shape:
        images [b, C, H, W] -> the same.
    """

    def __init__(self, norm: nn.BatchNorm2d, all_reduce: AllReduce) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        for name, child in norm.named_children():
            self.add_module(name, child)
        self.train(norm.training)
        self._all_reduce = all_reduce

    @torch.compiler.disable
    def forward(self, images: Tensor) -> Tensor:
        result = self._normalised(images)
        for module in self.children():
            result = module(result)
        return result

    def _normalised(self, images: Tensor) -> Tensor:
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
        result: Tensor = _Normalise.apply(
            images, self.weight, self.bias, mean, variance, count, self.eps, self._all_reduce
        )
        return result

    def _statistics(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, biased variance and number of values of each channel. Shape: -> [C], [C], []."""
        # The function of nn.BatchNorm2d itself; torch.var_mean takes 15 times as long on channels-last images.
        # Given running statistics, which do not change, it returns 32-bit statistics for 16-bit images.
        unused = torch.zeros_like(self.weight, requires_grad=False)
        mean, variance = torch.batch_norm_update_stats(images, unused, unused, 0.0)
        # In float64 the mean square minus the squared mean keeps all digits of float32.
        mean, variance = mean.double(), variance.double()
        count = mean.new_full((1,), images.numel() / images.shape[1])
        count, mean, square = self._all_reduce(
            torch.cat([count, count * mean, count * (variance + mean.square())])
        ).split([1, len(mean), len(mean)])
        mean = mean / count
        variance = (square / count - mean.square()).clamp(min=0)
        dtype = self.weight.dtype
        return mean.to(dtype), variance.to(dtype), count.to(dtype)


class _Normalise(torch.autograd.Function):
    """y = weight (x - mean) / sqrt(variance + eps) + bias, where mean and variance depend on x of all processes.

    With x^ the normalised x and <.> the mean over the whole batch, dL/dx = weight / sigma (g - <g> - x^ <g x^>)
    (Ioffe and Szegedy, ICML 2015). The gradients of weight and bias are those of this process; they are averaged over
    the processes together with the gradients of all parameters.
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
        all_reduce: AllReduce,
    ) -> Tensor:
        ctx.save_for_backward(images, weight, mean, variance, count)
        ctx.eps, ctx.all_reduce = eps, all_reduce
        return F.batch_norm(images, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, mean, variance, count = ctx.saved_tensors
        # With mean and variance as constants: the gradients of weight and bias are the sums that the rest needs.
        by_images, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            gradients[0], images, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        mean_product, mean_gradient = (ctx.all_reduce(torch.stack([by_weight, by_bias])) / count).unbind()
        inverse_deviation = (variance + ctx.eps).rsqrt()
        slope = weight * inverse_deviation.square() * mean_product
        offset = weight * inverse_deviation * mean_gradient - slope * mean
        by_images = by_images.addcmul_(images, _per_channel(slope), value=-1).sub_(_per_channel(offset))
        return by_images, by_weight, by_bias, None, None, None, None, None


def _per_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
