"""Writes the reference vectors of hosts, seeds and slots.

Usage: make_blueprints.py [OUT_DIR]      (default: blueprints/ beside this file)

Networks are written here a second time, from their formulas and with PyTorch's
basic operations only, and run in float64. Nothing of the product is used but
the names of its parameters. Needs torch and safetensors; blueprints/README.md
says what the files hold.
"""

import json
import math
import pathlib
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

STAGES = {  # Vector group -> stages that share it, and alpha.
    "training": (["TRAINING"], 0.0),
    "training_blend": (["TRAINING"], 0.25),
    "blending": (["BLENDING"], 0.35),
    "full": (["HOLDING", "FOSSILIZED"], 1.0),
}
ALGORITHMS = ("ADD", "MULTIPLY", "GATE")
# Float32 must not take another branch than float64 does.
KINK_MARGIN = 2e-6


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


# Making numbers.


class Source:
    """Random float32 numbers from one seed, handed out as float64."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, shape):
        return torch.randn(shape, generator=self.generator).double()

    def tokens(self, shape, vocab):
        return torch.randint(0, vocab, shape, generator=self.generator)

    def parameter(self, kind, shape):
        noise = self.normal(shape)
        if kind == "s":
            return round32(1 + 0.2 * noise)
        if kind == "b":
            return round32(0.4 * noise)
        fan_in = max(1, math.prod(shape[1:]))
        return round32(noise / math.sqrt(fan_in))

    def parameters(self, shapes):
        return {n: self.parameter(*shape) for n, shape in shapes.items()}


def round32(x):
    return x.float().double()


def leaves(parameters):
    return {n: p.clone().requires_grad_() for n, p in parameters.items()}


def stored(tensor):
    tensor = tensor.detach()
    return (
        tensor if tensor.dtype == torch.int64 else tensor.float()
    ).contiguous()


class File:
    """Tensors by name, and a JSON description."""

    def __init__(self, description):
        self.tensors = {}
        self.description = {"format": 1, **description}

    def put(self, prefix, tensors):
        for name, tensor in tensors.items():
            self.tensors[f"{prefix}.{name}"] = stored(tensor).clone()

    def put_gradients(self, prefix, parameters):
        self.put(prefix, {n: p.grad for n, p in parameters.items()})

    def save(self, path):
        if Kinks.nearest < KINK_MARGIN:
            sys.exit(
                f"{path.name}: {Kinks.nearest} from a kink; change the seed"
            )
        metadata = {"description": json.dumps(self.description, sort_keys=True)}
        save_file(self.tensors, path, metadata)
        print(
            f"{path.name}: {path.stat().st_size} bytes, kink {Kinks.nearest:.1e}"
        )
        Kinks.nearest = math.inf


# Slots.


def shape_of(topology, channels):
    return [2, channels, 4, 4] if topology == "cnn" else [2, 5, channels]


def add_set(file, source, topology, name, blueprint, channels):
    """Weights for cases that share them."""
    shapes = BLUEPRINTS[topology](channels)[blueprint][0]
    weights = source.parameters(shapes)
    file.put(f"weight.{name}", weights)
    return weights


def add_case(file, topology, case, weights, gate, data):
    blueprint = BLUEPRINTS[topology](case["channels"])[case["blueprint"]][1]
    p, g = leaves(weights), leaves(gate)
    h = data["host"].clone().requires_grad_()
    options = {"profile": case["profile"], "values": case["values"]}
    alpha = data["override"] if case.get("override") else case["alpha"]
    y = run_slot(h, lambda x: blueprint(x, p, options), g, case, alpha)
    (y * data["cotangent"]).sum().backward()
    name = case["id"]
    file.put(name, {"out": y, "grad.host": h.grad})
    if p:
        file.put_gradients(name + ".grad.seed", p)
    if case["algorithm"] == "GATE" and g["gate.0.weight"].grad is not None:
        file.put_gradients(name + ".grad.gate", g)
    file.description["cases"].append(case)


def make_slots(topology, seed):
    source = Source(seed)
    file = File({"topology": topology, "cases": []})
    inputs, gates = {}, {}

    def data_of(channels):
        if channels not in inputs:
            shape = shape_of(topology, channels)
            override = [0.3, 0.8]
            inputs[channels] = {
                "host": round32(1.2 * source.normal(shape) + 0.3),
                "cotangent": source.normal(shape),
                "override": round32(
                    torch.tensor(override).reshape([2] + [1] * (len(shape) - 1))
                ),
            }
            gates[channels] = source.parameters(gate_shapes(channels))
        return inputs[channels]

    def add(
        case_id,
        blueprint,
        group,
        algorithm,
        channels=16,
        profile="live",
        values=None,
        override=False,
        weights=None,
    ):
        stages, alpha = STAGES[group]
        case = {
            "id": case_id,
            "blueprint": blueprint,
            "weights": weights or blueprint,
            "channels": channels,
            "profile": profile,
            "values": values or {},
            "stages": stages,
            "algorithm": algorithm,
            "alpha": alpha,
            "override": override,
        }
        data = data_of(channels)
        used = {n: t for n, t in data.items() if override or n != "override"}
        file.put(f"in.{channels}", used)
        if algorithm == "GATE":
            file.put(f"gate.{channels}", gates[channels])
        add_case(
            file, topology, case, sets[case["weights"]], gates[channels], data
        )

    sets = {}
    for blueprint in BLUEPRINTS[topology](16):
        sets[blueprint] = add_set(
            file, source, topology, blueprint, blueprint, 16
        )
        for algorithm in ALGORITHMS:
            for group in STAGES:
                name = f"{blueprint}.{algorithm}.{group}"
                add(name, blueprint, group, algorithm)
            if blueprint in ("norm", "attention"):
                name = f"{blueprint}.{algorithm}.override"
                add(name, blueprint, "blending", algorithm, override=True)

    variants = {
        "cnn": [
            ("norm", 8, "live", {}),
            ("norm", 8, "upstream", {}),
            ("norm", 12, "upstream", {}),
            ("norm", 48, "live", {}),
            ("norm", 64, "upstream", {}),
            ("attention", 3, "live", {}),
            ("bottleneck", 40, "live", {}),
        ],
        "transformer": [
            ("attention", 16, "live", {"n_head": 2}),
            ("flex_attention", 6, "live", {"n_head": 3}),
            ("mlp_small", 16, "live", {"checkpoint": 1}),
            ("mlp", 16, "upstream", {"checkpoint": 1}),
        ],
    }
    for blueprint, channels, profile, values in variants[topology]:
        name = f"{blueprint}_{channels}_{profile}"
        data_of(channels)
        sets[name] = add_set(file, source, topology, name, blueprint, channels)
        add(
            name + ".case",
            blueprint,
            "blending",
            "ADD",
            channels,
            profile,
            values,
            weights=name,
        )
    return file


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


def make_hosts(topology, seed, networks):
    source = Source(seed)
    file = File({"topology": topology, "networks": []})
    for name, options, slots in networks:
        shapes, channels, run = (
            cnn_host(options)
            if topology == "cnn"
            else transformer_host(options)
        )
        p = leaves(source.parameters(shapes))
        file.put(name + ".weight", p)
        if topology == "cnn":
            x = source.normal([3, 3, options["size"], options["size"]])
        else:
            x = source.tokens([2, options["length"]], options["vocab_size"])
        file.tensors[name + ".in.x"] = stored(x)

        grown = {}
        for point, case in slots.items():
            c = channels[point]
            shapes_of_seed, blueprint = BLUEPRINTS[topology](c)[
                case["blueprint"]
            ]
            weights = leaves(source.parameters(shapes_of_seed))
            gate = leaves(source.parameters(gate_shapes(c)))
            file.put(f"{name}.seed.{point}", weights)
            if case["algorithm"] == "GATE":
                file.put(f"{name}.gate.{point}", gate)
            grown[point] = (case, blueprint, weights, gate)

        features = {}

        def visit(point, h):
            if point in grown:
                case, blueprint, weights, gate = grown[point]
                options_of_seed = {"profile": "live", "values": {}}
                seed_of = lambda x: blueprint(x, weights, options_of_seed)
                h = run_slot(h, seed_of, gate, case, case["alpha"])
            features[point] = h
            return h

        kwargs = (
            {"statistics": fresh_statistics(shapes)}
            if topology == "cnn"
            else {}
        )
        logits = run(x, p, visit, **kwargs)
        cotangent = source.normal(logits.shape)
        (logits * cotangent).sum().backward()
        file.put(name, {"in.cotangent": cotangent, "out": logits})
        file.put(name + ".point", features)
        file.put_gradients(name + ".grad", p)
        for point, (case, _, weights, gate) in grown.items():
            file.put_gradients(f"{name}.grad.seed.{point}", weights)
            if case["algorithm"] == "GATE":
                file.put_gradients(f"{name}.grad.gate.{point}", gate)
        if topology == "cnn":
            file.put(name + ".statistics", kwargs["statistics"])
            with torch.no_grad():
                evaluated = run(x, p, visit, training=False, **kwargs)
            file.put(name, {"eval": evaluated})
        file.description["networks"].append(
            {"name": name, "options": options, "slots": slots}
        )
    return file


def slot(blueprint, group, algorithm):
    stages, alpha = STAGES[group]
    return {
        "blueprint": blueprint,
        "stages": stages[:1],
        "algorithm": algorithm,
        "alpha": alpha,
    }


def cnn_networks():
    base = {
        "n_blocks": 3,
        "base_channels": 4,
        "pool_layers": 3,
        "kernel": 3,
        "num_classes": 10,
        "size": 9,
    }
    return [
        ("three_pools", base, {}),
        ("one_pool", {**base, "pool_layers": 1, "size": 6}, {}),
        ("pointwise", {**base, "kernel": 1, "pool_layers": 0, "size": 4}, {}),
        (
            "grown",
            {**base, "pool_layers": 2, "size": 8},
            {
                "r0c0": slot("conv_light", "training", "ADD"),
                "r1c0": slot("norm", "blending", "ADD"),
                "r0c1": slot("depthwise", "blending", "MULTIPLY"),
                "r0c2": slot("conv_small", "full", "GATE"),
            },
        ),
    ]


def transformer_networks():
    base = {
        "vocab_size": 19,
        "width": 16,
        "heads": 2,
        "layers": 3,
        "block_size": 10,
        "segments": 3,
        "length": 10,
    }
    return [
        ("full_length", base, {}),
        (
            "short",
            {**base, "heads": 4, "layers": 4, "segments": 2, "length": 3},
            {},
        ),
        (
            "grown",
            {**base, "length": 7},
            {
                "r0c0": slot("mlp_small", "training", "MULTIPLY"),
                "r0c1": slot("attention", "blending", "MULTIPLY"),
                "r0c2": slot("lora", "full", "GATE"),
            },
        ),
        (
            "coupled",
            {**base, "layers": 2, "segments": 2, "length": 6},
            {
                "r0c0": slot("norm", "blending", "GATE"),
                "r0c1": slot("mlp_small", "training_blend", "ADD"),
            },
        ),
    ]


def main(out_dir):
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    out_dir.mkdir(parents=True, exist_ok=True)
    path = lambda name: out_dir / (name + ".safetensors")
    make_slots("cnn", seed=101).save(path("cnn_slots"))
    make_slots("transformer", seed=202).save(path("transformer_slots"))
    make_hosts("cnn", 303, cnn_networks()).save(path("cnn_hosts"))
    make_hosts("transformer", 404, transformer_networks()).save(
        path("transformer_hosts")
    )


if __name__ == "__main__":
    here = pathlib.Path(__file__).resolve().parent
    main(
        pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here / "blueprints"
    )
