/**
 * The page's own jobs: what is being sent, what is in work, what ended since the page was opened.
 *
 * Ids of open jobs are remembered by the browser, so that a reload and other tabs show them too.
 */

import { batch, computed, effect, signal } from "@preact/signals";
import { ApiError, cancelJob, getJob, listJobs, newKey, submit } from "../api";
import { JobEvents } from "../events";
import { stored } from "../stored";
import type { Job, Order } from "../wire";
import { isOver, merge, track, type Told, type Tracked } from "./tracked";
import { addToGallery } from "./gallery-state";
import type { Source } from "./source";
import { forgetUploads, uploaded } from "./uploads";

/** Ids that are remembered; the oldest beyond are forgotten by the page, not by the cluster. */
const REMEMBERED_MAX = 200;

/** An order on its way. Its key stays the same over repeats, so that they are one job. */
export interface Sending {
  key: string;
  order: Order;
  /** What it begins from; handed over with every try, unless that was a moment ago. */
  source: Source | null;
  /** The picture is on its way, the order not yet. */
  uploads: boolean;
  problem: ApiError | null;
}

export const sending = signal<Sending[]>([]);
export const tracked = signal<ReadonlyMap<string, Tracked>>(new Map());
export const lineStands = signal(true);
/** Jobs that a person has asked to cancel. */
export const cancelling = signal<ReadonlySet<string>>(new Set());
export const cancelProblem = signal<ApiError | null>(null);

const remembered = stored<string[]>("open", "shared", (raw) =>
  Array.isArray(raw) ? raw.filter((id): id is string => typeof id === "string").slice(-REMEMBERED_MAX) : [],
);

/** Newest first. */
export const rows = computed(() => [...tracked.value.values()].sort((a, b) => (a.id < b.id ? 1 : -1)));
export const hasEndedRows = computed(() => rows.value.some(isOver));

function put(one: Tracked): void {
  tracked.value = new Map(tracked.value).set(one.id, one);
  if (!isOver(one)) return;
  remembered.value = remembered.value.filter((id) => id !== one.id);
  if (one.job?.phase === "succeeded") addToGallery(one.job);
}

function told(id: string, happened: Told, index: number): void {
  const known = tracked.value.get(id);
  if (!known) return;
  const next = merge(known, happened, index);
  if (next !== known) put(next);
}

/** A stream was refused: finds out which of its jobs the cluster has forgotten. */
async function sortOut(ids: string[]): Promise<void> {
  for (const id of ids) {
    const known = tracked.value.get(id);
    if (!known || isOver(known)) continue;
    try {
      told(id, { job: await getJob(id), progress: null }, known.index);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 404) return;
      put({ ...known, gone: true });
    }
  }
}

/** Starts to follow what is remembered. Called once. */
export function startJobs(): void {
  const events = new JobEvents({ told, refused: sortOut, connected: (is) => (lineStands.value = is) });
  effect(() => {
    // Also what another tab has just submitted.
    const missing = remembered.value.filter((id) => !tracked.peek().has(id));
    if (missing.length === 0) return;
    const next = new Map(tracked.peek());
    for (const id of missing) next.set(id, track(id));
    tracked.value = next;
  });
  effect(() => {
    events.follow(rows.value.filter((one) => !isOver(one)).map((one) => one.id));
  });
}

export function draw(order: Order, source: Source | null): Promise<void> {
  return send({ key: newKey(), order, source, uploads: false, problem: null });
}

export async function send(one: Sending): Promise<void> {
  const rest = () => sending.value.filter((other) => other.key !== one.key);
  const change = (changes: Partial<Sending>) => {
    sending.value = sending.value.map((other) => (other.key === one.key ? { ...other, ...changes } : other));
  };
  sending.value = [{ ...one, uploads: one.source !== null, problem: null }, ...rest()];
  try {
    const order = one.source ? { ...one.order, ...(await uploaded(one.source)) } : one.order;
    change({ uploads: false });
    const job = await submit(order, one.key);
    batch(() => {
      sending.value = rest();
      // A peer that has not seen it in the log yet answers with its id alone.
      adopt({ ...job, prompt: job.prompt || one.order.prompt });
    });
  } catch (error) {
    const problem = error instanceof ApiError ? error : new ApiError("unreachable", String(error));
    const isRefused = problem.refusal === "refused" && problem.retryAfterS === null;
    if (one.source && isRefused) forgetUploads(one.source);
    change({ problem });
  }
}

/** Jobs in work that this page does not follow, as far as the last look shows. */
const OTHERS_MAX = 20;
const seenInWork = signal<{ jobs: Job[]; total: number }>({ jobs: [], total: 0 });
export const others = computed(() => {
  const { jobs, total } = seenInWork.value;
  const unknown = jobs.filter((job) => !tracked.value.has(job.id));
  return { jobs: unknown, total: total - (jobs.length - unknown.length) };
});

export async function lookForOthers(): Promise<void> {
  try {
    const { jobs, total } = await listJobs(["queued", "running"], OTHERS_MAX);
    seenInWork.value = { jobs, total };
  } catch {
    // They are beside the point of this page; what is wrong is told elsewhere.
    seenInWork.value = { jobs: [], total: 0 };
  }
}

/** Follows a job that was submitted elsewhere as the page's own. */
export function adopt(job: Job): void {
  batch(() => {
    remembered.value = [...remembered.value, job.id].slice(-REMEMBERED_MAX);
    put(track(job.id, job));
  });
}

export function unsend(key: string): void {
  sending.value = sending.value.filter((one) => one.key !== key);
}

export async function cancel(job: Job): Promise<void> {
  cancelling.value = new Set(cancelling.value).add(job.id);
  cancelProblem.value = null;
  try {
    const known = tracked.value.get(job.id);
    told(job.id, { job: await cancelJob(job.id), progress: null }, known?.index ?? 0);
  } catch (error) {
    cancelProblem.value = error instanceof ApiError ? error : null;
  }
  const left = new Set(cancelling.value);
  left.delete(job.id);
  cancelling.value = left;
}

export function dismiss(id: string): void {
  const next = new Map(tracked.value);
  next.delete(id);
  tracked.value = next;
}

export function dismissEnded(): void {
  tracked.value = new Map([...tracked.value].filter(([, one]) => !isOver(one)));
}
