import { expect, it } from "vitest";
import { age, bytes, count, model, moment, ordinal, rate, span } from "./format";

it("spans have two units at most, and never sixty of one", () => {
  const told = [-5, 0, 350, 999.6, 4_210, 59_949, 59_950, 185_000, 7_800_000, 273_600_000].map(span);
  expect(told).toEqual([
    "0 ms", "0 ms", "350 ms", "1.0 s", "4.2 s", "59.9 s", "1 min 0 s", "3 min 5 s", "2 h 10 min", "3 d 4 h",
  ]);
  expect([400, 59_400, 59_600].map(age)).toEqual(["0 s", "59 s", "1 min 0 s"]);
});

it("numbers follow the language and keep the digits that count", () => {
  expect([count(1_234_567, "en"), count(1_234_567, "zh-CN")]).toEqual(["1,234,567", "1,234,567"]);
  expect([0, 0.1234, 1.239, 12.34, 123.4].map((value) => rate(value, "en"))).toEqual(["0", "0.12", "1.24", "12.3", "123"]);
});

it("ordinals", () => {
  expect([1, 2, 3, 4, 11, 12, 13, 21, 102, 111].map(ordinal)).toEqual([
    "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th",
  ]);
});

it("bytes", () => {
  expect([0, 1_023, 1_536, 200 * 1_024, 1_572_864].map(bytes)).toEqual(["0 B", "1023 B", "1.5 KiB", "200 KiB", "1.5 MiB"]);
});

it("a model's digest is shortened", () => {
  expect(model("z-image-turbo@0123456789abcdef")).toEqual({ name: "z-image-turbo", hash: "01234567" });
  expect(model("toy@sha256:0123456789")).toEqual({ name: "toy", hash: "01234567" });
  expect(model("toy")).toEqual({ name: "toy", hash: "" });
});

it("moments of another day have their date; none is a dash", () => {
  const noon = new Date(2026, 4, 3, 12, 0, 0).getTime();
  expect(moment(noon, noon + 1_000, "en")).toBe("12:00:00");
  expect(moment(noon, noon + 86_400_000, "en")).toBe("5/3/2026 12:00:00");
  expect(moment(0, noon, "en")).toBe("–");
});
