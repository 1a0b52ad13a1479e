import { expect, it } from "vitest";
import { job } from "../fixtures";
import { begunOf, fromJob, fromPng, infotext, nearestSide } from "./parameters";

const unguided = { negative: "", guidance: "" };
const image = { digest: "d", bytes: 1, media_type: "image/png", seed: "8", url: "", artifact_url: "" };

it("our own text fills the form as it was", () => {
  const parameters = { Prompt: "a cat,\non a mat", Steps: "9", Seed: "18446744073709551615", Size: "128x64" };
  const expected = { prompt: "a cat,\non a mat", width: "128", height: "64", steps: "9", seed: "18446744073709551615", ...unguided };
  expect(fromPng({ info: "", parameters })).toEqual(expected);
});

it("other tools' texts are brought into what can be drawn here", () => {
  const parameters = {
    Prompt: "a fox\nNegative prompt: blurry", Steps: "150", Size: "1000x4000", Seed: "-1", "CFG scale": "50",
    "Denoising strength": "0.35",
  };
  const expected = {
    prompt: "a fox", width: "1008", height: "2048", steps: "50", seed: "", negative: "blurry", guidance: "30",
    strength: "0.35",
  };
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
  expect(fromJob(drawn, 1)).toEqual({ prompt: "a cat", width: "", height: "", steps: "4", seed: "9", ...unguided });
});

it("the copied text is what the PNG holds", () => {
  const text = infotext(job({ steps: 9, images: [image] }), 0, 32, 16);
  expect(text).toBe("a cat\nSteps: 9, Sampler: Euler, CFG scale: 0, Seed: 8, Size: 32x16, Model: z-image-turbo");
});

it("what a job began from is found beside the prompt, and among the parameters", () => {
  const begun = { image: "aa", mask: "bb", strength: 0.4, negative_prompt: "blurry", guidance: 3 };
  for (const drawn of [job(begun), job({ parameters: begun })]) {
    expect(begunOf(drawn)).toMatchObject(begun);
    expect(fromJob(drawn, 0)).toMatchObject({ strength: "0.4", negative: "blurry", guidance: "3" });
    expect(infotext(drawn, 0, 0, 0)).toBe(
      "a cat\nNegative prompt: blurry\nSampler: Euler, CFG scale: 3, Seed: 7, Model: z-image-turbo, Denoising strength: 0.4",
    );
  }
  expect(fromJob(job(), 0)).not.toHaveProperty("strength");
});
