import { expect, it } from "vitest";
import { job, queue } from "../fixtures";
import type { Job } from "../wire";
import { pointOf, POINTS_MAX, quantile, withPoint, type Point } from "./rates";

const image = { digest: "d", bytes: 1, media_type: "", seed: "1", url: "", artifact_url: "" };
const ended = (id: string, tookMs: number, images = 1): Job =>
  job({ id, phase: "succeeded", submitted_ms: 0, finished_ms: tookMs, images: Array(images).fill(image) });

it("pictures a second come of the counted jobs and what the newest of them have", () => {
  const before = { atMs: 0, queue: queue({ succeeded: 10 }), ended: [ended("a", 5)] };
  const now = { atMs: 2_000, queue: queue({ succeeded: 14 }), ended: [ended("c", 300, 2), ended("b", 100, 2), ended("a", 5)] };
  expect(pointOf(before, now)).toEqual({ atMs: 2_000, picturesPerSecond: 4, medianMs: 300, highMs: 300 });
});

it("a quiet time has a rate of zero and no latency", () => {
  const look = (atMs: number) => ({ atMs, queue: queue({ succeeded: 10 }), ended: [ended("a", 5)] });
  expect(pointOf(look(0), look(2_000))).toEqual({ atMs: 2_000, picturesPerSecond: 0, medianMs: null, highMs: null });
});

it("jobs that are forgotten meanwhile still count, and failed ones do not", () => {
  const before = { atMs: 0, queue: queue({ succeeded: 10 }), ended: [] };
  const now = { atMs: 1_000, queue: queue({ succeeded: 9, forgotten: 2, failed: 1 }), ended: [ended("b", 10)] };
  expect(pointOf(before, now).picturesPerSecond).toBe(1);
});

it("a peer that is behind the last one tells nothing", () => {
  const before = { atMs: 0, queue: queue({ succeeded: 10 }), ended: [] };
  expect(pointOf(before, { atMs: 1_000, queue: queue({ succeeded: 8 }), ended: [] }).picturesPerSecond).toBeNull();
});

it("quantiles of few values", () => {
  expect([quantile([], 0.5), quantile([3], 0.95), quantile([1, 2, 3, 4], 0.5)]).toEqual([null, 3, 3]);
});

it("old points go", () => {
  let points: Point[] = [];
  for (let at = 0; at < POINTS_MAX + 5; at += 1) {
    points = withPoint(points, { atMs: at, picturesPerSecond: 0, medianMs: null, highMs: null });
  }
  expect([points.length, points[0]?.atMs]).toEqual([POINTS_MAX, 5]);
});
