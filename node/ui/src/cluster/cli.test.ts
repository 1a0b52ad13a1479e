import { expect, it } from "vitest";
import { drainMember, pauseQueue, quoted, setConfig, transferLeader, undoConfig } from "./cli";

it("words reach the command as they are typed", () => {
  expect(["new", "new disks", "", "it's", `say "no"`, "costs $5", "late!"].map(quoted)).toEqual([
    "new", '"new disks"', '""', `"it's"`, `'say "no"'`, "'costs $5'", "'late!'",
  ]);
  expect(quoted("it's $5")).toBe(`'it'\\''s $5'`);
});

it("each act is the line that the command line knows", () => {
  expect(pauseQueue(true, "new disks")).toBe('atelier queue pause --reason "new disks"');
  expect(pauseQueue(false, " ")).toBe("atelier queue resume");
  expect(drainMember(2, true, "")).toBe("atelier member drain 2");
  expect(drainMember(2, false, "fan mended")).toBe('atelier member resume 2 --reason "fan mended"');
  expect([transferLeader(2), transferLeader(0)]).toEqual([
    "atelier cluster transfer-leader --to 2", "atelier cluster transfer-leader",
  ]);
  expect(setConfig({ "queue.jobs_max": 5_000 }, 3, "")).toBe("atelier config set queue.jobs_max=5000 --expect-version 3");
  expect(setConfig({ "queue.paused": null }, 0, "")).toBe("atelier config set queue.paused=default --expect-version 0");
  expect(undoConfig(4, "takes version 4 back")).toBe('atelier config undo --expect-version 4 --reason "takes version 4 back"');
});
