/**
 * The picture to begin from, with its mask: a part of the form, and remembered like it. It goes to a peer with the
 * order, not before: what no job names is dropped there.
 */

import { effect, signal } from "@preact/signals";
import { ApiError, artifactUrl, getPicture } from "../api";
import { bytes } from "../format";
import { t } from "../texts";
import type { Job } from "../wire";
import { change } from "./form-state";
import { keep, kept } from "./kept";
import { begunOf } from "./parameters";
import { PICTURE_BYTES_MAX, prepare } from "./picture-file";

export interface Mask {
  /** Black and white, of the picture's size: what is white is drawn anew. */
  blob: Blob;
  /** How much is white, to 1; null: another tool painted it. */
  share: number | null;
}

export interface Source {
  blob: Blob;
  name: string;
  width: number;
  height: number;
  mask: Mask | null;
}

export const source = signal<Source | null>(null);
/** Why the last picture is not the one to begin from, in words. */
export const sourceProblem = signal("");

/** Picks up what is asked for last: a slow file does not replace a later one. */
let asked = 0;
let pending: Promise<unknown> = Promise.resolve();

/** Resolves when everything that was chosen or painted is in `source`. */
export async function settled(): Promise<void> {
  let seen: Promise<unknown> | null = null;
  while (seen !== pending) {
    seen = pending;
    await seen;
  }
}

function attempt(work: () => Promise<Source | null>, words: (error: unknown) => string): Promise<boolean> {
  asked += 1;
  const own = asked;
  sourceProblem.value = "";
  const done = work().then(
    (made) => {
      if (own === asked) source.value = made;
      return own === asked;
    },
    (error: unknown) => {
      if (own === asked) sourceProblem.value = words(error);
      return false;
    },
  );
  pending = Promise.all([pending, done]);
  return done;
}

async function made(file: Blob, name: string): Promise<Source> {
  const prepared = await prepare(file);
  if (prepared.blob.size > PICTURE_BYTES_MAX) throw new RangeError(bytes(prepared.blob.size));
  return { ...prepared, name, mask: null };
}

function wordsOf(error: unknown, name: string): string {
  if (error instanceof ApiError) return t.value.sourceGone;
  if (error instanceof RangeError) return t.value.sourceTooLarge(name, error.message, bytes(PICTURE_BYTES_MAX));
  return t.value.sourceUnreadable(name);
}

/** Begins from a file. The size is the picture's until another is chosen. Says whether it came to that. */
export async function beginFrom(file: Blob, name: string): Promise<boolean> {
  const done = await attempt(() => made(file, name), (error) => wordsOf(error, name));
  if (done) change({ width: "", height: "", custom: false });
  return done;
}

/** Begins from a picture of the gallery. */
export async function beginFromPicture(url: string, name: string): Promise<boolean> {
  const done = await attempt(async () => made(await getPicture(url), name), (error) => wordsOf(error, name));
  if (done) change({ width: "", height: "", custom: false });
  return done;
}

/** Begins from the very bytes that a job began from, or from none where it did not. */
export function beginLike(job: Job): Promise<boolean> {
  const { image, mask } = begunOf(job);
  source.value = null;
  const load = async () => {
    if (!image) return null;
    const [blob, painted] = await Promise.all([image, mask].map((digest) => digest && getPicture(artifactUrl(digest))));
    if (!blob) return null;
    const bitmap = await createImageBitmap(blob);
    const { width, height } = bitmap;
    bitmap.close();
    return { blob, name: t.value.sourceOfJob, width, height, mask: painted ? { blob: painted, share: null } : null };
  };
  return attempt(load, () => t.value.sourceGone);
}

export function removeSource(): void {
  void attempt(() => Promise.resolve(null), () => "");
}

/** Puts back what an order had that was not accepted. */
export function restoreSource(was: Source | null): void {
  void attempt(() => Promise.resolve(was), () => "");
}

let paintings = 0;

/** Replaces the mask of a picture, unless another picture came meanwhile, or a later stroke. */
export function paintMask(of: Source, painting: Promise<Mask | null>): void {
  paintings += 1;
  const own = paintings;
  const done = painting.then((mask) => {
    const now = source.value;
    if (own === paintings && now?.blob === of.blob) source.value = { ...now, mask };
  });
  pending = Promise.all([pending, done.catch(() => {})]);
}

function isSource(raw: unknown): raw is Source {
  if (typeof raw !== "object" || raw === null) return false;
  const { blob, name, width, height } = raw as Partial<Record<keyof Source, unknown>>;
  return blob instanceof Blob && typeof name === "string" && typeof width === "number" && typeof height === "number";
}

/** Brings back the picture of the last visit, and remembers from here on. Called once. */
export function startSource(): void {
  const before = asked;
  const restored = kept().then((raw) => {
    if (asked === before && isSource(raw)) source.value = raw;
  });
  pending = Promise.all([pending, restored]);
  let last: Source | null = null;
  void restored.then(() => {
    last = source.value;
    effect(() => {
      if (source.value === last) return;
      last = source.value;
      void keep(last);
    });
  });
}
