"""What each kind of client sees behind nginx while the peer that leads is killed: its picture.

Says "waiting" once every client waits; whoever reads that kills the leader, and says so by a line.
"""

import base64
import concurrent.futures
import io
import json
import subprocess
import sys
import time
import urllib.request

import openai
import webuiapi
from PIL import Image


def picture(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image.size


def read(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)


def by_openai(base):
    client = openai.OpenAI(base_url=f"{base}/v1", api_key="none")
    return base64.b64decode(client.images.generate(prompt="a slow cat").data[0].b64_json)


def by_webui(base):
    host, port = base.removeprefix("http://").split(":")
    told = webuiapi.WebUIApi(host=host, port=int(port)).txt2img(prompt="a slow dog", width=64, height=64)
    buffer = io.BytesIO()
    told.image.save(buffer, "PNG")
    return buffer.getvalue()


def by_curl(base):
    """Submits, and follows the events; takes up a broken stream where it was."""
    order = json.dumps({"prompt": "a slow bird"})
    command = ["curl", "--silent", "--fail", f"{base}/api/v1/jobs", "--json", order]
    job = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["id"]
    last = ""
    for _ in range(60):
        command = ["curl", "--silent", "--no-buffer", f"{base}/api/v1/jobs/{job}/events", "-H", f"Last-Event-ID: {last}"]
        events = subprocess.run(command, check=False, capture_output=True).stdout.decode()
        ids = [line.removeprefix("id: ") for line in events.splitlines() if line.startswith("id: ")]
        assert "event: failed" not in events, events
        last = ids[-1] if ids else last
        if "event: completed" in events:
            break
        time.sleep(0.2)
    image = read(f"{base}/api/v1/jobs/{job}")["images"][0]
    with urllib.request.urlopen(base + image["url"], timeout=60) as answer:
        return answer.read()


def main(base):
    clients = [by_openai, by_webui, by_curl] * 2
    with concurrent.futures.ThreadPoolExecutor(len(clients)) as pool:
        calls = [pool.submit(client, base) for client in clients]
        while read(f"{base}/api/v1/jobs?limit=1&stale=1")["total"] < len(clients):
            time.sleep(0.05)
        print("waiting", flush=True)
        sys.stdin.readline()
        for client, call in zip(clients, calls):
            assert picture(call.result(timeout=90)) == (64, 64), client.__name__
    jobs = read(f"{base}/api/v1/jobs")
    assert jobs["total"] == len(clients), "none was submitted twice"
    assert all(job["phase"] == "succeeded" for job in jobs["jobs"]), jobs
    print("done")


main(sys.argv[1])
