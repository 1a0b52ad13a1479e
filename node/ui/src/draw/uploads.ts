/** Handing pictures over before the order that names them. */

import { uploadPicture } from "../api";
import type { Order } from "../wire";
import type { Source } from "./source";

/** A peer drops what no job names within ten minutes; orders may wait for a person to try again. */
const FRESH_MS = 8 * 60_000;

const uploads = new WeakMap<Blob, { digest: string; atMs: number }>();

async function digestOf(blob: Blob): Promise<string> {
  const known = uploads.get(blob);
  if (known && Date.now() - known.atMs < FRESH_MS) return known.digest;
  const { digest } = await uploadPicture(blob);
  uploads.set(blob, { digest, atMs: Date.now() });
  return digest;
}

/** The parts of an order that name the picture and its mask. */
export async function uploaded(source: Source): Promise<Pick<Order, "image" | "mask">> {
  const image = await digestOf(source.blob);
  return source.mask ? { image, mask: await digestOf(source.mask.blob) } : { image };
}

/** An order was refused, perhaps for a picture that a peer has dropped: the next try hands it over again. */
export function forgetUploads(source: Source): void {
  uploads.delete(source.blob);
  if (source.mask) uploads.delete(source.mask.blob);
}
