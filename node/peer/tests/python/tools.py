"""Uses a peer with the tools that people have: webuiapi, openai, tritonclient, curl; all unmodified.

Every assertion is one of what those tools need, as their sources and the wire have it.
"""

import base64
import io
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import numpy
import openai
import tritonclient.http as triton
import webuiapi
from PIL import Image


def jobs(base):
    with urllib.request.urlopen(f"{base}/api/v1/jobs?limit=1") as answer:
        return json.load(answer)["total"]


def refused(call, kind):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}")


def picture(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def webui(host, port):
    api = webuiapi.WebUIApi(host=host, port=port)
    told = api.txt2img(prompt="a cat", seed=42, steps=4, width=64, height=64, n_iter=2)
    assert len(told.images) == 2 and told.info["all_seeds"] == [42, 43], told.info
    text = told.images[1].info["parameters"]
    assert text.startswith("a cat\nSteps: 4, Sampler: Euler") and "Seed: 43" in text, text
    assert api.png_info(told.images[1]).info == text
    again = api.txt2img(prompt="a cat", seed=42, steps=4, width=64, height=64, n_iter=2)
    assert again.images[1].tobytes() == told.images[1].tobytes()
    assert again.images[1].info == told.images[1].info
    assert api.get_progress()["progress"] == 0
    api.util_wait_for_ready()
    options = api.get_options()
    api.set_options(options)
    assert api.util_get_current_model() == options["sd_model_checkpoint"]
    api.util_set_model(options["sd_model_checkpoint"])
    assert [one["name"] for one in api.get_samplers()] == ["Euler", "Euler a"]
    assert api.get_loras() == [] and api.get_hypernetworks() == []
    error = refused(lambda: api.txt2img(prompt="a cat", width=1000), RuntimeError)
    assert error.args[0] == 422 and "992 or 1008" in error.args[1], error
    redrawn(api)
    interrupted(api)


def gradient(width, height):
    image = Image.new("RGB", (width, height))
    image.putdata([(3 * x % 256, 5 * y % 256, 90) for y in range(height) for x in range(width)])
    return image


def redrawn(api):
    """A picture to begin from arrives as it was sent, scaled to the size that is drawn."""
    source = gradient(64, 64)
    mask = Image.new("L", (64, 64), 255)
    told = api.img2img(images=[source], prompt="a dog", seed=3, width=64, height=64, mask_image=mask)
    assert told.image.convert("RGB").tobytes() == source.tobytes()
    assert "Denoising strength: 0.75" in told.image.info["parameters"], told.image.info
    told = api.img2img(images=[source], prompt="a dog", width=128, height=64, denoising_strength=0.4)
    assert told.image.size == (128, 64) and told.info["denoising_strength"] == 0.4, told.info


def interrupted(api):
    """A caller's interrupt ends its own call, at a step's end."""
    ended = []

    def draw():
        try:
            api.txt2img(prompt="a slow cat", seed=1, width=64, height=64)
        except RuntimeError as error:
            ended.append(error.args[0])

    caller = threading.Thread(target=draw)
    caller.start()
    seen = 0
    while seen == 0:
        seen = api.get_progress()["state"]["sampling_step"]
    assert api.interrupt() == {}
    caller.join(30)
    assert ended == [409], ended


def images(base):
    client = openai.OpenAI(base_url=f"{base}/v1", api_key="none")
    told = client.images.generate(prompt="a cat", n=2, size="64x64", extra_body={"seed": 7, "steps": 4})
    assert [picture(base64.b64decode(one.b64_json)).size for one in told.data] == [(64, 64)] * 2
    told = client.images.generate(prompt="a cat", model="dall-e-2", response_format="url")
    with urllib.request.urlopen(told.data[0].url) as answer:
        picture(answer.read())
    error = refused(lambda: client.images.generate(prompt="a cat", size="100x100"), openai.BadRequestError)
    assert "100 is not a multiple of 16" in error.message, error
    refused(lambda: client.images.generate(prompt=""), openai.BadRequestError)
    assert client.models.list().data[0].id == client.models.retrieve("z-image-turbo").id
    refused(lambda: client.models.retrieve("sdxl"), openai.NotFoundError)
    kinds = []
    for event in client.images.generate(prompt="a slow cat", stream=True, partial_images=2):
        picture(base64.b64decode(event.b64_json))
        kinds.append(event.type.removeprefix("image_generation."))
    assert kinds == ["partial_image", "partial_image", "completed"], kinds


def file_of(image, name):
    data = io.BytesIO()
    image.save(data, format="PNG")
    data.seek(0)
    data.name = name
    return data


def edited(base):
    client = openai.OpenAI(base_url=f"{base}/v1", api_key="none")
    source = gradient(64, 64)
    told = client.images.edit(image=file_of(source, "cat.png"), prompt="a dog", extra_body={"seed": 7})
    assert picture(base64.b64decode(told.data[0].b64_json)).convert("RGB").tobytes() == source.tobytes()
    hole = source.convert("RGBA")
    hole.putpixel((5, 5), (0, 0, 0, 0))
    told = client.images.edit(
        image=[file_of(source, "cat.png")], mask=file_of(hole, "mask.png"), prompt="a dog", size="128x64"
    )
    assert picture(base64.b64decode(told.data[0].b64_json)).size == (128, 64)
    kinds = []
    for event in client.images.edit(
        image=file_of(source, "cat.png"), prompt="a slow dog", stream=True, partial_images=1
    ):
        kinds.append(event.type)
    assert kinds == ["image_edit.partial_image", "image_edit.completed"], kinds
    error = refused(
        lambda: client.images.edit(image=io.BytesIO(b"no picture"), prompt="a dog"), openai.BadRequestError
    )
    assert "expected a PNG, JPEG or WebP" in error.message, error


def cut_first(port):
    """Listens for a client; breaks its first call off once the peer has it."""
    listener = socket.create_server(("127.0.0.1", 0))
    calls = []

    def pump(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def serve():
        while True:
            client, _ = listener.accept()
            calls.append(client)
            peer = socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=pump, args=(client, peer), daemon=True).start()
            threading.Thread(target=pump, args=(peer, client), daemon=True).start()
            if len(calls) == 1:
                threading.Timer(0.5, lambda: client.shutdown(socket.SHUT_RDWR)).start()

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1], calls


def repeated(base, port):
    """A call whose line breaks is repeated by the library, and is one job."""
    cut, calls = cut_first(port)
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{cut}/v1", api_key="none")
    before = jobs(base)
    told = client.images.generate(prompt="a slow dog")
    picture(base64.b64decode(told.data[0].b64_json))
    assert len(calls) >= 2, "the library repeated its call"
    assert jobs(base) == before + 1, "it was drawn once"


def infer(host, port):
    client = triton.InferenceServerClient(f"{host}:{port}")
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("z-image-turbo")
    inputs = client.get_model_metadata("z-image-turbo")["inputs"]
    assert inputs[0] == {"name": "prompt", "datatype": "BYTES", "shape": [1]}, inputs
    for binary in (True, False):
        prompt = triton.InferInput("prompt", [1], "BYTES")
        prompt.set_data_from_numpy(numpy.array(["a cat"], dtype=object), binary_data=binary)
        seed = triton.InferInput("seed", [1], "INT64")
        seed.set_data_from_numpy(numpy.array([41], dtype=numpy.int64), binary_data=binary)
        wanted = triton.InferRequestedOutput("image", binary_data=binary)
        told = client.infer("z-image-turbo", [prompt, seed], outputs=[wanted], request_id="7")
        data = told.as_numpy("image")[0]
        picture(data if binary else base64.b64decode(data))
        assert told.get_response()["id"] == "7"
    error = refused(lambda: client.infer("sdxl", [prompt]), triton.InferenceServerException)
    assert "sdxl" in error.message(), error


def curl(base):
    def run(*arguments):
        command = ["curl", "--silent", "--show-error", "--fail", *arguments]
        return subprocess.run(command, check=True, capture_output=True).stdout

    order = json.dumps({"prompt": "a cat", "seed": 3, "width": 64, "height": 64})
    job = json.loads(run(f"{base}/api/v1/jobs", "--json", order, "-H", "Idempotency-Key: \"c1\""))
    events = run("--no-buffer", f"{base}/api/v1/jobs/{job['id']}/events").decode()
    assert "event: completed" in events, events
    job = json.loads(run(f"{base}/api/v1/jobs/{job['id']}"))
    path = job["images"][0]["artifact_url"]
    whole = run(base + path)
    assert picture(whole).size == (64, 64)
    assert run(base + path, "--range", "0-7") == whole[:8]
    head = run("--head", base + path).decode().lower()
    assert f"content-length: {len(whole)}" in head and "etag: " in head, head


def left(base):
    """A client that leaves takes its job along."""
    order = json.dumps({"prompt": "a slow cat", "seed": 9, "n_iter": 16})
    command = ["curl", "--silent", "--max-time", "0.5", f"{base}/sdapi/v1/txt2img", "--json", order]
    assert subprocess.run(command, check=False).returncode == 28, "it gave up"
    until = time.monotonic() + 30
    while True:
        with urllib.request.urlopen(f"{base}/api/v1/jobs?limit=1") as answer:
            phase = json.load(answer)["jobs"][0]["phase"]
        if phase == "cancelled":
            return
        assert time.monotonic() < until, phase
        time.sleep(0.2)


def risen(base):
    """A new cluster takes pictures to begin from once every member said that it knows them."""
    until = time.monotonic() + 30
    while True:
        with urllib.request.urlopen(f"{base}/api/v1/cluster") as answer:
            if json.load(answer)["takes"]["image"]:
                return
        assert time.monotonic() < until, "the feature level does not rise"
        time.sleep(0.1)


def main(host, port):
    base = f"http://{host}:{port}"
    risen(base)
    webui(host, port)
    images(base)
    edited(base)
    repeated(base, port)
    infer(host, port)
    curl(base)
    left(base)
    print("done")


main(sys.argv[1].split(":")[0], int(sys.argv[1].split(":")[1]))
