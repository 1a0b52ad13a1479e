import { expect, it } from "vitest";
import { en } from "../texts/en";
import { EMPTY, formFrom, formOf, orderOf, type Form } from "./order";

const plain = { source: false, guidance: false };
const form = (changes: Partial<Form>): Form => ({ ...EMPTY, prompt: "a cat", ...changes });

it("what is left open is left out of the order", () => {
  expect(orderOf(form({}), en, plain)).toEqual({ order: { prompt: "a cat", count: 1, priority: 5 }, faults: {} });
});

it("everything that is typed is in the order, and comes back from it", () => {
  const typed = form({ width: "832", height: "1248", steps: "9", seed: "18446744073709551615", count: "4", priority: "0" });
  const { order, faults } = orderOf(typed, en, plain);
  expect(faults).toEqual({});
  expect(order).toEqual({
    prompt: "a cat", width: 832, height: 1_248, steps: 9, seed: "18446744073709551615", count: 4, priority: 0,
  });
  expect(formOf(order)).toEqual(typed);
});

it("every fault is told at its field", () => {
  const { faults } = orderOf(
    form({ prompt: " ", custom: true, width: "1000", height: "", steps: "51", seed: "x", count: "0", priority: "10" }), en, plain,
  );
  expect(Object.keys(faults).sort()).toEqual(["count", "height", "priority", "prompt", "seed", "steps", "width"]);
  expect(faults.width).toContain("1008");
});

it("a prompt is bounded in bytes, not in signs", () => {
  expect(orderOf(form({ prompt: "猫".repeat(2_730) }), en, plain).faults).toEqual({});
  expect(orderOf(form({ prompt: "猫".repeat(2_731) }), en, plain).faults.prompt).toContain("8193");
});

it("a form that another version remembered does no harm", () => {
  expect(formFrom({ prompt: "a cat", steps: 9, custom: "yes", unknown: 1 })).toEqual(form({}));
  expect(formFrom("nonsense")).toEqual(EMPTY);
});

it("strength goes with a picture, guidance with a model that heeds it", () => {
  const typed = form({ strength: "0.45", negative: " blurry ", guidance: "4.5" });
  const { order, faults } = orderOf(typed, en, { source: true, guidance: true });
  expect(faults).toEqual({});
  expect(order).toMatchObject({ strength: 0.45, negative_prompt: "blurry", guidance: 4.5 });
  expect(formOf(order)).toEqual({ ...typed, negative: "blurry" });
  expect(Object.keys(orderOf(typed, en, plain).order)).toEqual(["prompt", "count", "priority"]);
});

it("strength and guidance have their ranges", () => {
  const typed = form({ strength: "1.5", negative: "x".repeat(4_097), guidance: "31" });
  const { faults } = orderOf(typed, en, { source: true, guidance: true });
  expect(faults.strength).toBe("Strength: a number from 0.001 to 1.");
  expect(faults.guidance).toBe("Guidance: a number from 0 to 30.");
  expect(faults.negative).toContain("Negative prompt: at most 4096 bytes");
  expect(orderOf(form({ strength: "" }), en, { source: true, guidance: true }).order.strength).toBe(0.6);
});
