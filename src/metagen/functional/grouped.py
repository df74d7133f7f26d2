r"""Convolution, normalisation and pooling that stay exact and fast when every task has its own weights.

Under ``torch.func.vmap`` a batch of B tasks becomes B channel groups of one call of the native kernel:
images (B, S, C, H, W) are laid out as (S, B C, H, W), channels last, so that batch statistics per
channel are those of the task. Every operation here belongs to a small family that contains its own
derivatives: the gradient of a convolution is two convolutions, that of a normalisation is a
projection, that of pooling is a scatter. So the second order too runs on native kernels, and never on
PyTorch's own double backward, which is slow for groups and silently wrong for norms under ``vmap``.
The third order of a norm is not there: its second derivative is taken as constant.
Where a graph is exported, which needs no derivatives, they are torch's own operations, which other runtimes
know.
"""

from inspect import signature
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

_backward = torch.ops.aten.convolution_backward
_batch_norm = torch.ops.aten.native_batch_norm
_batch_norm_backward = torch.ops.aten.native_batch_norm_backward
_group_norm = torch.ops.aten.native_group_norm
_group_norm_backward = torch.ops.aten.native_group_norm_backward


class _Grouped(torch.autograd.Function):
    """A function whose last argument is a number of channel groups; ``vmap`` makes tasks groups.

    Where all that tasks differ in is images, and each is treated by itself, tasks just make a larger
    batch, unless the images already are laid out as channel groups.

    inputs, outputs: the axis of the channels of every tensor.
    images: which inputs are one tensor per image; empty where the images of a task belong together.
    """

    inputs: ClassVar[tuple[int, ...]]
    outputs: ClassVar[tuple[int, ...]]
    images: ClassVar[tuple[bool, ...]] = ()

    def __init_subclass__(cls) -> None:
        """Find out the signature of ``forward`` once; else torch does so at every call."""
        cls.forward.__signature__ = signature(cls.forward)  # type: ignore[attr-defined]

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        """Merge the axis of tasks into that of the channels or the images, and part them again."""
        count, tasks = len(cls.inputs), info.batch_size
        tensors, rest = list(zip(args[:count], in_dims[:count], strict=True)), list(args[count:])
        shared = [at is None for _, at in tensors]
        if cls.images and all(map(max, cls.images, shared)) and _whole(*tensors[0]):
            axes: tuple[int, ...] = (0,) * len(cls.outputs)
            merged = [
                _merge(*x, 0, tasks) if own else x[0] for x, own in zip(tensors, cls.images, strict=True)
            ]
        else:
            axes, rest[-1] = cls.outputs, rest[-1] * tasks
            merged = [_merge(*x, axis, tasks) for x, axis in zip(tensors, cls.inputs, strict=True)]
        out = cls.apply(*merged, *rest)
        many = isinstance(out, tuple)
        parts = tuple(
            y.unflatten(axis, (tasks, -1)) for y, axis in zip(out if many else (out,), axes, strict=True)
        )
        return (parts, axes) if many else (parts[0], axes[0])


def _whole(x: Tensor, at: int | None) -> bool:
    """Return whether the images of a task lie together, and not as channels beside those of other tasks."""
    return at is None or x.stride(at) >= x.movedim(at, 0).stride(1)


def _merge(x: Tensor, at: int | None, axis: int, tasks: int) -> Tensor:
    """Return ``x`` with its axis of tasks merged into ``axis``."""
    x = (
        x.unsqueeze(axis).expand(*x.shape[:axis], tasks, *x.shape[axis:])
        if at is None
        else x.movedim(at, axis)
    )
    return x.flatten(axis, axis + 1)


def _dense(x: Tensor) -> Tensor:
    """Return ``x`` laid out channels last; so too says the stride of one channel, which could be any."""
    x = x.contiguous(memory_format=torch.channels_last)
    if x.shape[1] != 1 or x.stride(1) == 1:
        return x
    _, _, height, width = x.shape
    return x.as_strided(x.shape, (height * width, 1, width, 1))


def _conv_backward(
    g: Tensor, x: Tensor, w: Tensor, stride: int, padding: int, groups: int, which: int
) -> Tensor:
    mask = [which == 0, which == 1, False]
    args = (None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups, mask)
    return _backward(g, x, w, *args)[which]


class _Conv(_Grouped):
    """y = x * w."""

    inputs, outputs = (1, 0), (1,)
    images = (True, False)

    @staticmethod
    def forward(x: Tensor, w: Tensor, stride: int, padding: int, groups: int) -> Tensor:
        return torch.conv2d(_dense(x), _dense(w), None, stride, padding, 1, groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, w, *ctx.how = inputs
        ctx.save_for_backward(x, w)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        x, w = ctx.saved_tensors
        dx = _ConvInput.apply(g, w, *x.shape[-2:], *ctx.how) if ctx.needs_input_grad[0] else None
        dw = _ConvWeight.apply(x, g, *w.shape[-2:], *ctx.how) if ctx.needs_input_grad[1] else None
        return dx, dw, None, None, None


class _ConvInput(_Grouped):
    """The gradient of x * w with respect to x: the forward of a transposed convolution."""

    inputs, outputs = (1, 0), (1,)
    images = (True, False)

    @staticmethod
    def forward(
        g: Tensor, w: Tensor, height: int, width: int, stride: int, padding: int, groups: int
    ) -> Tensor:
        shape = (g.shape[0], groups * w.shape[1], height, width)
        x = torch.empty(shape, dtype=g.dtype, device=g.device, memory_format=torch.channels_last)
        return _conv_backward(_dense(g), x, _dense(w), stride, padding, groups, 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        g, w, _, _, *ctx.how = inputs
        ctx.save_for_backward(g, w)

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[Any, ...]:
        g, w = ctx.saved_tensors
        dg = _Conv.apply(h, w, *ctx.how) if ctx.needs_input_grad[0] else None
        dw = _ConvWeight.apply(h, g, *w.shape[-2:], *ctx.how) if ctx.needs_input_grad[1] else None
        return dg, dw, None, None, None, None, None


class _ConvWeight(_Grouped):
    """The gradient of x * w with respect to w."""

    inputs, outputs = (1, 1), (0,)

    @staticmethod
    def forward(
        x: Tensor, g: Tensor, height: int, width: int, stride: int, padding: int, groups: int
    ) -> Tensor:
        shape = (g.shape[1], x.shape[1] // groups, height, width)
        w = torch.empty(shape, dtype=g.dtype, device=g.device, memory_format=torch.channels_last)
        return _conv_backward(_dense(g), _dense(x), w, stride, padding, groups, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, g, _, _, *ctx.how = inputs
        ctx.save_for_backward(x, g)

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[Any, ...]:
        x, g = ctx.saved_tensors
        dx = _ConvInput.apply(g, h, *x.shape[-2:], *ctx.how) if ctx.needs_input_grad[0] else None
        dg = _Conv.apply(x, h, *ctx.how) if ctx.needs_input_grad[1] else None
        return dx, dg, None, None, None, None, None


class _BatchNorm(_Grouped):
    """y = gamma (x - mean) / sqrt(var + eps) + beta over (S, H, W); also mean and 1 / sqrt(var + eps)."""

    inputs, outputs = (1, 0, 0), (1, 0, 0)

    @staticmethod
    def forward(x: Tensor, gamma: Tensor, beta: Tensor, eps: float, groups: int) -> tuple[Tensor, ...]:
        return _batch_norm(_dense(x), gamma.contiguous(), beta.contiguous(), None, None, True, 0.0, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, gamma, _, ctx.eps, _ = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(x, gamma, *output[1:])

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Any) -> tuple[Any, ...]:
        return *_BatchNormBackward.apply(g, *ctx.saved_tensors, ctx.eps, 1), None, None


class _BatchNormBackward(_Grouped):
    """dx = gamma r P g, dgamma = sum g z, dbeta = sum g, with z = (x - m) r and P g = g - <g> - z <g z>.

    P is symmetric, so that the same kernel gives the derivative of dx with respect to g.
    """

    inputs, outputs = (1, 1, 0, 0, 0), (1, 0, 0)

    @staticmethod
    def forward(
        g: Tensor, x: Tensor, gamma: Tensor, m: Tensor, r: Tensor, eps: float, groups: int
    ) -> tuple[Tensor, ...]:
        return _norm_backward(g, x, gamma, m, r, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, *saved, ctx.eps, _ = inputs
        ctx.save_for_backward(*output[:2], *saved)

    @staticmethod
    def backward(ctx: Any, h: Tensor, hgamma: Tensor, hbeta: Tensor) -> tuple[Any, ...]:
        dx, dgamma, x, gamma, m, r = ctx.saved_tensors
        back = _BatchNormSecond.apply(h, hgamma, hbeta, dx, dgamma, x, gamma, m, r, ctx.eps, 1)
        return *back, None, None, None, None


def _norm_backward(
    g: Tensor, x: Tensor, gamma: Tensor, m: Tensor, r: Tensor, eps: float
) -> tuple[Tensor, ...]:
    args = (None, None, m.contiguous(), r.contiguous(), True, eps, [True] * 3)
    return _batch_norm_backward(_dense(g), _dense(x), gamma.contiguous(), *args)


class _BatchNormSecond(_Grouped):
    """The derivative of ``_BatchNormBackward`` with respect to g, x and gamma.

    With u = gamma r P h, n = S H W and q = sum h dx:
    to g: u + hgamma z + hbeta; to gamma: q / gamma;
    to x: -r (dgamma u + <h z> dx) / n - r q z / n + hgamma dx / gamma.
    """

    inputs, outputs = (1, 0, 0, 1, 0, 1, 0, 0, 0), (1, 1, 0)

    @staticmethod
    def forward(
        h: Tensor,
        hgamma: Tensor,
        hbeta: Tensor,
        dx: Tensor,
        dgamma: Tensor,
        x: Tensor,
        gamma: Tensor,
        m: Tensor,
        r: Tensor,
        eps: float,
        groups: int,
    ) -> tuple[Tensor, ...]:
        n = x.numel() // x.shape[1]
        h, x, dx = _dense(h), _dense(x), _dense(dx)
        u, hz, _ = _norm_backward(h, x, gamma, m, r, eps)
        q = (h * dx).sum((0, 2, 3))
        k = r * r * q / n

        def wide(v: Tensor) -> Tensor:
            return v.view(1, -1, 1, 1)

        to_x = torch.addcmul(wide(k * m), x, wide(-k))
        to_x = to_x.addcmul_(u, wide(-r * dgamma / n)).addcmul_(dx, wide(hgamma / gamma - r * hz / n))
        to_g = torch.addcmul(wide(hbeta - hgamma * r * m), x, wide(hgamma * r)).add_(u)
        return to_g, to_x, q / gamma

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return (None,) * 11


class _GroupNorm(_Grouped):
    """z = (x - mean) / sqrt(var + eps) over the channels of a group and (H, W) of each image."""

    inputs, outputs = (1,), (1, 1, 1)
    images = (True,)

    @staticmethod
    def forward(x: Tensor, eps: float, groups: int) -> tuple[Tensor, ...]:
        s, c, height, width = x.shape
        return _group_norm(_dense(x), None, None, s, c, height * width, groups, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, _, ctx.groups = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(x, *output[1:])

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Any) -> tuple[Any, ...]:
        return _GroupNormBackward.apply(g, *ctx.saved_tensors, ctx.groups), None, None


class _GroupNormBackward(_Grouped):
    """dx = r P g with P g = g - <g> - z <g z>, the means over a group."""

    inputs, outputs = (1, 1, 1, 1), (1,)
    images = (True,) * 4

    @staticmethod
    def forward(g: Tensor, x: Tensor, m: Tensor, r: Tensor, groups: int) -> Tensor:
        return _project(g, x, m, r, groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        g, x, m, r, ctx.groups = inputs
        ctx.save_for_backward(g, output, x, m, r)

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[Any, ...]:
        to_g, to_x = _GroupNormSecond.apply(h, *ctx.saved_tensors, ctx.groups)
        return to_g, to_x, None, None, None


def _project(g: Tensor, x: Tensor, m: Tensor, r: Tensor, groups: int) -> Tensor:
    s, c, height, width = x.shape
    args = (m.contiguous(), r.contiguous(), None, s, c, height * width, groups, [True, False, False])
    return _group_norm_backward(_dense(g), _dense(x), *args)[0]


class _GroupNormSecond(_Grouped):
    """The derivative of ``_GroupNormBackward``; to x: -r (<g z> u + <h z> dx + <h dx> z), u = r P h."""

    inputs, outputs = (1, 1, 1, 1, 1, 1), (1, 1)
    images = (True,) * 6

    @staticmethod
    def forward(
        h: Tensor, g: Tensor, dx: Tensor, x: Tensor, m: Tensor, r: Tensor, groups: int
    ) -> tuple[Tensor, ...]:
        u = _project(h, x, m, r, groups)

        def split(v: Tensor) -> Tensor:
            return v.unflatten(1, (groups, -1))

        def wide(v: Tensor) -> Tensor:
            return v[..., None, None, None]

        def mean(v: Tensor) -> Tensor:
            return v.mean((2, 3, 4), keepdim=True)

        z = (split(x) - wide(m)) * wide(r)
        hs, gs, ds = split(h), split(g), split(dx)
        to_x = mean(gs * z) * split(u) + mean(hs * z) * ds + mean(hs * ds) * z
        return u, (to_x * wide(-r)).flatten(1, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return (None,) * 7


class _MaxPool(_Grouped):
    """The largest of every ``size`` x ``size`` pixels, and where it is."""

    inputs, outputs = (1,), (1, 1)
    images = (True,)

    @staticmethod
    def forward(x: Tensor, size: int, groups: int) -> tuple[Tensor, ...]:
        return F.max_pool2d(_dense(x), size, return_indices=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, _, _ = inputs
        ctx.shape = x.shape[-2:]
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Any) -> tuple[Any, ...]:
        return _Scatter.apply(g, *ctx.saved_tensors, *ctx.shape, 1), None, None


class _Scatter(_Grouped):
    """Put g where the largest pixels were, zero elsewhere."""

    inputs, outputs = (1, 1), (1,)
    images = (True, True)

    @staticmethod
    def forward(g: Tensor, at: Tensor, height: int, width: int, groups: int) -> Tensor:
        size = height // g.shape[-2]
        x = torch.empty(
            (*g.shape[:2], height, width), dtype=g.dtype, device=g.device, memory_format=torch.channels_last
        )
        args = ([size] * 2, [size] * 2, [0, 0], [1, 1], False)
        return torch.ops.aten.max_pool2d_with_indices_backward(_dense(g), x, *args, _dense(at))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.size = inputs[2:4]

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[Any, ...]:
        return _Gather.apply(h, *ctx.saved_tensors, 1), None, None, None, None


class _Gather(_Grouped):
    """Read h where the largest pixels were."""

    inputs, outputs = (1, 1), (1,)
    images = (True, True)

    @staticmethod
    def forward(h: Tensor, at: Tensor, groups: int) -> Tensor:
        s, c, height, width = h.shape
        rows = _dense(h).permute(0, 2, 3, 1).reshape(s, height * width, c)
        picked = rows.gather(1, _dense(at).permute(0, 2, 3, 1).reshape(s, -1, c))
        return picked.reshape(s, *at.shape[-2:], c).permute(0, 3, 1, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        h, at, _ = inputs
        ctx.save_for_backward(at)
        ctx.shape = h.shape[-2:]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        return _Scatter.apply(g, *ctx.saved_tensors, *ctx.shape, 1), None, None


def _lowered(x: Tensor, *rest: Tensor | None) -> list[Any]:
    """Return the operands of a convolution as autocast would: it does not look into functions of ours."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        return [x, *rest]
    dtype = torch.get_autocast_dtype(kind)
    return [None if operand is None else operand.to(dtype) for operand in (x, *rest)]


def _wide(x: Tensor) -> Tensor:
    """Return what a norm takes: statistics of few bits are of no use, and their derivatives of less."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolve (S, C, H, W) with (O, C, k, k): :func:`torch.nn.functional.conv2d`."""
    x, weight, bias = _lowered(x, weight, bias)
    if torch.compiler.is_exporting():
        return torch.conv2d(x, weight, bias, stride, padding)
    y = _Conv.apply(x, weight, stride, padding, 1)
    return y if bias is None else y + bias[:, None, None]


def conv_transpose2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 0
) -> Tensor:
    """Convolve (S, C, H, W), transposed, with (C, O, k, k): :func:`torch.nn.functional.conv_transpose2d`."""
    size = [(x.shape[i] - 1) * stride - 2 * padding + weight.shape[i] for i in (-2, -1)]
    x, weight, bias = _lowered(x, weight, bias)
    if torch.compiler.is_exporting():
        return torch.conv_transpose2d(x, weight, bias, stride, padding)
    y = _ConvInput.apply(x, weight, *size, stride, padding, 1)
    return y if bias is None else y + bias[:, None, None]


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Normalise (S, C, H, W) by the statistics of the batch itself: no running averages."""
    # The second derivative divides by the weight.
    weight = torch.where(weight.abs() < 1e-12, 1e-12, weight)
    return _BatchNorm.apply(_wide(x), weight, bias, eps, 1)[0]


def group_norm(x: Tensor, groups: int, eps: float = 1e-5) -> Tensor:
    """Normalise every image of (S, C, H, W) over groups of channels, without an affine map."""
    if torch.compiler.is_exporting():
        return torch.group_norm(_wide(x), groups, eps=eps)
    return _GroupNorm.apply(_wide(x), eps, groups)[0]


def max_pool2d(x: Tensor, size: int) -> Tensor:
    """Take the maximum of every ``size`` x ``size`` pixels of (S, C, H, W), dropping what is left over."""
    return _MaxPool.apply(x, size, 1)[0]
