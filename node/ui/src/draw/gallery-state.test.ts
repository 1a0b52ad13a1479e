import { expect, it } from "vitest";
import { job } from "../fixtures";
import { matches, united } from "./gallery-state";

it("a search means every word, or a seed, or an id", () => {
  const cat = job({ prompt: "A cat on a blue background", seed: "7" });
  const image = { digest: "d", bytes: 1, media_type: "", seed: "42", url: "", artifact_url: "" };
  expect(matches(cat, "blue CAT")).toBe(true);
  expect(matches(cat, "  ")).toBe(true);
  expect(matches(cat, "red cat")).toBe(false);
  expect(matches({ ...cat, images: [image] }, "42")).toBe(true);
  expect(matches(cat, "01J")).toBe(true);
});

it("lists unite without doubles, the newest end first", () => {
  const [a, b, c] = [job({ id: "a", finished_ms: 1 }), job({ id: "b", finished_ms: 3 }), job({ id: "c", finished_ms: 2 })];
  expect(united([b, a], [c, b]).map(({ id }) => id)).toEqual(["b", "c", "a"]);
});
