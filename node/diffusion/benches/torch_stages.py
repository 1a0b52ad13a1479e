"""Times PyTorch's own stages of a model directory, on request.

Reads one word or one operation a line from standard input and answers with seconds by the clock and of the
CPU; `benches/engine.rs` asks in turn with its own, so that both meet the same machine. Float32, as many threads as are told.
"""

import sys
import time

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel
from transformers import Qwen3Model

model, width, height, threads, ids = sys.argv[1:6]
torch.set_num_threads(int(threads))
ids = torch.tensor([[int(i) for i in ids.split(",")]])


def load(cls, folder):
    return cls.from_pretrained(f"{model}/{folder}", dtype=torch.float32).eval()


text_encoder = load(Qwen3Model, "text_encoder")
transformer = ZImageTransformer2DModel.from_pretrained(f"{model}/transformer", torch_dtype=torch.float32).eval()
vae = AutoencoderKL.from_pretrained(f"{model}/vae", torch_dtype=torch.float32).eval()
scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(f"{model}/scheduler")
latents = torch.randn(1, 16, int(height) // 8, int(width) // 8, generator=torch.manual_seed(0))


def encode():
    # Valid tokens alone, which is less than the pipeline does: that one pads to 512.
    return text_encoder(input_ids=ids, output_hidden_states=True).hidden_states[-2][0]


def step():
    scheduler.set_timesteps(8)
    t = scheduler.timesteps[:1]
    out = transformer([latents[0].unsqueeze(1)], (1000 - t) / 1000, [features])[0][0]
    return scheduler.step(-out.squeeze(1).unsqueeze(0), t[0], latents)[0]


def decode():
    return vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor).sample


def operation(kind, *sizes):
    n = [int(size) for size in sizes]
    if kind == "attention":
        q, k, v = (torch.randn(1, n[0], n[1], n[2]) for _ in range(3))
        return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v)
    if kind == "conv":
        layer, x = torch.nn.Conv2d(n[0], n[0], 3, padding=1), torch.randn(1, n[0], n[1], n[1])
        return lambda: layer(x)
    if kind == "norm":
        layer, x = torch.nn.GroupNorm(n[2], n[0]), torch.randn(1, n[0], n[1], n[1])
        return lambda: torch.nn.functional.silu(layer(x))
    if kind == "linear":
        layer, x = torch.nn.Linear(n[1], n[2], bias=False), torch.randn(n[0], n[1])
        return lambda: layer(x)
    raise ValueError(kind)


def peak_memory():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


with torch.inference_mode():
    features = encode()
    stages = {"encode": encode, "step": step, "decode": decode}
    known = {}
    print(torch.__version__, flush=True)
    for line in sys.stdin:
        words = line.split()
        if words == ["memory"]:
            print(peak_memory(), flush=True)
            continue
        run = stages.get(words[0]) or known.get(line)
        if run is None:
            run = known[line] = operation(*words)
        begun, cpu = time.perf_counter(), time.process_time()
        run()
        print(time.perf_counter() - begun, time.process_time() - cpu, flush=True)
