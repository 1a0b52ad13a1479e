/** What orders may have beside a prompt, as the peer says: by the model, and by whether an upgrade goes on. */

import { signal } from "@preact/signals";
import { getCluster } from "../api";
import type { Takes } from "../wire";

/** Neither, until a peer says so. */
export const takes = signal<Takes>({ image: false, guidance: false });
/** A peer has said it. Before, nothing is known to be refused. */
export const takesKnown = signal(false);

export async function lookWhatIsTaken(): Promise<void> {
  try {
    const said = (await getCluster()).takes;
    takes.value = { image: said?.image === true, guidance: said?.guidance === true };
    takesKnown.value = true;
  } catch {
    // What was said last holds; an order that is not taken is refused in words.
  }
}
