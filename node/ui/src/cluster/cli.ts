/** The command line that does the same as a button. Pure. */

import type { SettingValue } from "../wire";

/** A word of a POSIX shell. */
export function quoted(word: string): string {
  if (/^[\w.,:=@/+-]+$/.test(word)) return word;
  // Between double quotes these four have a meaning, and an exclamation mark has one to interactive shells.
  return /[$`"\\!]/.test(word) ? `'${word.replaceAll("'", "'\\''")}'` : `"${word}"`;
}

function line(...words: string[]): string {
  return ["atelier", ...words].join(" ");
}

function reason(why: string): string[] {
  return why.trim() === "" ? [] : ["--reason", quoted(why.trim())];
}

export function pauseQueue(paused: boolean, why: string): string {
  return line("queue", paused ? "pause" : "resume", ...reason(why));
}

export function drainMember(node: number, drains: boolean, why: string): string {
  return line("member", drains ? "drain" : "resume", String(node), ...reason(why));
}

/** 0: to whoever has come furthest. */
export function transferLeader(to: number): string {
  return line("cluster", "transfer-leader", ...(to > 0 ? ["--to", String(to)] : []));
}

export function setConfig(set: Record<string, SettingValue | null>, version: number, why: string): string {
  const pairs = Object.entries(set).map(([key, value]) => quoted(`${key}=${value ?? "default"}`));
  return line("config", "set", ...pairs, "--expect-version", String(version), ...reason(why));
}

export function undoConfig(version: number, why: string): string {
  return line("config", "undo", "--expect-version", String(version), ...reason(why));
}
