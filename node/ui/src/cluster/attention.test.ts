import { expect, it } from "vitest";
import { cluster, member, queue } from "../fixtures";
import { en } from "../texts/en";
import type { Cluster, Findings, Queue } from "../wire";
import { attention } from "./attention";

const three = [member(1), member(2), member(3)];
const told = (status: Cluster | null, counts: Queue | null = null, found: Findings | null = null) =>
  attention(status, counts, found, en, "en").map(({ level, what }) => `${level} ${what}`);

it("a healthy cluster needs nobody", () => {
  expect(told(cluster(three), queue())).toEqual([]);
});

it("a dead voter is told, and that no further one may fail", () => {
  const members = [member(1), member(2), member(3, { alive: false })];
  expect(told(cluster(members))).toEqual([
    "fail Node 3 is not alive (http://peer-3)",
    "warn No margin: with 2 voters alive the next failure stops all writing",
  ]);
});

it("without a leader nobody is called dead", () => {
  const members = three.map((one) => ({ ...one, alive: false, leader: false }));
  expect(told(cluster(members, { leader: 0 }))).toEqual(["fail Nobody leads"]);
});

it("a single peer, another model, a full and paused queue are told", () => {
  expect(told(cluster([member(1)]))).toEqual(["warn Only 1 of 3 voters: no failure is survived"]);
  const odd = [member(1), member(2), member(3, { model: "z@bb" })];
  expect(told(cluster(odd), queue({ paused: true, queued: 90, delayed: 10 }))).toEqual([
    "warn Node 3 has another model than most",
    "warn The queue is paused: jobs are accepted, none is given out",
    "warn 90 jobs wait, 100 may",
  ]);
  // Those that are delayed are among those that are queued.
  expect(told(null, queue({ queued: 89, delayed: 20 }))).toEqual([]);
});

it("findings come with failures first, and what is well not at all", () => {
  const findings = [
    { check: "disk", level: "warn", found: "4 GiB free", fix: "make room" },
    { check: "raft", level: "ok", found: "follows 1", fix: "" },
    { check: "model", level: "fail", found: "changed", fix: "put it back" },
  ] as const;
  expect(told(null, null, { node: 2, wall_ms: 1, findings: [...findings] })).toEqual([
    "fail node 2, model: changed",
    "warn node 2, disk: 4 GiB free",
  ]);
});
