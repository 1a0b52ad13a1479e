import { afterEach, expect, it, vi } from "vitest";
import type { Source } from "./source";
import { forgetUploads, uploaded } from "./uploads";

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

const blob = (text: string) => new Blob([text], { type: "image/png" });
const source = (changes: Partial<Source> = {}): Source => ({
  blob: blob("picture"), name: "cat.png", width: 32, height: 16, mask: null, ...changes,
});

/** A peer that names what it gets by what is in it. */
function peer() {
  const fetch = vi.fn(async (_path: string, options: RequestInit) => {
    const digest = new TextDecoder().decode(options.body as ArrayBuffer);
    return new Response(JSON.stringify({ digest }), { status: 201, headers: { "x-served-by": "1" } });
  });
  vi.stubGlobal("fetch", fetch);
  return fetch;
}

it("the picture and its mask are handed over as they are, once", async () => {
  const fetch = peer();
  const both = source({ mask: { blob: blob("mask"), share: 0.5 } });
  expect(await uploaded(both)).toEqual({ image: "picture", mask: "mask" });
  expect(await uploaded(both)).toEqual({ image: "picture", mask: "mask" });
  expect(fetch.mock.calls.map(([path, { method }]) => [path, method])).toEqual([
    ["/api/v1/artifacts", "POST"], ["/api/v1/artifacts", "POST"],
  ]);
  expect(fetch.mock.calls[0]?.[1].headers).toEqual({ "content-type": "image/png" });
});

it("without a mask none is named", async () => {
  peer();
  expect(await uploaded(source())).toEqual({ image: "picture" });
});

it("what peers may have dropped is handed over again", async () => {
  vi.useFakeTimers({ toFake: ["Date"] });
  const fetch = peer();
  const one = source();
  await uploaded(one);
  vi.setSystemTime(Date.now() + 9 * 60_000);
  await uploaded(one);
  expect(fetch).toHaveBeenCalledTimes(2);
  forgetUploads(one);
  await uploaded(one);
  expect(fetch).toHaveBeenCalledTimes(3);
});

it("a refusal is told in the peer's words, and the next try asks anew", async () => {
  const one = source();
  const body = '{"error":{"code":"invalid_argument","message":"not a picture"}}';
  vi.stubGlobal("fetch", async () => new Response(body, { status: 400, headers: { "x-served-by": "1" } }));
  await expect(uploaded(one)).rejects.toThrow("not a picture");
  peer();
  expect(await uploaded(one)).toEqual({ image: "picture" });
});
