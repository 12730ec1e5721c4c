"""Evaluation and gradient in PyTorch, shaped as the reference project has them.

A module per head, dictionaries by head, a mask, a floor and a distribution
object for each head, `nn.LSTM` over the sequence, Q and the contribution
predictor beside V. It loads the weights and the batch that `training export`
wrote and first checks that it gets the same loss and the same gradient; then it
takes steps as it is told on standard input: one line with a number of steps
gives one line of JSON with the seconds and the CPU seconds of each.
"""
import argparse
import json
import struct
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

OBSERVATIONS, SLOTS, FEATURES, HIDDEN = 116, 3, 512, 512
BLUEPRINTS, EMBEDDING, OPS = 13, 4, 6
HEADS = {
    "slot": SLOTS, "blueprint": BLUEPRINTS, "style": 4, "tempo": 3,
    "alpha_target": 3, "alpha_speed": 4, "alpha_curve": 5, "op": OPS,
}
FLOORS = {
    "slot": 0.05, "blueprint": 0.12, "style": 0.08, "tempo": 0.12,
    "alpha_target": 0.08, "alpha_speed": 0.06, "alpha_curve": 0.06, "op": 0.15,
}
MASKED = -1e4
CLIP, ENTROPY, VALUE, AUXILIARY = 0.2, 0.05, 0.5, 0.05
DTYPES = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64,
          "BOOL": torch.bool}


def read_safetensors(path):
    with open(path, "rb") as f:
        (size,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(size))
        data = bytearray(f.read())
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        tensors[name] = torch.frombuffer(
            data[begin:end], dtype=DTYPES[entry["dtype"]]).reshape(
                entry["shape"]).clone()
    return tensors


class MaskedCategorical:
    """One head's distribution: mask, floor, log-probability, entropy."""

    def __init__(self, logits, mask, min_prob):
        self.mask = mask
        self.logits = logits.float().masked_fill(~mask, MASKED)
        if min_prob > 0:
            self.logits = self.floored(min_prob)
        self.distribution = torch.distributions.Categorical(
            logits=self.logits, validate_args=False)

    def floored(self, min_prob):
        probs = F.softmax(self.logits, dim=-1)
        allowed = self.mask.sum(-1, keepdim=True).clamp(min=1)
        floor = torch.clamp(0.99 / allowed.float(), max=min_prob)
        under = self.mask & (probs < floor)
        over = self.mask & ~under
        need = under.sum(-1, keepdim=True) * floor
        rest = (1 - need).clamp(min=1e-8)
        mass = (probs * over).sum(-1, keepdim=True).clamp(min=1e-8)
        probs = torch.where(under, floor, probs * (rest / mass))
        return probs.clamp(min=1e-8).log().masked_fill(~self.mask, MASKED)

    def log_prob(self, action):
        return self.distribution.log_prob(action)

    def entropy(self):
        probs = self.distribution.probs
        log_probs = F.log_softmax(self.logits, dim=-1)
        raw = -(probs * log_probs * self.mask).sum(-1)
        count = self.mask.sum(-1)
        normal = torch.log(count.clamp(min=2).float())
        return torch.where(count <= 1, torch.zeros_like(raw), raw / normal)


class BlueprintEmbedding(nn.Module):

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(BLUEPRINTS + 1, EMBEDDING)
        self.register_buffer("_null_idx", torch.tensor(BLUEPRINTS))

    def forward(self, indices):
        return self.embedding(
            torch.where(indices < 0, self._null_idx, indices))


class ResidualLstm(nn.Module):

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.LSTM(HIDDEN, HIDDEN, batch_first=True)])
        self.layer_norms = nn.ModuleList([nn.LayerNorm(HIDDEN)])

    def forward(self, x, hidden):
        h, c = hidden
        new_h, new_c = [], []
        for i, (lstm, norm) in enumerate(zip(self.layers, self.layer_norms)):
            y, (layer_h, layer_c) = lstm(x, (h[i:i + 1], c[i:i + 1]))
            x = x + norm(y)
            new_h.append(layer_h)
            new_c.append(layer_c)
        return x, (torch.cat(new_h), torch.cat(new_c))


def value_head(inputs):
    half, quarter, eighth = HIDDEN // 2, HIDDEN // 4, HIDDEN // 8
    return nn.Sequential(
        nn.Linear(inputs, half), nn.LayerNorm(half), nn.ReLU(),
        nn.Linear(half, quarter), nn.LayerNorm(quarter), nn.ReLU(),
        nn.Linear(quarter, eighth), nn.ReLU(), nn.Linear(eighth, 1))


class Policy(nn.Module):

    def __init__(self):
        super().__init__()
        half, quarter = HIDDEN // 2, HIDDEN // 4
        self.blueprint_embedding = BlueprintEmbedding()
        self.feature_net = nn.Sequential(
            nn.Linear(OBSERVATIONS + SLOTS * EMBEDDING, FEATURES),
            nn.LayerNorm(FEATURES), nn.ReLU())
        self.lstm = ResidualLstm()
        for name, size in HEADS.items():
            layers = [nn.Linear(HIDDEN, HIDDEN), nn.ReLU()] if (
                name == "blueprint") else []
            setattr(self, f"{name}_head", nn.Sequential(
                *layers, nn.Linear(HIDDEN, half), nn.ReLU(),
                nn.Linear(half, size)))
        self.state_value_head = value_head(HIDDEN)
        self.q_head = value_head(HIDDEN + OPS)
        # Without its dropout, so that both sides compute the same.
        self.contribution_predictor = nn.Sequential(
            nn.Linear(HIDDEN, half), nn.LayerNorm(half), nn.ReLU(),
            nn.Identity(), nn.Linear(half, quarter), nn.ReLU(),
            nn.Linear(quarter, SLOTS))

    def evaluate_actions(self, states, blueprints, actions, masks, hidden):
        embedded = self.blueprint_embedding(blueprints).flatten(start_dim=2)
        features = self.feature_net(torch.cat([states, embedded], dim=-1))
        trunk, hidden = self.lstm(features, hidden)
        logits = {name: getattr(self, f"{name}_head")(trunk) for name in HEADS}
        values = self.state_value_head(trunk).squeeze(-1)
        one_hot = F.one_hot(actions["op"], OPS).float()
        q_values = self.q_head(
            torch.cat([trunk.detach(), one_hot], dim=-1)).squeeze(-1)
        contributions = self.contribution_predictor(trunk.detach())
        log_probs, entropies = {}, {}
        for name, size in HEADS.items():
            batch, steps, _ = logits[name].shape
            distribution = MaskedCategorical(
                logits[name].reshape(-1, size),
                masks[name].reshape(-1, size), FLOORS[name])
            log_probs[name] = distribution.log_prob(
                actions[name].reshape(-1)).reshape(batch, steps)
            entropies[name] = distribution.entropy().reshape(batch, steps)
        return log_probs, entropies, values, q_values, contributions, hidden


class Twin:

    def __init__(self, tensors):
        self.policy = Policy()
        self.policy.load_state_dict({
            name[len("weights."):]: value for name, value in tensors.items()
            if name.startswith("weights.")})
        self.observations = tensors["observations"]
        self.blueprints = tensors["blueprints"]
        self.actions, self.masks, self.old = {}, {}, {}
        at = 0
        for k, (name, size) in enumerate(HEADS.items()):
            self.actions[name] = tensors["actions"][..., k].contiguous()
            self.masks[name] = tensors["masks"][..., at:at + size].contiguous()
            self.old[name] = tensors["old_log_probs"][..., k].contiguous()
            at += size
        self.advantages = tensors["advantages"]
        self.returns = tensors["returns"]
        self.contributions = tensors["contribution_targets"]
        rows = self.observations.shape[0]
        self.hidden = (torch.zeros(1, rows, HIDDEN),
                       torch.zeros(1, rows, HIDDEN))

    def step(self):
        self.policy.zero_grad(set_to_none=True)
        log_probs, entropies, values, q_values, contributions, _ = (
            self.policy.evaluate_actions(
                self.observations, self.blueprints, self.actions, self.masks,
                self.hidden))
        policy_loss = 0.0
        entropy_loss = 0.0
        for name in HEADS:
            ratio = torch.exp(log_probs[name] - self.old[name])
            surrogate = torch.min(
                ratio * self.advantages,
                torch.clamp(ratio, 1 - CLIP, 1 + CLIP) * self.advantages)
            policy_loss = policy_loss - surrogate.mean()
            entropy_loss = entropy_loss - entropies[name].mean()
        loss = (policy_loss + ENTROPY * entropy_loss +
                VALUE * F.mse_loss(values, self.returns) +
                AUXILIARY * F.mse_loss(q_values, self.returns) +
                AUXILIARY * F.mse_loss(contributions, self.contributions))
        loss.backward()
        return loss

    def check(self, tensors):
        """Relative differences of loss and gradient from the service's."""
        loss = self.step().item()
        expected = tensors["loss"].item()
        worst = 0.0
        for name, parameter in self.policy.named_parameters():
            theirs = tensors["gradients." + name]
            norm = theirs.norm().item()
            difference = (parameter.grad - theirs).norm().item()
            worst = max(worst, difference / max(norm, 1e-12))
        return abs(loss - expected) / abs(expected), worst


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tensors = read_safetensors(arguments.batch)
    twin = Twin(tensors)
    loss, gradient = twin.check(tensors)
    print(json.dumps({"loss_difference": loss,
                      "gradient_difference": gradient}), flush=True)
    for line in sys.stdin:
        seconds, cpu = [], []
        for _ in range(int(line)):
            used, start = time.process_time(), time.perf_counter()
            twin.step()
            seconds.append(time.perf_counter() - start)
            cpu.append(time.process_time() - used)
        print(json.dumps({"seconds": seconds, "cpu": cpu}), flush=True)


if __name__ == "__main__":
    main()
