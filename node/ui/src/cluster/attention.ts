/** What needs a person, out of everything that the page knows. Pure. */

import { count, model } from "../format";
import type { Texts } from "../texts/en";
import type { Cluster, Findings, Level, Queue } from "../wire";
import { quorumOf, usualModel } from "./quorum";

export interface Callout {
  level: Exclude<Level, "ok">;
  what: string;
  fix: string;
}

/** Above this share of what may wait, somebody should know before submits are refused. */
const FULL_SHARE = 0.9;
/** Votes that survive a failure. */
const VOTERS_MIN = 3;

/** Failures first. */
export function attention(
  cluster: Cluster | null, queue: Queue | null, findings: Findings | null, t: Texts, language: string,
): Callout[] {
  const found = [
    ...(cluster ? [...ofVotes(cluster, t), ...ofMembers(cluster, t)] : []),
    ...(queue ? ofQueue(queue, t, language) : []),
    ...(findings ? ofFindings(findings, t) : []),
  ];
  return [...found.filter(({ level }) => level === "fail"), ...found.filter(({ level }) => level === "warn")];
}

function ofVotes({ leader, members }: Cluster, t: Texts): Callout[] {
  const { voters, alive, needed, margin } = quorumOf(members);
  const found: Callout[] = [];
  if (leader === 0) found.push({ level: "fail", what: t.noLeader, fix: t.noLeaderFix });
  // Without a leader nobody knows who is alive.
  else if (margin < 0) found.push({ level: "fail", what: t.quorumLost(alive, needed), fix: t.quorumLostFix });
  else if (voters < VOTERS_MIN) found.push({ level: "warn", what: t.fewVoters(voters), fix: t.fewVotersFix });
  else if (margin === 0) found.push({ level: "warn", what: t.noMargin(alive), fix: t.noMarginFix });
  return found;
}

function ofMembers({ leader, members }: Cluster, t: Texts): Callout[] {
  const usual = usualModel(members);
  return members.flatMap((member) => {
    const found: Callout[] = [];
    if (leader !== 0 && !member.alive) {
      const level = member.role === "voter" ? "fail" : "warn";
      found.push({ level, what: t.notAlive(member.node, member.address), fix: t.notAliveFix });
    }
    if (member.model !== "" && model(member.model).hash !== model(usual).hash) {
      found.push({ level: "warn", what: t.modelDiffers(member.node), fix: t.modelDiffersFix });
    }
    return found;
  });
}

function ofQueue(queue: Queue, t: Texts, language: string): Callout[] {
  const found: Callout[] = [];
  if (queue.paused) found.push({ level: "warn", what: t.paused, fix: t.pausedFix });
  // Those that are delayed are among them.
  if (queue.jobs_max > 0 && queue.queued >= queue.jobs_max * FULL_SHARE) {
    const what = t.queueNearlyFull(count(queue.queued, language), count(queue.jobs_max, language));
    found.push({ level: "warn", what, fix: t.queueNearlyFullFix });
  }
  return found;
}

function ofFindings({ node, findings }: Findings, t: Texts): Callout[] {
  return findings.flatMap(({ check, level, found, fix }) =>
    level === "ok" ? [] : [{ level, what: `${t.findingOf(node, check)}: ${found}`, fix }],
  );
}
