import { expect, it } from "vitest";
import { job } from "../fixtures";
import { fromJob, fromPng, infotext, nearestSide } from "./parameters";

const image = { digest: "d", bytes: 1, media_type: "image/png", seed: "8", url: "", artifact_url: "" };

it("our own text fills the form as it was", () => {
  const parameters = { Prompt: "a cat,\non a mat", Steps: "9", Seed: "18446744073709551615", Size: "128x64" };
  const expected = { prompt: "a cat,\non a mat", width: "128", height: "64", steps: "9", seed: "18446744073709551615" };
  expect(fromPng({ info: "", parameters })).toEqual(expected);
});

it("other tools' texts are brought into what can be drawn here", () => {
  const parameters = { Prompt: "a fox\nNegative prompt: blurry", Steps: "150", Size: "1000x4000", Seed: "-1" };
  const expected = { prompt: "a fox", width: "1008", height: "2048", steps: "50", seed: "" };
  expect(fromPng({ info: "", parameters })).toEqual(expected);
});

it("a picture without parameters fills nothing", () => {
  expect(fromPng({ info: "", parameters: {} })).toBeNull();
  expect(fromPng({ info: "", parameters: { Prompt: "Negative prompt: x" } })).toBeNull();
});

it("the nearest side that can be drawn", () => {
  expect([0, 23, 24, 1_000, 9_999].map(nearestSide)).toEqual([16, 16, 32, 1_008, 2_048]);
});

it("same again has the seed of that very picture, and leaves defaults open", () => {
  const drawn = job({ count: 2, images: [image, { ...image, seed: "9" }], steps: 4 });
  expect(fromJob(drawn, 1)).toEqual({ prompt: "a cat", width: "", height: "", steps: "4", seed: "9" });
});

it("the copied text is what the PNG holds", () => {
  const text = infotext(job({ steps: 9, images: [image] }), 0, 32, 16);
  expect(text).toBe("a cat\nSteps: 9, Sampler: Euler, CFG scale: 0, Seed: 8, Size: 32x16, Model: z-image-turbo");
});
