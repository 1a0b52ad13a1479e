/** What the cluster page knows, asked for again while somebody looks at it. */

import { effect, signal, untracked, type Signal } from "@preact/signals";
import {
  ApiError, getCluster, getConfig, getFindings, getHistory, getQueue, getTrail, listJobs,
} from "../api";
import { pointOf, withPoint, type Look, type Point } from "./rates";

const TICK_MS = 2_000;
const TRAIL_RECORDS = 100;
const ENDED_JOBS = 50;

export interface Seen<T> {
  /** The newest answer. */
  data: T | null;
  /** When it came. */
  atMs: number;
  /** Why the last question was not answered. */
  problem: ApiError | null;
}

/** One question that is repeated. */
export class Source<T> {
  readonly seen: Signal<Seen<T>> = signal({ data: null, atMs: 0, problem: null });
  private asking = false;
  private askedMs = 0;

  constructor(
    private readonly get: () => Promise<T>,
    private readonly everyMs: number,
  ) {}

  /** Takes an answer that came by another call. */
  set(data: T): void {
    this.seen.value = { data, atMs: Date.now(), problem: null };
  }

  async refresh(): Promise<void> {
    // What this version of the peer does not know, it will not know in two seconds either.
    if (this.asking || this.seen.peek().problem?.refusal === "missing") return;
    this.asking = true;
    this.askedMs = Date.now();
    try {
      this.set(await this.get());
    } catch (error) {
      const problem = error instanceof ApiError ? error : new ApiError("unreachable", String(error));
      this.seen.value = { ...this.seen.peek(), problem };
    } finally {
      this.asking = false;
    }
  }

  tick(): void {
    // A tick is never quite on time; without slack every other one would be missed.
    if (Date.now() - this.askedMs >= this.everyMs - TICK_MS / 2) void this.refresh();
  }
}

export const cluster = new Source(getCluster, TICK_MS);
export const queue = new Source(getQueue, TICK_MS);
export const ended = new Source(() => listJobs(["succeeded"], ENDED_JOBS), TICK_MS);
export const trail = new Source(() => getTrail(TRAIL_RECORDS), 4_000);
export const config = new Source(getConfig, 4_000);
export const history = new Source(getHistory, 4_000);
/** Each look makes the peer sync its disk and hash what changed, so it is not asked for all the time. */
export const findings = new Source(getFindings, 20_000);

const all = [cluster, queue, ended, trail, config, history, findings];

/** Now, for ages; moves with each tick. */
export const nowMs = signal(Date.now());

export function tick(): void {
  nowMs.value = Date.now();
  for (const source of all) source.tick();
}

export const everyMs = TICK_MS;

/** After an act its effect is to be seen at once. */
export function refreshAll(): void {
  for (const source of [cluster, queue, trail, config, history]) void source.refresh();
}

export const points = signal<Point[]>([]);
let look: Look | null = null;
/** Between looks further apart than this nobody looked: the tab was hidden. */
const GAP_MS = 5 * TICK_MS;

effect(() => {
  const jobs = ended.seen.value;
  const counts = untracked(() => queue.seen.value);
  if (!jobs.data || !counts.data || jobs.problem) return;
  const now: Look = { atMs: jobs.atMs, queue: counts.data, ended: jobs.data.jobs };
  const before = look;
  look = now;
  if (!before) return;
  const nothing: Point = { atMs: now.atMs, picturesPerSecond: null, medianMs: null, highMs: null };
  const point = now.atMs - before.atMs > GAP_MS ? nothing : pointOf(before, now);
  points.value = withPoint(untracked(() => points.value), point);
});
