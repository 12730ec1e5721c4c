"""Writes the reference vectors of hosts, seeds and slots.

Usage: make_blueprints.py [OUT_DIR]      (default: blueprints/ beside this file)

The networks of blueprint_reference.py run in float64 on random numbers from
fixed seeds. Nothing of the product is used but the names of its parameters.
Needs torch and safetensors; blueprints/README.md says what the files hold.
"""

import json
import math
import pathlib
import sys

import torch
from safetensors.torch import save_file

from blueprint_reference import BLUEPRINTS
from blueprint_reference import Kinks
from blueprint_reference import cnn_host
from blueprint_reference import fresh_statistics
from blueprint_reference import gate_shapes
from blueprint_reference import run_slot
from blueprint_reference import transformer_host

STAGES = {  # Vector group -> stages that share it, and alpha.
    "training": (["TRAINING"], 0.0),
    "training_blend": (["TRAINING"], 0.25),
    "blending": (["BLENDING"], 0.35),
    "full": (["HOLDING", "FOSSILIZED"], 1.0),
}
ALGORITHMS = ("ADD", "MULTIPLY", "GATE")
# Float32 must not take another branch than float64 does.
KINK_MARGIN = 2e-6


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
            f"{path.name}: {path.stat().st_size} bytes, "
            f"nearest kink {Kinks.nearest:.1e}"
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


# Hosts, bare and with slots.


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
