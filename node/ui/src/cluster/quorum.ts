/** The arithmetic of votes, as `atelier` shows it. Pure. */

import type { Cluster, Member } from "../wire";

export interface Quorum {
  voters: number;
  alive: number;
  /** How many must agree. */
  needed: number;
  /** How many more may fail; negative: a majority is lacking. */
  margin: number;
}

export function quorumOf(members: Member[]): Quorum {
  const voters = members.filter((member) => member.role === "voter");
  const alive = voters.filter((member) => member.alive).length;
  const needed = Math.floor(voters.length / 2) + 1;
  return { voters: voters.length, alive, needed, margin: alive - needed };
}

/** Slots that jobs are given to. */
export function slotsThatDraw(members: Member[]): number {
  return members.filter(draws).reduce((sum, member) => sum + member.slots, 0);
}

function draws(member: Member): boolean {
  return member.alive && !member.draining && member.slots > 0;
}

/** Slots before and after a member is drained. */
export function drained(members: Member[], node: number): { before: number; after: number } {
  const left = members.map((member) => (member.node === node ? { ...member, draining: true } : member));
  return { before: slotsThatDraw(members), after: slotsThatDraw(left) };
}

/** The model that most members have which have one; of equally many the first by name. */
export function usualModel(members: Member[]): string {
  const counts = new Map<string, number>();
  for (const { model } of members) if (model !== "") counts.set(model, (counts.get(model) ?? 0) + 1);
  const sorted = [...counts].sort(([a, many], [b, more]) => more - many || (a < b ? -1 : 1));
  return sorted[0]?.[0] ?? "";
}

/** The leader's last index: by the leader itself, else what the peer that answered has, which may be behind. */
export function lastIndex(told: Cluster): number {
  const leader = told.members.find((member) => member.leader);
  return Math.max(leader?.matched_index ?? 0, told.last_log_index);
}

/** Entries of the leader that are not known to be on the member's disk; null: not known. */
export function lagOf(member: Member, last: number): number | null {
  // 0: the leader does not know.
  return member.matched_index === 0 ? null : Math.max(0, last - member.matched_index);
}
