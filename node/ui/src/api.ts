/**
 * Typed calls of this peer. Every refusal is an `ApiError`, whatever its shape on the wire.
 *
 * Reads that are repeated ask with `stale=1`: they are answered while no leader is, which is when they are needed.
 */

import { signal } from "@preact/signals";
import type {
  Cluster, Config, ConfigVersion, Findings, Job, JobList, Member, Order, Phase, PngInfo, Queue, SettingValue,
  TrailRecord, Uploaded,
} from "./wire";

/** For a read; a peer that is silent for longer is told as silent. */
const READ_MS_MAX = 8_000;
/** For a write: it is held over an election. */
const WRITE_MS_MAX = 40_000;
/** For a picture: 64 MiB over a slow line. */
const PICTURE_MS_MAX = 300_000;

/** The peer that answered last, by its id; 0 before the first answer. */
export const servedBy = signal(0);
/** Whether the last call got an answer of any kind. */
export const reachable = signal(true);
/** How far the peer's clock is ahead of this machine's: ages are told by the cluster's clock. */
export const clockAheadMs = signal(0);

export type Refusal =
  /** No answer at all. */
  | "unreachable"
  /** This peer's version knows no such call. */
  | "missing"
  /** Refused, in the peer's words. */
  | "refused";

/** A call that did not do what it was to do. */
export class ApiError extends Error {
  constructor(
    readonly refusal: Refusal,
    message: string,
    readonly status = 0,
    /** Seconds after which it is worth trying again; null: not by itself. */
    readonly retryAfterS: number | null = null,
  ) {
    super(message);
  }
}

/** Reads JSON; seeds above 2^53 keep every digit. A prompt cannot be mistaken: its quotes are escaped. */
export function parse<T>(text: string): T {
  return JSON.parse(text.replace(/"seed":(\d+)/g, '"seed":"$1"')) as T;
}

/** What a refusal says, in the shape of `/api/v1` or of `/sdapi/v1`. */
export function messageOf(body: unknown, status: number): string {
  if (typeof body === "object" && body !== null) {
    const { error, detail } = body as { error?: unknown; detail?: unknown };
    if (typeof error === "object" && error !== null && "message" in error) return String(error.message);
    if (typeof detail === "string") return detail;
    if (Array.isArray(detail)) return detail.map((one: { msg?: string }) => one.msg ?? "").join("; ");
  }
  return `HTTP ${status}`;
}

/** `Retry-After` in seconds; dates are not written by peers, so they count as none. */
export function retryAfter(header: string | null): number | null {
  const seconds = header === null ? NaN : Number(header);
  return Number.isFinite(seconds) && seconds >= 0 ? Math.ceil(seconds) : null;
}

async function call<T>(path: string, options: RequestInit = {}, within = READ_MS_MAX): Promise<T> {
  let response: Response;
  let text: string;
  try {
    response = await fetch(path, { ...options, signal: AbortSignal.timeout(within) });
    text = await response.text();
  } catch (error) {
    reachable.value = false;
    throw new ApiError("unreachable", String(error), 0, 2);
  }
  const served = response.headers.get("x-served-by");
  if (served) servedBy.value = Number(served);
  const date = Date.parse(response.headers.get("date") ?? "");
  // The header has whole seconds; a second and a half is no skew worth correcting.
  if (Number.isFinite(date)) clockAheadMs.value = Math.abs(date - Date.now()) > 1_500 ? date - Date.now() : 0;
  let body: unknown = null;
  try {
    body = parse(text);
  } catch {
    body = null;
  }
  // A proxy before a peer that is down answers in its own words.
  reachable.value = response.ok || body !== null;
  if (response.ok && body !== null) return body as T;
  // A path that the peer does not know is answered outside of what names the peer.
  const missing = response.status === 405 || (response.status === 404 && !served);
  const refusal = missing ? "missing" : body === null ? "unreachable" : "refused";
  const wait = retryAfter(response.headers.get("retry-after"));
  throw new ApiError(refusal, messageOf(body, response.status), response.status, wait);
}

function send<T>(method: string, path: string, body: unknown, headers: Record<string, string> = {}): Promise<T> {
  const all = { "content-type": "application/json", ...headers };
  return call<T>(path, { method, headers: all, body: JSON.stringify(body) }, WRITE_MS_MAX);
}

/** Now, by the cluster's clock. */
export function clusterNow(): number {
  return Date.now() + clockAheadMs.value;
}

/** A name for one order: sent again under it, by a person or by a proxy, it is the same job. */
export function newKey(): string {
  // randomUUID is there on secure origins alone, and peers are often reached by plain HTTP.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function submit(order: Order, key: string): Promise<Job> {
  return send("POST", "/api/v1/jobs", order, { "idempotency-key": key });
}

/** Hands a picture over, for an order to name by its digest. */
export async function uploadPicture(picture: Blob): Promise<Uploaded> {
  const headers = { "content-type": picture.type };
  const body = await picture.arrayBuffer();
  return call("/api/v1/artifacts", { method: "POST", headers, body }, PICTURE_MS_MAX);
}

export function artifactUrl(digest: string): string {
  return `/api/v1/artifacts/${encodeURIComponent(digest)}`;
}

/** The bytes of a picture of this peer's. */
export async function getPicture(url: string): Promise<Blob> {
  let response: Response;
  try {
    response = await fetch(url, { signal: AbortSignal.timeout(PICTURE_MS_MAX) });
    if (response.ok) return await response.blob();
  } catch (error) {
    throw new ApiError("unreachable", String(error), 0, 2);
  }
  const body: unknown = await response.json().catch(() => null);
  throw new ApiError("refused", messageOf(body, response.status), response.status);
}

export function getJob(id: string): Promise<Job> {
  return call(`/api/v1/jobs/${encodeURIComponent(id)}?stale=1`);
}

export function cancelJob(id: string): Promise<Job> {
  return call(`/api/v1/jobs/${encodeURIComponent(id)}`, { method: "DELETE" }, WRITE_MS_MAX);
}

export function listJobs(phases: Phase[], limit: number, after: string | null = null): Promise<JobList> {
  const query = new URLSearchParams({ phase: phases.join(","), limit: String(limit), stale: "1" });
  if (after) query.set("after", after);
  return call(`/api/v1/jobs?${query}`);
}

export function eventsUrl(ids: string[]): string {
  return `/api/v1/events?jobs=${ids.map(encodeURIComponent).join(",")}&previews=1`;
}

/** Reads how a picture was drawn; `image` is a data: URL. */
export function pngInfo(image: string): Promise<PngInfo> {
  return send("POST", "/sdapi/v1/png-info", { image });
}

export const getCluster = () => call<Cluster>("/api/v1/cluster");
export const getQueue = () => call<Queue>("/api/v1/queue?stale=1");
export const getConfig = () => call<Config>("/api/v1/config?stale=1");
export const getHistory = () => call<{ versions: ConfigVersion[] }>("/api/v1/config/history?stale=1");
export const getTrail = (limit: number) => call<{ records: TrailRecord[] }>(`/api/v1/trail?limit=${limit}&stale=1`);
export const getFindings = () => call<Findings>("/api/v1/findings");

export function setConfig(set: Record<string, SettingValue | null>, version: number, why: string): Promise<Config> {
  return send("PATCH", "/api/v1/config", { set, expect_version: version, why });
}

export function pauseQueue(paused: boolean, why: string): Promise<Queue> {
  return send("POST", `/api/v1/queue/${paused ? "pause" : "resume"}`, { why });
}

export function drainMember(node: number, drains: boolean, why: string): Promise<Member> {
  return send("POST", `/api/v1/members/${node}/${drains ? "drain" : "resume"}`, { why });
}

/** 0: to whoever has come furthest. */
export function transferLeader(to: number): Promise<{ leader: number }> {
  return send("POST", "/api/v1/cluster/transfer-leader", { to });
}
