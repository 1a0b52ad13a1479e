/** The gallery: jobs that succeeded, newest first, as the cluster has them. The same on every peer. */

import { computed, signal } from "@preact/signals";
import { ApiError, listJobs } from "../api";
import type { Job, Picture } from "../wire";

const PAGE_JOBS = 24;
/** For a search, which looks through prompts here. */
const SEARCH_PAGE_JOBS = 200;
/** Pages that one search, or one "more" of it, looks through. */
const SEARCH_PAGES_MAX = 5;

export interface Tile {
  job: Job;
  picture: Picture;
  index: number;
}

export const query = signal("");
export const total = signal<number | null>(null);
export const loading = signal(false);
export const problem = signal<ApiError | null>(null);
const jobs = signal<Job[]>([]);
const next = signal<string | null>(null);

/** Jobs that a search has looked through. */
export const looked = computed(() => jobs.value.length);
export const hasMore = computed(() => next.value !== null);
export const found = computed(() => jobs.value.filter((job) => matches(job, query.value)));
export const tiles = computed<Tile[]>(() =>
  found.value.flatMap((job) => job.images.map((picture, index) => ({ job, picture, index }))),
);

/** Says whether a job is meant: every word is in its prompt, or the whole is its seed or id. */
export function matches(job: Job, sought: string): boolean {
  const words = sought.toLowerCase().split(/\s+/).filter((word) => word !== "");
  const prompt = job.prompt.toLowerCase();
  if (words.every((word) => prompt.includes(word))) return true;
  const whole = sought.trim();
  return job.id === whole || job.images.some((picture) => picture.seed === whole);
}

/** Two lists without doubles, newest end first. */
export function united(known: Job[], more: Job[]): Job[] {
  const all = new Map([...known, ...more].map((job) => [job.id, job]));
  return [...all.values()].sort((a, b) => b.finished_ms - a.finished_ms || (a.id < b.id ? 1 : -1));
}

export function addToGallery(job: Job): void {
  jobs.value = united(jobs.value, [job]);
}

/** Asks for the newest. The place from where more are asked for stays where it is. */
export async function refresh(): Promise<void> {
  await attempt(async () => {
    const isFirst = total.value === null;
    const list = await listJobs(["succeeded"], PAGE_JOBS);
    // Where a whole page is new, there may be a gap between it and what is known: begin anew.
    const known = new Set(jobs.value.map((job) => job.id));
    const joins = isFirst || list.jobs.length < PAGE_JOBS || list.jobs.some((job) => known.has(job.id));
    if (isFirst || !joins) next.value = list.next;
    jobs.value = joins ? united(jobs.value, list.jobs) : list.jobs;
    total.value = list.total;
  });
}

/** Loads the next page; of a search as many as bring a page of matches. */
export async function more(): Promise<void> {
  await attempt(async () => {
    const wanted = found.value.length + PAGE_JOBS;
    for (let page = 0; page < SEARCH_PAGES_MAX && next.value !== null; page += 1) {
      const list = await listJobs(["succeeded"], query.value ? SEARCH_PAGE_JOBS : PAGE_JOBS, next.value);
      jobs.value = united(jobs.value, list.jobs);
      next.value = list.next;
      if (found.value.length >= wanted || !query.value) break;
    }
  });
}

async function attempt(work: () => Promise<void>): Promise<void> {
  if (loading.value) return;
  loading.value = true;
  try {
    await work();
    problem.value = null;
  } catch (error) {
    problem.value = error instanceof ApiError ? error : new ApiError("unreachable", String(error));
  } finally {
    loading.value = false;
  }
}
