import { beforeAll, expect, it, vi } from "vitest";
import type { Mask, Source } from "./source";

let state: typeof import("./source");

beforeAll(async () => {
  vi.stubGlobal("localStorage", { getItem: () => null, setItem: () => {} });
  vi.stubGlobal("navigator", { language: "en" });
  vi.stubGlobal("document", { documentElement: {} });
  vi.stubGlobal("addEventListener", () => {});
  state = await import("./source");
});

const picture = (name: string): Source => ({ blob: new Blob([name]), name, width: 32, height: 16, mask: null });

/** A painting that is finished from outside. */
function later(): { painting: Promise<Mask | null>; finish: (mask: Mask | null) => void } {
  let finish: (mask: Mask | null) => void = () => {};
  const painting = new Promise<Mask | null>((resolve) => (finish = resolve));
  return { painting, finish };
}

const mask = (share: number): Mask => ({ blob: new Blob(["mask"]), share });

it("the last stroke counts, in whatever order strokes are finished", async () => {
  const of = picture("a");
  for (const order of [[0, 1], [1, 0]]) {
    state.restoreSource(of);
    await state.settled();
    const strokes = [later(), later()];
    for (const { painting } of strokes) state.paintMask(of, painting);
    for (const at of order) strokes[at]?.finish(mask(at));
    await state.settled();
    expect(state.source.value?.mask?.share).toBe(1);
  }
});

it("a stroke on a picture that is gone changes nothing", async () => {
  const [before, after] = [picture("before"), picture("after")];
  state.restoreSource(before);
  await state.settled();
  const stroke = later();
  state.paintMask(before, stroke.painting);
  state.restoreSource(after);
  stroke.finish(mask(0.5));
  await state.settled();
  expect(state.source.value).toBe(after);
});

it("what was asked for last is the picture, and an order waits for it", async () => {
  state.restoreSource(picture("a"));
  state.removeSource();
  const last = picture("b");
  state.restoreSource(last);
  await state.settled();
  expect(state.source.value).toBe(last);
});
