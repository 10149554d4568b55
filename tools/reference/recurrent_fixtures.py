#!/usr/bin/env python3
"""Writes what transformers' Mamba, Mamba-2 and Qwen3-Next (gated delta net) compute between their linear maps.

    recurrent_fixtures.py tests/data/recurrent

Needs torch and transformers (the files in tests/data were written with torch 2.15.0 and transformers 5.5.4), on the CPU:
the mixers then run their plain torch code, the chunked form for the first PREFILL tokens and the step form, with a cache,
for the others. Weights and inputs are random, from a fixed seed.

A file holds u32 sizes, then f32 arrays, each as [tokens or taps, ...] row by row in the order of the calls of `save`
below; tests/kernels/recurrent_pytorch_test.cc reads them. Convolution weights are given tap by tap, Mamba-1's rates as
[state, channels], states as [heads, keys, values].
"""

import argparse
import pathlib
import struct

import torch
from torch import nn
from transformers import DynamicCache, Mamba2Config, MambaConfig, Qwen3NextConfig
from transformers.models.mamba.modeling_mamba import MambaMixer
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

PREFILL = 75  # more than a chunk of any of them
DECODE = 6


def save(path, sizes, arrays):
    with open(path, "wb") as file:
        file.write(struct.pack(f"<{len(sizes)}I", *sizes))
        for array in arrays:
            file.write(array.detach().float().contiguous().numpy().astype("<f4").tobytes())
    print(f"{path}: {path.stat().st_size} bytes")


def fill(module, seed):
    """Random parameters of ordinary size: time steps from thousandths to some units, rates from 0.2 to 5."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(module.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if name == "A_log":
            parameter.data = 0.7 * noise
        elif name in ("dt_bias", "dt_proj.bias"):
            parameter.data = 1.5 * noise - 2
        elif name.endswith("weight") and parameter.dim() == 2:
            parameter.data = 1.5 * noise / parameter.shape[1] ** 0.5
        else:  # convolutions, D, norms
            parameter.data = 0.5 * noise + (1 if name in ("D", "norm.weight") else 0)
    return generator


class Record:
    """Inputs and outputs of some submodules, over all calls of a mixer."""

    def __init__(self, mixer, names):
        self.inputs, self.outputs = {name: [] for name in names}, {name: [] for name in names}
        for name in names:
            getattr(mixer, name).register_forward_hook(self.hook(name))

    def hook(self, name):
        def record(_, args, output):
            self.inputs[name].append(args[0].flatten(0, -2))  # the batch is one sequence
            self.outputs[name].append(output.flatten(0, -2))
        return record

    def input(self, name):
        return torch.cat(self.inputs[name])

    def output(self, name):
        return torch.cat(self.outputs[name])


@torch.no_grad()
def run(mixer, config, seed, names):
    """Prefill and decode; gives what was recorded and the cache's layer."""
    generator = fill(mixer, seed)
    record = Record(mixer, names)
    hidden = torch.randn((1, PREFILL + DECODE, config.hidden_size), generator=generator)
    cache = DynamicCache(config=config)
    mixer(hidden[:, :PREFILL], cache_params=cache)
    for t in range(PREFILL, PREFILL + DECODE):
        mixer(hidden[:, t:t + 1], cache_params=cache)
    return record, cache.layers[0]


def taps_first(conv):
    return conv.weight[:, 0].T


def convolved(conv, inputs):
    """The same module's convolution and SiLU, over all tokens at once."""
    return nn.functional.silu(conv(inputs.T[None])[0, :, :len(inputs)]).T


def write_mamba1(path):
    config = MambaConfig(hidden_size=20, num_hidden_layers=1, state_size=7, conv_kernel=4, expand=2, time_step_rank=3,
                         use_conv_bias=True, use_mambapy=False, vocab_size=8)
    mixer = MambaMixer(config, 0).eval()
    record, state = run(mixer, config, 1, ["in_proj", "x_proj", "dt_proj", "out_proj"])
    channels, n = mixer.intermediate_size, config.state_size
    inputs, gate = record.output("in_proj").split(channels, dim=1)
    _, b, c = record.output("x_proj").split([config.time_step_rank, n, n], dim=1)
    dt = record.output("dt_proj") - mixer.dt_proj.bias
    save(path, [PREFILL, DECODE, channels, n, config.conv_kernel],
         [inputs, taps_first(mixer.conv1d), mixer.conv1d.bias, record.input("x_proj"), dt, mixer.dt_proj.bias, b, c,
          -mixer.A_log.exp().T, mixer.D, gate, record.input("out_proj"), state.recurrent_states[0].T])


def write_mamba2(path):
    config = Mamba2Config(hidden_size=33, num_hidden_layers=1, num_heads=6, head_dim=11, state_size=19, n_groups=2,
                          expand=2, conv_kernel=4, chunk_size=32, use_conv_bias=True, vocab_size=8)
    mixer = Mamba2Mixer(config, 0).eval()
    record, state = run(mixer, config, 2, ["in_proj", "norm"])
    heads, p, n, groups = config.num_heads, config.head_dim, config.state_size, config.n_groups
    _, inputs, dt = record.output("in_proj").split([heads * p, heads * p + 2 * groups * n, heads], dim=1)
    save(path, [PREFILL, DECODE, heads, p, n, groups, config.conv_kernel],
         [inputs, taps_first(mixer.conv1d), mixer.conv1d.bias, convolved(mixer.conv1d, inputs), dt, mixer.dt_bias,
          -mixer.A_log.exp(), mixer.D, record.input("norm"), state.recurrent_states[0].transpose(1, 2)])


def write_gated_delta(path):
    config = Qwen3NextConfig(hidden_size=24, num_hidden_layers=1, linear_num_key_heads=2, linear_num_value_heads=4,
                             linear_key_head_dim=22, linear_value_head_dim=17, linear_conv_kernel_dim=4,
                             layer_types=["linear_attention"], vocab_size=8)
    mixer = Qwen3NextGatedDeltaNet(config, 0).eval()
    record, state = run(mixer, config, 3, ["in_proj_qkvz", "in_proj_ba", "norm"])
    q, k, v, _, b, a = mixer.fix_query_key_value_ordering(record.output("in_proj_qkvz")[None],
                                                          record.output("in_proj_ba")[None])
    inputs = torch.cat([x[0].flatten(1) for x in (q, k, v)], dim=1)
    save(path, [PREFILL, DECODE, mixer.num_k_heads, mixer.num_v_heads, mixer.head_k_dim, mixer.head_v_dim,
                mixer.conv_kernel_size],
         [inputs, taps_first(mixer.conv1d), convolved(mixer.conv1d, inputs), a[0], b[0], mixer.dt_bias,
          -mixer.A_log.exp(), record.input("norm"), state.recurrent_states[0]])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    write_mamba1(folder / "mamba1.bin")
    write_mamba2(folder / "mamba2.bin")
    write_gated_delta(folder / "gated_delta.bin")


if __name__ == "__main__":
    main()
