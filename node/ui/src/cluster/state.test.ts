import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { ApiError } from "../api";
import { Source } from "./state";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

it("an answer is kept while later questions fail", async () => {
  const get = vi.fn<() => Promise<number>>().mockResolvedValueOnce(7);
  get.mockRejectedValueOnce(new ApiError("refused", "no leader", 503)).mockResolvedValueOnce(8);
  const source = new Source(get, 2_000);
  await source.refresh();
  await source.refresh();
  expect([source.seen.value.data, source.seen.value.problem?.message]).toEqual([7, "no leader"]);
  await source.refresh();
  expect(source.seen.value).toMatchObject({ data: 8, problem: null });
});

it("what the peer's version lacks is asked once", async () => {
  const get = vi.fn(() => Promise.reject(new ApiError("missing", "no path", 404)));
  const source = new Source(get, 2_000);
  for (let look = 0; look < 3; look += 1) await source.refresh();
  expect(get).toHaveBeenCalledTimes(1);
});

it("a slow answer is waited for, and a tick asks no more often than it should", async () => {
  let answer: (value: number) => void = () => {};
  const get = vi.fn(() => new Promise<number>((resolve) => (answer = resolve)));
  const source = new Source(get, 20_000);
  source.tick();
  vi.advanceTimersByTime(60_000);
  source.tick();
  expect(get).toHaveBeenCalledTimes(1);
  answer(1);
  await vi.advanceTimersByTimeAsync(0);
  source.tick();
  source.tick();
  expect(get).toHaveBeenCalledTimes(2);
});
