/** Peers that take pictures to begin from, where those that run may not: the contract, played by the browser. */

import { createHash } from "node:crypto";
import { deflateSync } from "node:zlib";
import type { Locator, Page, Route } from "@playwright/test";

export interface Asked {
  uploads: Buffer[];
  orders: Record<string, unknown>[];
  /** Answers the next upload instead. */
  refuse: ((route: Route) => Promise<void>) | null;
  takes: { image: boolean; guidance: boolean };
}

/** A PNG of one colour, by red, green and blue. */
export function png(width: number, height: number, colour: [number, number, number], text = ""): Buffer {
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([8, 2], 8);
  const row = Buffer.concat([Buffer.from([0]), Buffer.concat(Array.from({ length: width }, () => Buffer.from(colour)))]);
  const pixels = deflateSync(Buffer.concat(Array.from({ length: height }, () => row)));
  const says = text === "" ? [] : [chunk("tEXt", Buffer.from(`parameters\0${text}`, "latin1"))];
  const chunks = [chunk("IHDR", head), ...says, chunk("IDAT", pixels), chunk("IEND", Buffer.alloc(0))];
  return Buffer.concat([Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), ...chunks]);
}

function chunk(name: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(name, "latin1"), data]);
  const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(data.length);
  sum.writeUInt32BE(crc(body));
  return Buffer.concat([length, body, sum]);
}

function crc(bytes: Buffer): number {
  let rest = 0xffffffff;
  for (const byte of bytes) {
    rest ^= byte;
    for (let bit = 0; bit < 8; bit += 1) rest = rest & 1 ? (rest >>> 1) ^ 0xedb88320 : rest >>> 1;
  }
  return ~rest >>> 0;
}

export function sizeOf(bytes: Buffer): [number, number] {
  return [bytes.readUInt32BE(16), bytes.readUInt32BE(20)];
}

const served = { "x-served-by": "1" };

/** Orders end at once, with the picture that they began from as the picture that was drawn. */
export async function takePictures(page: Page, takes: Partial<Asked["takes"]> = {}): Promise<Asked> {
  const asked: Asked = { uploads: [], orders: [], refuse: null, takes: { image: true, guidance: false, ...takes } };
  const artifacts = new Map<string, Buffer>();
  await page.route((url) => url.pathname === "/api/v1/cluster", async (route) => {
    const response = await route.fetch();
    const cluster = (await response.json()) as Record<string, unknown>;
    await route.fulfill({ response, json: { ...cluster, takes: asked.takes } });
  });
  await page.route((url) => url.pathname.startsWith("/api/v1/artifacts"), async (route) => {
    const request = route.request();
    if (request.method() !== "POST") {
      const body = artifacts.get(new URL(request.url()).pathname.split("/").at(-1) ?? "");
      return body ? route.fulfill({ body, contentType: "image/png" }) : route.fallback();
    }
    const body = request.postDataBuffer() ?? Buffer.alloc(0);
    asked.uploads.push(body);
    const refuse = asked.refuse;
    asked.refuse = null;
    if (refuse) return refuse(route);
    const digest = createHash("sha256").update(body).digest("hex");
    artifacts.set(digest, body);
    const [width, height] = sizeOf(body);
    const json = { digest, bytes: body.length, media_type: "image/png", width, height };
    return route.fulfill({ status: 201, json, headers: served });
  });
  await page.route((url) => url.pathname === "/api/v1/jobs", async (route) => {
    if (route.request().method() !== "POST") return route.fallback();
    const order = route.request().postDataJSON() as Record<string, unknown>;
    asked.orders.push(order);
    return route.fulfill({ status: 202, json: jobOf(order, asked.orders.length), headers: served });
  });
  return asked;
}

function jobOf(order: Record<string, unknown>, number: number): unknown {
  const { image, mask, strength, negative_prompt, guidance } = order;
  const url = `/api/v1/artifacts/${String(image)}`;
  const now = Date.now();
  return {
    id: `01BEGUN${number}`, phase: "succeeded", prompt: order["prompt"], width: 0, height: 0, steps: 8, seed: 7, count: 1,
    tenant: "default", priority: 5, position: 0, attempt: 1, node: 1, token: 5, log_index: 5, submitted_ms: now - 1_200,
    finished_ms: now, retry_at_ms: 0, error: "", failed_attempts: [],
    images: [{ digest: image, bytes: 99, media_type: "image/png", seed: 7, url, artifact_url: url }],
    parameters: { image, mask, strength, negative_prompt, guidance },
  };
}

/** Drags a file onto what is named, as from the desktop. */
export async function drop(onto: Locator, name: string, bytes: Buffer): Promise<void> {
  const transfer = await onto.page().evaluateHandle(([file, base64]) => {
    const data = new DataTransfer();
    const content = Uint8Array.from(atob(base64 ?? ""), (sign) => sign.charCodeAt(0));
    data.items.add(new File([content], file ?? "", { type: "image/png" }));
    return data;
  }, [name, bytes.toString("base64")]);
  for (const type of ["dragenter", "dragover", "drop"]) await onto.dispatchEvent(type, { dataTransfer: transfer });
}
