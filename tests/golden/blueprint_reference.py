"""Hosts, seeds and slots in PyTorch's basic operations.

The second expression of the networks, from their formulas alone, that
make_blueprints.py takes its reference vectors from. Parameters are dictionaries
by the product's names; tensors may have any floating dtype.
"""

import math

import torch
import torch.nn.functional as F


class Kinks:
    """How near a branch of relu or max_pool any number came."""

    nearest = math.inf

    @classmethod
    def see(cls, distances):
        if distances.numel():
            cls.nearest = min(cls.nearest, distances.abs().min().item())


def relu(x):
    Kinks.see(x.detach())
    return torch.where(x > 0, x, torch.zeros_like(x))


def max_pool(x):
    b, c, h, w = x.shape
    x = x[:, :, : h // 2 * 2, : w // 2 * 2]
    windows = x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 2, 4, 3, 5)
    windows = windows.reshape(b, c, h // 2, w // 2, 4)
    top = windows.detach().topk(2, dim=-1).values
    Kinks.see((top[..., 0] - top[..., 1])[top[..., 0] > 0])
    # Equal numbers, as zeros behind a relu are: the first one is taken, which
    # matters to a seed that hears of the pool's gradient.
    best = windows.detach() == windows.detach().amax(-1, keepdim=True)
    return (windows * (best & (best.cumsum(-1) == 1))).sum(-1)


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2.0)))


def linear(x, p, name):
    y = x @ p[name + ".weight"].T
    return y + p[name + ".bias"] if name + ".bias" in p else y


def conv(x, p, name, groups=1):
    weight = p[name + ".weight"]
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=groups)


def standardise(x, axes):
    centred = x - x.mean(axes, keepdim=True)
    variance = (centred * centred).mean(axes, keepdim=True)
    return centred / torch.sqrt(variance + 1e-5)


def layer_norm(x, p, name):
    return standardise(x, -1) * p[name + ".weight"] + p[name + ".bias"]


def group_count(channels, profile):
    if profile == "live" and channels < 16:
        return 1
    sizes = [n for n in (32, 16, 8, 4, 2, 1) if channels % n == 0]
    return next((n for n in sizes if channels // n >= 16), sizes[0])


def group_norm(x, p, name, profile):
    b, c, h, w = x.shape
    groups = group_count(c, profile)
    y = standardise(x.reshape(b, groups, -1), -1).reshape(x.shape)
    scale, shift = p[name + ".weight"], p[name + ".bias"]
    return y * scale.view(1, c, 1, 1) + shift.view(1, c, 1, 1)


def causal_attention(qkv, heads):
    b, t, d3 = qkv.shape
    d = d3 // 3
    size = d // heads
    out = []
    for head in range(heads):
        at = lambda part: qkv[..., part * d + head * size :][..., :size]
        scores = at(0) @ at(1).transpose(1, 2) / math.sqrt(size)
        seen = torch.tril(torch.ones(t, t, dtype=torch.bool))
        weights = torch.exp(scores - scores.amax(-1, keepdim=True)) * seen
        out.append(weights / weights.sum(-1, keepdim=True) @ at(2))
    return torch.cat(out, -1)


# Blueprints: (shapes of parameters by name, function of (x, p, options)).
# Kinds of parameters: "w" a weight, "s" a norm's scale, "b" a shift.


def cnn_blueprints(c):
    r, b = max(1, c // 4), max(8, c // 4)
    norm = lambda name: {
        name + ".weight": ("s", [c]),
        name + ".bias": ("b", [c]),
    }
    w = lambda *shape: ("w", list(shape))

    def enhance(x, p, o, name):
        y = conv(x, p, name + ".conv")
        return relu(group_norm(y, p, name + ".gn", o["profile"]))

    def attention(x, p, o):
        squeezed = relu(linear(x.mean((2, 3)), p, "fc.0"))
        return x * torch.sigmoid(linear(squeezed, p, "fc.2"))[..., None, None]

    def bottleneck(x, p, o):
        y = relu(conv(relu(conv(x, p, "down")), p, "conv"))
        return x + group_norm(conv(y, p, "up"), p, "gn", o["profile"])

    def depthwise(x, p, o):
        y = conv(conv(x, p, "depthwise", groups=c), p, "pointwise")
        return x + relu(group_norm(y, p, "gn", o["profile"]))

    return {
        "noop": ({}, lambda x, p, o: x),
        "norm": (
            {**norm("norm"), "scale": ("b", [1])},
            lambda x, p, o: x
            + torch.tanh(p["scale"])
            * (group_norm(x, p, "norm", o["profile"]) - x),
        ),
        "attention": (
            {
                "fc.0.weight": w(r, c),
                "fc.2.weight": w(c, r),
                "fc.2.bias": ("b", [c]),
            },
            attention,
        ),
        "conv_small": (
            {"conv.weight": w(c, c, 1, 1), **norm("gn")},
            lambda x, p, o: x
            + relu(group_norm(conv(x, p, "conv"), p, "gn", o["profile"])),
        ),
        "bottleneck": (
            {
                "down.weight": w(b, c, 1, 1),
                "conv.weight": w(b, b, 3, 3),
                "up.weight": w(c, b, 1, 1),
                **norm("gn"),
            },
            bottleneck,
        ),
        "depthwise": (
            {
                "depthwise.weight": w(c, 1, 3, 3),
                "pointwise.weight": w(c, c, 1, 1),
                **norm("gn"),
            },
            depthwise,
        ),
        "conv_light": (
            {"enhance.conv.weight": w(c, c, 3, 3), **norm("enhance.gn")},
            lambda x, p, o: x + enhance(x, p, o, "enhance"),
        ),
        "conv_heavy": (
            {
                "enhance.0.conv.weight": w(c, c, 3, 3),
                **norm("enhance.0.gn"),
                "enhance.1.conv.weight": w(c, c, 3, 3),
                **norm("enhance.1.gn"),
            },
            lambda x, p, o: x
            + enhance(enhance(x, p, o, "enhance.0"), p, o, "enhance.1"),
        ),
    }


def transformer_blueprints(d):
    w = lambda *shape: ("w", list(shape))
    full = lambda name, n, m: {
        name + ".weight": w(m, n),
        name + ".bias": ("b", [m]),
    }

    def low_rank(rank):
        shapes = {"down.weight": w(rank, d), "up.weight": w(d, rank)}
        return shapes, lambda x, p, o: x + linear(linear(x, p, "down"), p, "up")

    def attention():
        def run(x, p, o):
            heads = o["values"].get("n_head", 4)
            return x + linear(
                causal_attention(linear(x, p, "qkv"), heads), p, "proj"
            )

        return {**full("qkv", d, 3 * d), **full("proj", d, d)}, run

    def mlp(expansion):
        shapes = {
            **full("fc1", d, expansion * d),
            **full("fc2", expansion * d, d),
        }
        return shapes, lambda x, p, o: x + linear(
            gelu(linear(x, p, "fc1")), p, "fc2"
        )

    return {
        "noop": ({}, lambda x, p, o: x),
        "norm": (
            {
                "norm.weight": ("s", [d]),
                "norm.bias": ("b", [d]),
                "scale": ("b", [1]),
            },
            lambda x, p, o: x
            + torch.tanh(p["scale"]) * (layer_norm(x, p, "norm") - x),
        ),
        "lora": low_rank(8),
        "lora_large": low_rank(32),
        "attention": attention(),
        "flex_attention": attention(),
        "mlp_small": mlp(2),
        "mlp": mlp(4),
    }


BLUEPRINTS = {"cnn": cnn_blueprints, "transformer": transformer_blueprints}


def gate_shapes(c):
    m = max(8, c // 4)
    return {
        "gate.0.weight": ("w", [m, c]),
        "gate.0.bias": ("b", [m]),
        "gate.2.weight": ("w", [1, m]),
        "gate.2.bias": ("b", [1]),
    }


def run_gate(x, p):
    pooled = x.mean((2, 3) if x.dim() == 4 else 1)
    g = torch.sigmoid(linear(relu(linear(pooled, p, "gate.0")), p, "gate.2"))
    return g.reshape([-1] + [1] * (x.dim() - 1))


def run_slot(h, seed, gate, case, alpha):
    """What leaves a slot whose seed is the function `seed`."""
    training = case["stages"] == ["TRAINING"]
    isolated = training or h.dim() == 4
    x = h.detach() if isolated else h
    s = seed(x)
    if training and not case.get("override") and case["alpha"] == 0:
        return h + (s - s.detach())
    if case["algorithm"] == "MULTIPLY":
        return h * (1 + alpha * torch.tanh(s - x))
    weight = alpha * run_gate(x, gate) if case["algorithm"] == "GATE" else alpha
    return h + weight * (s - h)


# Hosts, bare and with slots. A network is a function of (x, p, visit), where
# visit(point, features) is called at every point and gives what goes on.


def cnn_host(options):
    shapes, channels = {}, {}
    c_in, n = 3, options["n_blocks"]
    k = options["kernel"]
    for i in range(n):
        c = options["base_channels"] * 2**i
        shapes[f"blocks.{i}.conv.weight"] = ("w", [c, c_in, k, k])
        shapes[f"blocks.{i}.bn.weight"] = ("s", [c])
        shapes[f"blocks.{i}.bn.bias"] = ("b", [c])
        channels[f"r0c{i}"] = c
        if i < options["pool_layers"]:
            channels[f"r1c{i}"] = c
        c_in = c
    shapes["classifier.weight"] = ("w", [options["num_classes"], c_in])
    shapes["classifier.bias"] = ("b", [options["num_classes"]])

    def run(x, p, visit, statistics=None, training=True):
        for i in range(n):
            name = f"blocks.{i}"
            y = conv(x, p, name + ".conv")
            mean = statistics[name + ".bn.running_mean"]
            variance = statistics[name + ".bn.running_var"]
            if training:
                count = y.numel() // y.shape[1]
                batch_mean = y.mean((0, 2, 3))
                batch_var = ((y - batch_mean.view(1, -1, 1, 1)) ** 2).mean(
                    (0, 2, 3)
                )
                mean.mul_(0.9).add_(0.1 * batch_mean.detach())
                unbiased = batch_var.detach() * count / (count - 1)
                variance.mul_(0.9).add_(0.1 * unbiased)
            else:
                batch_mean, batch_var = mean, variance
            shape = (1, -1, 1, 1)
            y = (y - batch_mean.view(shape)) / torch.sqrt(
                batch_var.view(shape) + 1e-5
            )
            scale, shift = p[name + ".bn.weight"], p[name + ".bn.bias"]
            x = relu(y * scale.view(shape) + shift.view(shape))
            x = visit(f"r0c{i}", x)
            if i < options["pool_layers"]:
                x = visit(f"r1c{i}", max_pool(x))
        return linear(x.mean((2, 3)), p, "classifier")

    return shapes, channels, run


def transformer_host(options):
    d, layers = options["width"], options["layers"]
    group = layers // options["segments"]
    shapes = {
        "tok_emb.weight": ("w", [options["vocab_size"], d]),
        "pos_emb.weight": ("w", [options["block_size"], d]),
    }
    norm = lambda name: {
        name + ".weight": ("s", [d]),
        name + ".bias": ("b", [d]),
    }
    full = lambda name, n, m: {
        name + ".weight": ("w", [m, n]),
        name + ".bias": ("b", [m]),
    }
    for i in range(layers):
        shapes.update(norm(f"layers.{i}.ln1"))
        shapes.update(full(f"layers.{i}.attn.c_attn", d, 3 * d))
        shapes.update(full(f"layers.{i}.attn.c_proj", d, d))
        shapes.update(norm(f"layers.{i}.ln2"))
        shapes.update(full(f"layers.{i}.mlp.c_fc", d, 4 * d))
        shapes.update(full(f"layers.{i}.mlp.c_proj", 4 * d, d))
    shapes.update(norm("ln_f"))
    channels = {f"r0c{i}": d for i in range(options["segments"])}

    def run(tokens, p, visit):
        x = p["tok_emb.weight"][tokens] + p["pos_emb.weight"][: tokens.shape[1]]
        for i in range(layers):
            name = f"layers.{i}"
            y = linear(
                layer_norm(x, p, name + ".ln1"), p, name + ".attn.c_attn"
            )
            y = causal_attention(y, options["heads"])
            x = x + linear(y, p, name + ".attn.c_proj")
            y = gelu(
                linear(layer_norm(x, p, name + ".ln2"), p, name + ".mlp.c_fc")
            )
            x = x + linear(y, p, name + ".mlp.c_proj")
            if (i + 1) % group == 0:
                x = visit(f"r0c{i // group}", x)
        return layer_norm(x, p, "ln_f") @ p["tok_emb.weight"].T

    return shapes, channels, run


def fresh_statistics(shapes):
    statistics = {}
    for name, (_, shape) in shapes.items():
        if name.endswith("bn.bias"):
            base = name[: -len("bias")]
            statistics[base + "running_mean"] = torch.zeros(shape).double()
            statistics[base + "running_var"] = torch.ones(shape).double()
    return statistics
