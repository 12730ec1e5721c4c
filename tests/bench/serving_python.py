"""Python servers of the same policy, wire and batching, to compare with.

`plain` is PyTorch as users write it: a module per head, one distribution object
per head, recurrent states in a dictionary. `lean` is the fastest fp32 PyTorch
found for it: first layers of the heads as one product, last layers as one
batched product, all heads sampled by one argmax over Gumbel noise, states in
one tensor, `torch._VF.lstm_cell`, inference mode. Both answer with the actions,
log-probabilities and values of the network-growing policy of the default
widths; neither checks its input, keeps steps exactly-once, or forgets episodes.
"""
import argparse
import asyncio
import os
import queue
import threading

import google.protobuf
import grpc
import numpy as np
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from torch import nn
from torch.distributions import Categorical

OBSERVATIONS, SLOTS, FEATURES, HIDDEN = 116, 3, 512, 512
BLUEPRINTS, EMBEDDING = 13, 4
# Storage order; the slot's mask depends on the op.
HEADS = (("slot", SLOTS), ("blueprint", BLUEPRINTS), ("style", 4), ("tempo", 3),
         ("alpha_target", 3), ("alpha_speed", 4), ("alpha_curve", 5), ("op", 6))
OPS = HEADS[-1][1]
OP = len(HEADS) - 1
MAX_ROWS = 256  # Of a batch, as in the server.
DIGEST = "0" * 64


def load_messages(path):
    """Message classes out of a descriptor set of `protoc`."""
    files = descriptor_pb2.FileDescriptorSet()
    with open(path, "rb") as f:
        files.ParseFromString(f.read())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return {
        name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName("esper.v1." + name))
        for name in ("GetActionRequest", "GetActionResponse",
                     "OpenEpisodesRequest", "OpenEpisodesResponse")
    }


def value_head():
    half, quarter, eighth = HIDDEN // 2, HIDDEN // 4, HIDDEN // 8
    return nn.Sequential(
        nn.Linear(HIDDEN, half), nn.LayerNorm(half), nn.ReLU(),
        nn.Linear(half, quarter), nn.LayerNorm(quarter), nn.ReLU(),
        nn.Linear(quarter, eighth), nn.ReLU(), nn.Linear(eighth, 1))


class Policy(nn.Module):
    """The network, a module per head."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(BLUEPRINTS + 1, EMBEDDING)
        self.features = nn.Sequential(
            nn.Linear(OBSERVATIONS + SLOTS * EMBEDDING, FEATURES),
            nn.LayerNorm(FEATURES), nn.ReLU())
        self.lstm = nn.LSTM(FEATURES, HIDDEN, batch_first=True)
        self.norm = nn.LayerNorm(HIDDEN)
        half = HIDDEN // 2
        self.heads = nn.ModuleDict()
        for name, size in HEADS:
            layers = [nn.Linear(HIDDEN, HIDDEN), nn.ReLU()] * (
                name == "blueprint")
            self.heads[name] = nn.Sequential(
                *layers, nn.Linear(HIDDEN, half), nn.ReLU(),
                nn.Linear(half, size))
        self.value = value_head()

    def trunk(self, observations, blueprints):
        index = torch.where(blueprints < 0, BLUEPRINTS, blueprints)
        embedded = self.embedding(index).flatten(1)
        return self.features(torch.cat([observations, embedded], dim=1))

    def forward(self, observations, blueprints, h, c):
        x = self.trunk(observations, blueprints)
        y, (h, c) = self.lstm(x.unsqueeze(1), (h, c))
        x = x + self.norm(y.squeeze(1))
        logits = {name: head(x) for name, head in self.heads.items()}
        return logits, self.value(x).squeeze(1), h, c


class PlainActor:

    def __init__(self):
        self.policy = Policy().eval()
        self.states = {}

    def act(self, ids, observations, blueprints, slot_masks, masks):
        zeros = torch.zeros(1, HIDDEN)
        with torch.no_grad():
            h = torch.stack(
                [self.states.get(i, (zeros, zeros))[0] for i in ids], dim=1)
            c = torch.stack(
                [self.states.get(i, (zeros, zeros))[1] for i in ids], dim=1)
            logits, values, h, c = self.policy(observations, blueprints, h, c)
            actions, log_probs = {}, {}
            at = 0
            split = {}
            for name, size in HEADS[1:]:
                split[name] = masks[:, at:at + size]
                at += size
            for name, _ in (HEADS[OP],) + HEADS[:OP]:
                mask = (split[name] if name != "slot" else
                        slot_masks[torch.arange(len(ids)), actions["op"]])
                distribution = Categorical(
                    logits=logits[name].masked_fill(~mask, -1e9))
                actions[name] = distribution.sample()
                log_probs[name] = distribution.log_prob(actions[name])
            for row, i in enumerate(ids):
                self.states[i] = (h[:, row], c[:, row])
        return (torch.stack([actions[n] for n, _ in HEADS], 1).numpy(),
                torch.stack([log_probs[n] for n, _ in HEADS], 1).numpy(),
                values.numpy())


class LeanActor:

    def __init__(self, episodes=4096):
        policy = Policy().eval()
        self.policy = policy
        self.rows = {}
        self.h = torch.zeros(episodes, HIDDEN)
        self.c = torch.zeros(episodes, HIDDEN)
        cell = policy.lstm
        self.cell = [getattr(cell, n).detach() for n in (
            "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")]
        half, widest = HIDDEN // 2, BLUEPRINTS
        # First layers of all heads and of the value, one after another; the
        # blueprint's is its second one.
        firsts = [policy.heads[n][-3] for n, _ in HEADS if n != "blueprint"]
        firsts += [policy.value[0], policy.heads["blueprint"][0]]
        self.first = torch.cat([f.weight for f in firsts]).detach()
        self.first_bias = torch.cat([f.bias for f in firsts]).detach()
        self.last = torch.zeros(len(HEADS), half, widest)
        self.last_bias = torch.zeros(len(HEADS), 1, widest)
        for k, (name, size) in enumerate(HEADS):
            layer = policy.heads[name][-1]
            self.last[k, :, :size] = layer.weight.detach().t()
            self.last_bias[k, 0, :size] = layer.bias.detach()
        # Where each head's bits lie in the padded mask.
        self.place = torch.cat([
            torch.arange(size) + k * widest
            for k, (_, size) in enumerate(HEADS) if k > 0
        ])

    def row_of(self, episode):
        row = self.rows.setdefault(episode, len(self.rows))
        if row == len(self.h):
            self.h = torch.cat([self.h, torch.zeros_like(self.h)])
            self.c = torch.cat([self.c, torch.zeros_like(self.c)])
        return row

    def act(self, ids, observations, blueprints, slot_masks, masks):
        batch, half, widest = len(ids), HIDDEN // 2, BLUEPRINTS
        with torch.inference_mode():
            rows = torch.tensor([self.row_of(i) for i in ids])
            policy = self.policy
            x = policy.trunk(observations, blueprints)
            h, c = torch._VF.lstm_cell(x, (self.h[rows], self.c[rows]),
                                       *self.cell)
            self.h[rows] = h
            self.c[rows] = c
            x = x + policy.norm(h)
            first = torch.addmm(self.first_bias, x, self.first.t())
            count = len(HEADS) - 1
            hidden = first[:, :count * half].relu_().view(batch, count, half)
            values = policy.value[1:](
                first[:, count * half:(count + 1) * half]).squeeze(1)
            blueprint = policy.heads["blueprint"][2](
                first[:, (count + 1) * half:].relu()).relu_()
            hidden = torch.cat(
                [hidden[:, :1], blueprint.unsqueeze(1), hidden[:, 1:]], 1)
            logits = torch.baddbmm(self.last_bias, hidden.transpose(0, 1),
                                   self.last).transpose(0, 1)
            allowed = torch.zeros(batch, len(HEADS) * widest, dtype=torch.bool)
            allowed[:, self.place] = masks
            allowed = allowed.view(batch, len(HEADS), widest)
            noise = torch.empty_like(logits).exponential_().log_().neg_()
            op = (logits[:, OP] + noise[:, OP]).masked_fill_(
                ~allowed[:, OP], -1e9).argmax(1)
            allowed[:, 0, :SLOTS] = slot_masks[torch.arange(batch), op]
            logits = logits.masked_fill(~allowed, -1e9)
            actions = (logits + noise).argmax(2)
            log_probs = logits.log_softmax(2).gather(
                2, actions.unsqueeze(2)).squeeze(2)
        return actions.numpy(), log_probs.numpy(), values.numpy()


class Servicer:
    """Greedy batching: the worker takes what waits, up to MAX_ROWS rows."""

    def __init__(self, actor, messages):
        self.actor = actor
        self.messages = messages
        self.waiting = queue.SimpleQueue()
        threading.Thread(target=self.work, daemon=True).start()

    async def open_episodes(self, request, _):
        response = self.messages["OpenEpisodesResponse"]()
        response.episode_ids.extend(os.urandom(16) for _ in request.episodes)
        return response

    async def get_action(self, request, _):
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self.waiting.put((request, loop, future))
        return await future

    def work(self):
        held = None
        while True:
            calls = [held if held is not None else self.waiting.get()]
            held = None
            rows = len(calls[0][0].rows)
            while True:
                try:
                    call = self.waiting.get_nowait()
                except queue.Empty:
                    break
                if rows + len(call[0].rows) > MAX_ROWS:
                    held = call
                    break
                rows += len(call[0].rows)
                calls.append(call)
            self.answer(calls)

    def answer(self, calls):
        requests = [call[0] for call in calls]
        ids = [row.episode_id for r in requests for row in r.rows]
        observations = torch.from_numpy(
            np.frombuffer(b"".join(r.observations.data for r in requests),
                          np.float32).reshape(len(ids), -1).copy())
        blueprints = torch.from_numpy(
            np.frombuffer(b"".join(r.categorical.data for r in requests),
                          np.int8).reshape(len(ids), -1).astype(np.int64))
        bits = np.unpackbits(
            np.frombuffer(b"".join(r.action_masks.data for r in requests),
                          np.uint8).reshape(len(ids), -1),
            axis=1, bitorder="little").astype(bool)
        slots = torch.from_numpy(
            bits[:, :OPS * SLOTS].reshape(len(ids), OPS, SLOTS).copy())
        width = sum(size for _, size in HEADS[1:])
        masks = torch.from_numpy(
            bits[:, OPS * SLOTS:OPS * SLOTS + width].copy())
        actions, log_probs, values = self.actor.act(ids, observations,
                                                    blueprints, slots, masks)
        first = 0
        for request, loop, future in calls:
            end = first + len(request.rows)
            response = self.encode(actions[first:end], log_probs[first:end],
                                   values[first:end])
            loop.call_soon_threadsafe(future.set_result, response)
            first = end

    def encode(self, actions, log_probs, values):
        response = self.messages["GetActionResponse"]()
        response.header.policy_version = 1
        response.header.spec_digest = DIGEST
        response.header.precision = 1
        response.behaviour.kind = 1

        def fill(tensor, dtype, array):
            tensor.dtype = dtype
            tensor.shape.extend(array.shape)
            tensor.data = array.tobytes()

        fill(response.actions, 7, actions.astype(np.uint8))
        fill(response.behaviour.log_probs, 1, log_probs)
        fill(response.behaviour.values, 1, values)
        fill(response.policy_versions, 4, np.ones(len(values), np.int64))
        return response


async def serve(arguments):
    messages = load_messages(arguments.descriptors)
    actor = {"plain": PlainActor, "lean": LeanActor}[arguments.variant]()
    servicer = Servicer(actor, messages)

    def handler(method, name):
        return grpc.unary_unary_rpc_method_handler(
            method, messages[name + "Request"].FromString,
            messages[name + "Response"].SerializeToString)

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(
        "esper.v1.PolicyInference", {
            "OpenEpisodes": handler(servicer.open_episodes, "OpenEpisodes"),
            "GetAction": handler(servicer.get_action, "GetAction"),
        }),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with open(arguments.port_file + ".tmp", "w") as f:
        f.write(f"{port}\n")
    os.rename(arguments.port_file + ".tmp", arguments.port_file)
    await server.wait_for_termination()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", choices=("plain", "lean"), required=True)
    parser.add_argument("--descriptors", required=True)
    parser.add_argument("--port_file", required=True)
    # The server has one thread for the policy as well, and OpenMP's threads
    # would fight with the client over two cores.
    torch.set_num_threads(1)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
