/**
 * The JSON of `/api/v1`, as the peer writes it. Nothing here decides anything.
 *
 * Times are milliseconds since 1970 by the cluster's clocks. Seeds have 64 bits, which a JavaScript number has not, so
 * they are texts here: see `parse` in api.ts.
 */

export type Phase = "queued" | "running" | "succeeded" | "failed" | "cancelled" | "unknown";

export interface Picture {
  digest: string;
  bytes: number;
  media_type: string;
  seed: string;
  url: string;
  artifact_url: string;
}

export interface FailedAttempt {
  node: number;
  token: number;
  error: string;
  failed_ms: number;
}

/** What a job that began from a picture, or was guided, says of it. Each is there where it was given. */
export interface Begun {
  /** Digests: the bytes are artifacts while the job is remembered. */
  image?: string;
  mask?: string;
  /** How much is drawn anew, to 1. */
  strength?: number;
  negative_prompt?: string;
  guidance?: number;
}

export interface Job extends Begun {
  id: string;
  phase: Phase;
  prompt: string;
  width: number;
  height: number;
  steps: number;
  seed: string;
  count: number;
  tenant: string;
  priority: number;
  position: number;
  attempt: number;
  node: number;
  token: number;
  log_index: number;
  submitted_ms: number;
  finished_ms: number;
  retry_at_ms: number;
  error: string;
  images: Picture[];
  failed_attempts: FailedAttempt[];
  /** As the job names them; some peers have them beside the prompt. */
  parameters?: Begun;
}

export interface Progress {
  node: number;
  token: number;
  stage: string;
  image: number;
  step: number;
  steps: number;
}

export interface JobList {
  jobs: Job[];
  total: number;
  next: string | null;
}

/** What is asked for; what is left out is the model's or the cluster's default. */
export interface Order {
  prompt: string;
  width?: number;
  height?: number;
  steps?: number;
  seed?: string;
  count?: number;
  priority?: number;
  image?: string;
  mask?: string;
  strength?: number;
  negative_prompt?: string;
  guidance?: number;
}

/** What was uploaded. It is dropped where no job names it within ten minutes. */
export interface Uploaded {
  digest: string;
  bytes: number;
  media_type: string;
  width: number;
  height: number;
}

/** What orders may have beside a prompt. */
export interface Takes {
  /** Pictures to begin from; not while an upgrade goes on. */
  image: boolean;
  /** A negative prompt and guidance: not where the model was distilled. */
  guidance: boolean;
}

export interface Member {
  node: number;
  address: string;
  role: "voter" | "learner" | "unknown";
  leader: boolean;
  alive: boolean;
  witness: boolean;
  draining: boolean;
  slots: number;
  leases: number;
  engine: string;
  model: string;
  labels: Record<string, string>;
  matched_index: number;
  features: number;
}

export interface Cluster {
  cluster: string;
  node: number;
  leader: number;
  term: number;
  last_log_index: number;
  commit_index: number;
  applied_index: number;
  version: string;
  features: number;
  settings_version: number;
  paused: boolean;
  queued: number;
  running: number;
  ended: number;
  members: Member[];
  /** Older peers do not say, and take neither. */
  takes?: Takes;
}

export interface Queue {
  queued: number;
  delayed: number;
  running: number;
  succeeded: number;
  failed: number;
  cancelled: number;
  forgotten: number;
  paused: boolean;
  jobs_max: number;
  tenant_jobs_max: number;
  priorities: { priority: number; queued: number; oldest_ms: number }[];
  tenants: { tenant: string; queued: number; running: number; weight: number }[];
}

export type SettingValue = number | boolean;

export interface Setting {
  key: string;
  value: SettingValue;
  default: SettingValue;
  least: number;
  most: number;
  unit: string;
  about: string;
  version: number;
}

export interface Config {
  version: number;
  settings: Setting[];
}

/** null: the default. */
export interface SettingChange {
  key: string;
  before: SettingValue | null;
  after: SettingValue | null;
}

export interface ConfigVersion {
  version: number;
  at_ms: number;
  who: string;
  why: string;
  changes: SettingChange[];
}

export interface TrailRecord {
  log_index: number;
  act: string;
  who: string;
  why: string;
  at_ms: number;
}

export type Level = "ok" | "warn" | "fail";

export interface Finding {
  check: string;
  level: Level;
  found: string;
  fix: string;
}

export interface Findings {
  node: number;
  wall_ms: number;
  findings: Finding[];
}

/** What a PNG says of how it was drawn. */
export interface PngInfo {
  info: string;
  parameters: Record<string, string>;
}
