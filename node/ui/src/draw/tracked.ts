/**
 * What the page knows of one job, and how an event changes it. Pure.
 *
 * Events may come twice, late, or from a peer that is behind: after a reconnect every job's present state is told
 * anew. What is known never goes back.
 */

import type { Texts } from "../texts/en";
import type { Job, Progress } from "../wire";
import { span } from "../format";

export const EVENT_NAMES = [
  "queued", "started", "step", "retrying", "restarted", "completed", "failed", "cancelled",
] as const;
export type EventName = (typeof EVENT_NAMES)[number];

/** The data of an event. */
export interface Told {
  job: Job;
  progress: Progress | null;
  preview?: string;
}

export interface Tracked {
  id: string;
  /** null: not told yet. */
  job: Job | null;
  progress: Progress | null;
  /** The newest preview as a data: URL. It outlives its worker: the next one goes on from near there. */
  preview: string | null;
  /** Who has drawn it, in order. */
  nodes: number[];
  /** The log index of the newest fact. */
  index: number;
  /** The cluster has forgotten it. */
  gone: boolean;
}

export function track(id: string, job: Job | null = null): Tracked {
  const empty = { id, job: null, progress: null, preview: null, nodes: [], index: 0, gone: false };
  return job ? merge(empty, { job, progress: null }, job.log_index) : empty;
}

export function hasEnded(job: Job | null): boolean {
  return job !== null && ["succeeded", "failed", "cancelled"].includes(job.phase);
}

/** Says whether there is nothing more to hear of it. */
export function isOver(tracked: Tracked): boolean {
  return tracked.gone || hasEnded(tracked.job);
}

/** The log index of an event's id, `<log index>-<number>`. */
export function indexOf(eventId: string): number {
  const index = Number.parseInt(eventId, 10);
  return Number.isFinite(index) ? index : 0;
}

export function merge(known: Tracked, told: Told, index: number): Tracked {
  if (isOver(known) || index < known.index) return known;
  const { job, progress } = told;
  // Tokens of one job strictly rise: a lower one is of a worker that has lost it.
  if (known.job !== null && job.token < known.job.token) return known;
  const isOld = progress !== null && progress.token < job.token;
  const sameAttempt = known.job !== null && known.job.token === job.token && job.phase === "running";
  const moved = job.phase === "running" && job.node > 0 && known.nodes.at(-1) !== job.node;
  return {
    ...known,
    job,
    progress: progress !== null && !isOld ? progress : sameAttempt ? known.progress : null,
    preview: hasEnded(job) ? null : (told.preview ?? known.preview),
    nodes: moved ? [...known.nodes, job.node] : known.nodes,
    index,
  };
}

/** How much is done, from 0 to 1. */
export function share(tracked: Tracked): number {
  const { job, progress } = tracked;
  if (job?.phase === "succeeded") return 1;
  if (!job || !progress || progress.stage === "encode" || progress.steps === 0) return 0;
  const drawn = progress.stage === "denoise" ? progress.step / progress.steps : 1;
  return Math.min((progress.image + drawn) / Math.max(job.count, 1), 0.99);
}

/** The state in words. */
export function words(tracked: Tracked, t: Texts): string {
  const { job, progress, nodes } = tracked;
  if (tracked.gone) return t.gone;
  if (!job) return t.unknownState;
  switch (job.phase) {
    case "queued": {
      if (job.attempt === 0) return t.queued(job.position);
      const failure = job.failed_attempts.at(-1);
      if (failure && job.retry_at_ms > 0) return t.attemptFailed(job.failed_attempts.length, failure.error);
      return t.waitsAgain(nodes.at(-1) ?? null, job.position);
    }
    case "running": {
      const hasMoved = nodes.length > 1 || job.attempt > 1;
      if (!progress) return hasMoved ? t.movedTo(job.node) : t.begins(job.node);
      const parts = [hasMoved ? t.movedTo(job.node) : t.onNode(job.node)];
      parts.push(progress.stage === "denoise" ? t.step(progress.step, progress.steps) : t.stage(progress.stage));
      if (job.count > 1) parts.push(t.pictureOf(progress.image + 1, job.count));
      return parts.join(t.comma);
    }
    case "succeeded":
      return t.done(job.node || (nodes.at(-1) ?? 0), span(job.finished_ms - job.submitted_ms));
    case "failed":
      return t.failed(job.error);
    case "cancelled":
      return t.cancelled;
    case "unknown":
      return t.unknownState;
  }
}
