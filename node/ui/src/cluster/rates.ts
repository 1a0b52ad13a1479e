/** Rates and latencies out of successive looks at the cluster. Pure. */

import type { Job, Queue } from "../wire";

/** What was seen at one moment. */
export interface Look {
  /** By the browser's clock, which is the one that both looks share. */
  atMs: number;
  queue: Queue;
  /** The newest jobs that succeeded. */
  ended: Job[];
}

/** What two looks tell; null: nothing can be said. */
export interface Point {
  atMs: number;
  picturesPerSecond: number | null;
  /** Milliseconds from submission to end, of the jobs that ended between the looks. */
  medianMs: number | null;
  highMs: number | null;
}

/** Points that are kept: ten minutes of one every two seconds. */
export const POINTS_MAX = 300;

export function pointOf(before: Look, now: Look): Point {
  const seen = new Set(before.ended.map((job) => job.id));
  const fresh = now.ended.filter((job) => !seen.has(job.id));
  const spans = fresh.map((job) => job.finished_ms - job.submitted_ms).sort((a, b) => a - b);
  return {
    atMs: now.atMs,
    picturesPerSecond: picturesPerSecond(before, now, fresh),
    medianMs: quantile(spans, 0.5),
    highMs: quantile(spans, 0.95),
  };
}

/** Jobs are counted by the queue, which misses none; how many pictures a job has is told by the newest ones. */
function picturesPerSecond(before: Look, now: Look, fresh: Job[]): number | null {
  const seconds = (now.atMs - before.atMs) / 1_000;
  if (seconds <= 0) return null;
  // What is forgotten had ended; it still counts.
  const jobs = total(now.queue) - total(before.queue);
  if (jobs < 0) return null;
  const succeeded = Math.min(jobs, now.queue.succeeded - before.queue.succeeded + now.queue.forgotten - before.queue.forgotten);
  if (succeeded <= 0 || fresh.length === 0) return 0;
  const pictures = fresh.reduce((sum, job) => sum + job.images.length, 0);
  return (succeeded * pictures) / fresh.length / seconds;
}

function total(queue: Queue): number {
  return queue.succeeded + queue.failed + queue.cancelled + queue.forgotten;
}

/** The value below which that share of sorted values lies; null of none. */
export function quantile(sorted: number[], share: number): number | null {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? null;
}

export function withPoint(points: Point[], point: Point): Point[] {
  return [...points, point].slice(-POINTS_MAX);
}
