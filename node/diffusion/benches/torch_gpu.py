"""Times diffusers' ZImagePipeline on a card: python3 torch_gpu.py MODEL EDGE [--compile].

BF16, 8 steps, no guidance; 3 pictures to warm up, the median of 20. Encode, denoise and decode apart,
each behind a synchronisation. Prints peak memory too.
"""

import statistics
import sys
import time

import torch
from diffusers import ZImagePipeline

if not torch.cuda.is_available():
    sys.exit("there is no CUDA device; expected an NVIDIA card with its driver")
model, edge = sys.argv[1], int(sys.argv[2])
pipe = ZImagePipeline.from_pretrained(model, torch_dtype=torch.bfloat16).to("cuda")
pipe.set_progress_bar_config(disable=True)
if "--compile" in sys.argv:
    pipe.transformer = torch.compile(pipe.transformer)

STAGES = ("encode", "denoise", "decode")
times = {stage: [] for stage in STAGES}


def clock():
    torch.cuda.synchronize()
    return time.perf_counter()


with torch.inference_mode():
    for number in range(23):
        begun = clock()
        embeds, _ = pipe.encode_prompt("a cat", do_classifier_free_guidance=False)
        encoded = clock()
        latents = pipe(
            prompt_embeds=embeds, height=edge, width=edge, num_inference_steps=8, guidance_scale=0.0,
            generator=torch.Generator("cuda").manual_seed(7), output_type="latent",
        ).images
        denoised = clock()
        config = pipe.vae.config
        pipe.vae.decode(latents.to(pipe.vae.dtype) / config.scaling_factor + config.shift_factor)
        decoded = clock()
        if number >= 3:
            for stage, spent in zip(STAGES, (encoded - begun, denoised - encoded, decoded - denoised)):
                times[stage].append(spent)

print(torch.cuda.get_device_name(), "torch", torch.__version__)
for stage in STAGES:
    print(f"{stage:<8} {statistics.median(times[stage]):.4f} s")
print(f"peak     {torch.cuda.max_memory_allocated() / 1e9:.2f} GB")
