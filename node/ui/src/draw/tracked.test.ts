import { describe, expect, it } from "vitest";
import { job, progress } from "../fixtures";
import { en } from "../texts/en";
import { indexOf, isOver, merge, share, track, words, type Told } from "./tracked";

const running = (node: number, token: number, attempt = 1) => job({ phase: "running", node, token, attempt });

describe("a job's life in words", () => {
  it("goes from the queue over two nodes to its end", () => {
    let known = track("01J", job({ position: 3 }));
    const said = [words(known, en)];
    const tell = (told: Told, index: number) => {
      known = merge(known, told, index);
      said.push(words(known, en));
    };
    tell({ job: running(2, 5), progress: null }, 2);
    tell({ job: running(2, 5), progress: progress() }, 2);
    tell({ job: job({ phase: "queued", attempt: 1, token: 5, position: 1 }), progress: null }, 3);
    tell({ job: running(3, 8, 2), progress: null }, 4);
    tell({ job: running(3, 8, 2), progress: progress({ node: 3, token: 8, step: 6 }) }, 4);
    tell({ job: job({ phase: "succeeded", node: 3, token: 8, attempt: 2, finished_ms: 4_200 }), progress: null }, 5);
    expect(said).toEqual([
      "Queued 3rd",
      "Node 2 begins",
      "On node 2, step 5 of 8",
      "Node 2 was lost or gave it back; waiting for another (1st)",
      "Moved to node 3",
      "Moved to node 3, step 6 of 8",
      "Done on node 3 in 3.2 s",
    ]);
    expect(known.nodes).toEqual([2, 3]);
    expect(isOver(known)).toBe(true);
  });

  it("names the picture of several, and the stages around the steps", () => {
    const one = merge(track("01J"), { job: { ...running(2, 5), count: 4 }, progress: progress({ image: 1 }) }, 2);
    expect(words(one, en)).toBe("On node 2, step 5 of 8, picture 2 of 4");
    const decoded = merge(one, { job: running(2, 5), progress: progress({ stage: "decode" }) }, 2);
    expect(words(decoded, en)).toBe("On node 2, developing the picture");
  });

  it("tells a failed attempt apart from a lost node", () => {
    const failed_attempts = [{ node: 2, token: 5, error: "out of memory", failed_ms: 5 }];
    const waits = job({ attempt: 1, retry_at_ms: 9, failed_attempts });
    expect(words(track("01J", waits), en)).toContain("Attempt 1 failed: out of memory");
  });
});

describe("merging events", () => {
  const known = merge(track("01J"), { job: running(2, 5), progress: progress(), preview: "data:1" }, 10);

  it("ignores a peer that is behind", () => {
    expect(merge(known, { job: job({ position: 1 }), progress: null }, 9)).toBe(known);
  });

  it("ignores the late word of a worker that has lost the job", () => {
    const moved = merge(known, { job: running(3, 8, 2), progress: null }, 11);
    expect(merge(moved, { job: running(2, 5), progress: progress() }, 11)).toBe(moved);
    const mixed = merge(moved, { job: running(3, 8, 2), progress: progress({ token: 5 }) }, 11);
    expect(mixed.progress).toBeNull();
  });

  it("keeps the step when a fact of the same attempt is told again", () => {
    expect(merge(known, { job: running(2, 5), progress: null }, 10).progress?.step).toBe(5);
  });

  it("keeps the preview over a move and drops it at the end", () => {
    const moved = merge(known, { job: running(3, 8, 2), progress: null }, 11);
    expect(moved.preview).toBe("data:1");
    expect(merge(moved, { job: job({ phase: "failed", token: 8 }), progress: null }, 12).preview).toBeNull();
  });

  it("never brings an ended job back", () => {
    const ended = merge(known, { job: job({ phase: "cancelled", token: 5 }), progress: null }, 12);
    expect(merge(ended, { job: running(3, 8), progress: null }, 13)).toBe(ended);
  });

  it("reads the log index of an event's id", () => {
    expect([indexOf("12-3"), indexOf(""), indexOf("x")]).toEqual([12, 0, 0]);
  });
});

it("shares of several pictures rise to below one until the job has ended", () => {
  const at = (image: number, step: number, stage = "denoise") =>
    share(merge(track("01J"), { job: { ...running(2, 5), count: 2 }, progress: progress({ image, step, stage }) }, 2));
  expect([at(0, 0), at(0, 4), at(1, 4)]).toEqual([0, 0.25, 0.75]);
  expect(at(1, 8, "decode")).toBe(0.99);
  expect(share(track("01J", job({ phase: "succeeded" })))).toBe(1);
});
