"use strict";

// One page, no library: it speaks /api/v1 and nothing else.

const TEXTS = {
  en: {
    prompt: "Prompt", size: "Size", seed: "Seed", steps: "Steps", count: "Pictures",
    default: "default", draw: "Draw", cancel: "Cancel", gallery: "Gallery", none: "Nothing yet.",
    download: "Download", again: "Same again", chance: "by chance",
    sending: "Sending …",
    queued: (job) => `Queued, place ${job.position}`,
    started: (job) => `Node ${job.node} begins`,
    retrying: () => "Its node was lost or failed: it waits for another",
    restarted: (job) => `Node ${job.node} goes on with it (attempt ${job.attempt})`,
    step: (job, p) => `Node ${job.node}: ${p.stage}, step ${p.step} of ${p.steps}` +
      (job.count > 1 ? `, picture ${p.image + 1} of ${job.count}` : ""),
    completed: (job) => `Done, on node ${job.node}`,
    failed: (job) => `Failed: ${job.error}`,
    cancelled: () => "Cancelled",
    lost: "The line broke; trying again …",
    peer: (served) => `node ${served}`,
    refused: (text) => `Not accepted: ${text}`,
    unreachable: "This peer does not answer; try another address of the cluster.",
  },
  zh: {
    prompt: "提示词", size: "尺寸", seed: "种子", steps: "步数", count: "张数",
    default: "默认", draw: "绘制", cancel: "取消", gallery: "画廊", none: "还没有图片。",
    download: "下载", again: "再来一次", chance: "随机",
    sending: "正在提交……",
    queued: (job) => `排队中，第 ${job.position} 位`,
    started: (job) => `节点 ${job.node} 开始绘制`,
    retrying: () => "所在节点丢失或出错，正在等待另一个节点",
    restarted: (job) => `节点 ${job.node} 继续绘制（第 ${job.attempt} 次尝试）`,
    step: (job, p) => `节点 ${job.node}：${p.stage}，第 ${p.step}/${p.steps} 步` +
      (job.count > 1 ? `，第 ${p.image + 1}/${job.count} 张` : ""),
    completed: (job) => `完成，节点 ${job.node}`,
    failed: (job) => `失败：${job.error}`,
    cancelled: () => "已取消",
    lost: "连接中断，正在重试……",
    peer: (served) => `节点 ${served}`,
    refused: (text) => `未被接受：${text}`,
    unreachable: "此节点没有响应，请换用集群的其他地址。",
  },
};

const language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
const T = TEXTS[language];
const GALLERY = 24;
const $ = (id) => document.getElementById(id);

let current = null;
let stream = null;

function translate(root) {
  for (const element of root.querySelectorAll("[data-text]")) {
    element.textContent = T[element.dataset.text];
  }
}

function say(text, bad = false) {
  $("now").hidden = false;
  $("state").textContent = text;
  $("state").classList.toggle("bad", bad);
}

function busy(is) {
  $("draw").disabled = is;
  $("cancel").hidden = !is;
}

async function call(path, options) {
  const response = await fetch(path, options);
  const served = response.headers.get("x-served-by");
  if (served) $("peer").textContent = T.peer(served);
  const body = await response.json();
  if (!response.ok) {
    throw Object.assign(new Error(T.refused(body.error.message)), { status: response.status });
  }
  return body;
}

function figure(job, index) {
  const image = job.images[index];
  const made = $("picture").content.cloneNode(true);
  translate(made);
  made.querySelector("a").href = image.url;
  const img = made.querySelector("img");
  img.src = image.url;
  img.alt = job.prompt;
  made.querySelector("figcaption").textContent = `${job.prompt} · ${T.seed} ${image.seed}`;
  const download = made.querySelector(".download");
  download.href = image.url;
  download.download = `${job.id}-${index}.png`;
  made.querySelector(".again").addEventListener("click", () => fill(job, image.seed));
  return made;
}

function fill(job, seed) {
  $("prompt").value = job.prompt;
  $("seed").value = seed;
  $("steps").value = job.steps || "";
  $("count").value = 1;
  const size = `${job.width}x${job.height}`;
  const known = [...$("size").options].some((option) => option.value === size);
  $("size").value = known ? size : "";
  $("prompt").focus();
}

function share(job, progress) {
  if (!progress || progress.stage === "encode") return 0;
  const done = progress.stage === "denoise" ? progress.step / progress.steps : 1;
  return Math.min((progress.image + done) / job.count, 0.99);
}

function told(name, event) {
  const data = JSON.parse(event.data);
  const job = data.job;
  say(T[name](job, data.progress), name === "failed");
  $("progress").value = name === "completed" ? 1 : share(job, data.progress);
  if (data.preview) {
    let preview = $("pictures").querySelector("img.preview");
    if (!preview) {
      preview = new Image();
      preview.className = "preview";
      preview.alt = "";
      $("pictures").replaceChildren(preview);
    }
    preview.src = data.preview;
  }
  if (["completed", "failed", "cancelled"].includes(name)) end(job);
}

function forget() {
  if (stream) stream.close();
  stream = null;
  current = null;
  sessionStorage.removeItem("job");
  busy(false);
}

function end(job) {
  forget();
  $("pictures").replaceChildren(...job.images.map((_, index) => figure(job, index)));
  gallery();
}

function follow(id) {
  current = id;
  sessionStorage.setItem("job", id);
  busy(true);
  $("progress").value = 0;
  stream = new EventSource(`/api/v1/jobs/${id}/events?previews=1`);
  for (const name of ["queued", "started", "step", "retrying", "restarted", "completed", "failed",
    "cancelled"]) {
    stream.addEventListener(name, (event) => told(name, event));
  }
  // The browser reconnects by itself, with the last id; a refusal closes the stream for good.
  stream.onerror = () => {
    say(T.lost);
    if (stream && stream.readyState === EventSource.CLOSED) setTimeout(() => again(id), 2000);
  };
}

async function again(id) {
  if (current !== id) return;
  try {
    await call(`/api/v1/jobs/${id}?stale=1`);
  } catch (error) {
    if (error.status === 404) {
      forget();
      say(error.message, true);
      return;
    }
  }
  follow(id);
}

async function draw(event) {
  event.preventDefault();
  const number = (id) => ($(id).value === "" ? null : Number($(id).value));
  const [width, height] = $("size").value ? $("size").value.split("x").map(Number) : [null, null];
  const order = {
    prompt: $("prompt").value, width, height,
    seed: number("seed"), steps: number("steps"), count: number("count"),
  };
  busy(true);
  say(T.sending);
  $("pictures").replaceChildren();
  // A repeat of this very call, by whatever lies between, is the same job.
  const key = [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");
  const headers = { "content-type": "application/json", "idempotency-key": key };
  try {
    const job = await call("/api/v1/jobs", { method: "POST", headers, body: JSON.stringify(order) });
    follow(job.id);
  } catch (error) {
    busy(false);
    say(error instanceof TypeError ? T.unreachable : error.message, true);
  }
}

async function cancel() {
  if (!current) return;
  try {
    await call(`/api/v1/jobs/${current}`, { method: "DELETE" });
  } catch (error) {
    say(error.message, true);
  }
}

async function gallery() {
  try {
    const { jobs } = await call(`/api/v1/jobs?phase=succeeded&limit=${GALLERY}&stale=1`);
    const figures = jobs.flatMap((job) => job.images.map((_, index) => figure(job, index)));
    $("none").hidden = figures.length > 0;
    $("gallery").replaceChildren(...figures.slice(0, GALLERY));
  } catch (error) {
    $("peer").textContent = error instanceof TypeError ? T.unreachable : error.message;
  }
}

document.documentElement.lang = language;
translate(document);
$("seed").placeholder = T.chance;
$("steps").placeholder = T.default;
$("form").addEventListener("submit", draw);
$("cancel").addEventListener("click", cancel);
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
});
gallery();
if (sessionStorage.getItem("job")) follow(sessionStorage.getItem("job"));
