import { expect, it } from "vitest";
import { cluster, member } from "../fixtures";
import { drained, lagOf, lastIndex, quorumOf, usualModel } from "./quorum";

it("a majority of the voters must agree, learners do not count", () => {
  const of = (alive: number, voters: number) =>
    quorumOf([
      ...Array.from({ length: voters }, (_, index) => member(index + 1, { alive: index < alive })),
      member(99, { role: "learner" }),
    ]);
  expect(of(3, 3)).toEqual({ voters: 3, alive: 3, needed: 2, margin: 1 });
  expect(of(2, 3).margin).toBe(0);
  expect(of(1, 3).margin).toBe(-1);
  expect([of(1, 1), of(4, 4), of(5, 5)].map(({ needed, margin }) => [needed, margin])).toEqual([[1, 0], [3, 1], [3, 2]]);
});

it("draining takes the slots of a member that drew, and none of one that did not", () => {
  const members = [member(1), member(2, { slots: 2 }), member(3, { alive: false }), member(4, { draining: true })];
  expect(drained(members, 2)).toEqual({ before: 3, after: 1 });
  expect(drained(members, 3)).toEqual({ before: 3, after: 3 });
  expect(drained([member(1)], 1).after).toBe(0);
});

it("the usual model is most members', and of nobody none", () => {
  expect(usualModel([member(1, { model: "z@b" }), member(2), member(3), member(4, { model: "" })])).toBe("z@aa");
  expect(usualModel([member(1, { model: "z@b" }), member(2, { model: "z@a" })])).toBe("z@a");
  expect(usualModel([])).toBe("");
});

it("the leader's last index is its own word, also where the peer that answers is behind", () => {
  expect(lastIndex(cluster([member(1, { matched_index: 120 }), member(2)], { last_log_index: 90 }))).toBe(120);
  expect(lastIndex(cluster([member(2)], { leader: 0, last_log_index: 90 }))).toBe(90);
});

it("a lag that the leader does not know is no lag of zero", () => {
  expect([90, 100, 105, 0].map((index) => lagOf(member(2, { matched_index: index }), 100))).toEqual([10, 0, 0, null]);
});
