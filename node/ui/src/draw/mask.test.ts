import { expect, it } from "vitest";
import {
  diameterOf, effective, fromBlackAndWhite, isMask, levelOf, shareOf, shownIn, toBlackAndWhite, type Act,
} from "./mask";

it("a picture is shown in the middle of its box, as large as it fits", () => {
  const box = { left: 10, top: 20, width: 300, height: 100 };
  expect(shownIn(box, 200, 100)).toEqual({ left: 60, top: 20, width: 200, height: 100, scale: 1 });
  expect(shownIn(box, 32, 64)).toEqual({ left: 135, top: 20, width: 50, height: 100, scale: 1.5625 });
});

it("a brush is never thinner than a pixel", () => {
  expect([diameterOf(10, 200, 400), diameterOf(1, 16, 16)]).toEqual([20, 1]);
});

it("what clears or fills everything makes earlier acts void", () => {
  const stroke: Act = { kind: "stroke", erases: false, diameter: 3, points: [] };
  expect(effective([stroke, { kind: "none" }, stroke, { kind: "invert" }])).toEqual([
    { kind: "none" }, stroke, { kind: "invert" },
  ]);
  expect(effective([stroke])).toEqual([stroke]);
});

it("a mask is black and white without greys, and comes back as it was", () => {
  const painted = new Uint8ClampedArray([255, 45, 120, 200, 255, 45, 120, 90, 0, 0, 0, 0]);
  toBlackAndWhite(painted);
  expect([...painted]).toEqual([255, 255, 255, 255, 0, 0, 0, 255, 0, 0, 0, 255]);
  fromBlackAndWhite(painted);
  expect([painted[3], painted[7], painted[11]]).toEqual([255, 0, 0]);
  expect(shareOf(painted)).toBeCloseTo(1 / 3);
});

it("all and nothing are no mask", () => {
  expect([0, 0.01, 0.99, 1].map(isMask)).toEqual([false, true, true, false]);
});

it("each strength has its meaning", () => {
  expect([0.001, 0.3, 0.31, 0.6, 0.8, 1].map(levelOf)).toEqual([0, 0, 1, 2, 3, 4]);
});
