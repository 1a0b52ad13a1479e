import { expect, it } from "vitest";
import { fitted, orientationOf, typeOf } from "./picture-file";

const bytes = (text: string) => Uint8Array.from(text, (sign) => sign.charCodeAt(0));

it("the first bytes tell the type, whatever the name says", () => {
  expect(typeOf(bytes("\x89PNG\r\n\x1a\n\0\0\0\rIHDR"))).toBe("image/png");
  expect(typeOf(bytes("\xff\xd8\xff\xe1\0\0Exif\0\0"))).toBe("image/jpeg");
  expect(typeOf(bytes("RIFF\x24\0\0\0WEBPVP8 "))).toBe("image/webp");
  for (const other of ["GIF89a\0\0\0\0\0\0", "RIFF\x24\0\0\0WAVEfmt ", ""]) expect(typeOf(bytes(other))).toBe("");
});

it("large pictures are brought within what can be drawn, in proportion", () => {
  expect(fitted(4_000, 3_000)).toEqual({ width: 2_048, height: 1_536 });
  expect(fitted(640, 480)).toEqual({ width: 640, height: 480 });
  expect(fitted(9_000, 1)).toEqual({ width: 2_048, height: 1 });
});

/** A JPEG's head: the start, a segment of JFIF, then Exif with one entry. */
function photo(orientation: number, little: boolean): Uint8Array {
  const short = (value: number) => (little ? [value, 0] : [0, value]);
  const long = (value: number) => (little ? [value, 0, 0, 0] : [0, 0, 0, value]);
  const tag = little ? [0x12, 0x01] : [0x01, 0x12];
  const tiff = [
    ...bytes(little ? "II" : "MM"), ...short(42), ...long(8), ...short(1), ...tag, ...short(3), ...long(1),
    ...short(orientation), 0, 0,
  ];
  const exif = [...bytes("Exif\0\0"), ...tiff];
  return Uint8Array.from([
    0xff, 0xd8, 0xff, 0xe0, 0, 4, 0, 0, 0xff, 0xe1, 0, exif.length + 2, ...exif, 0xff, 0xda, 0, 2,
  ]);
}

it("the turn of a photo is read in either order of bytes", () => {
  expect([orientationOf(photo(6, true)), orientationOf(photo(3, false)), orientationOf(photo(1, true))]).toEqual([6, 3, 1]);
});

it("a photo without a turn, and one that is cut off, are upright", () => {
  expect(orientationOf(Uint8Array.from([0xff, 0xd8, 0xff, 0xda, 0, 2, 1, 2]))).toBe(1);
  const whole = photo(6, true);
  for (let length = 0; length < whole.length - 12; length += 1) {
    expect(orientationOf(whole.subarray(0, length)), String(length)).toBe(1);
  }
});
