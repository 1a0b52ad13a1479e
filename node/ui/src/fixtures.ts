/** Jobs and members for tests: whole ones, of which a test says what matters to it. */

import type { Cluster, Job, Member, Progress, Queue } from "./wire";

export function job(changes: Partial<Job> = {}): Job {
  return {
    id: "01J", phase: "queued", prompt: "a cat", width: 0, height: 0, steps: 0, seed: "7", count: 1,
    tenant: "default", priority: 5, position: 0, attempt: 0, node: 0, token: 0, log_index: 1, submitted_ms: 1_000,
    finished_ms: 0, retry_at_ms: 0, error: "", images: [], failed_attempts: [], ...changes,
  };
}

export function progress(changes: Partial<Progress> = {}): Progress {
  return { node: 2, token: 5, stage: "denoise", image: 0, step: 5, steps: 8, ...changes };
}

export function member(node: number, changes: Partial<Member> = {}): Member {
  return {
    node, address: `http://peer-${node}`, role: "voter", leader: node === 1, alive: true, witness: false,
    draining: false, slots: 1, leases: 0, engine: "flex cpu", model: "z@aa", labels: {}, matched_index: 90,
    features: 3, ...changes,
  };
}

export function cluster(members: Member[], changes: Partial<Cluster> = {}): Cluster {
  return {
    cluster: "demo", node: 1, leader: 1, term: 2, last_log_index: 100, commit_index: 100, applied_index: 100,
    version: "0.1.0", features: 3, settings_version: 0, paused: false, queued: 0, running: 0, ended: 0, members,
    ...changes,
  };
}

export function queue(changes: Partial<Queue> = {}): Queue {
  return {
    queued: 0, delayed: 0, running: 0, succeeded: 0, failed: 0, cancelled: 0, forgotten: 0, paused: false,
    jobs_max: 100, tenant_jobs_max: 0, priorities: [], tenants: [], ...changes,
  };
}
