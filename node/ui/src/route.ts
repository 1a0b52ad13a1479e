/** Which tab the address names: `#/` draws, `#/cluster` shows the cluster. */

import { signal } from "@preact/signals";

export type Route = "draw" | "cluster";

export function routeOf(hash: string): Route {
  return hash.replace(/^#\/?/, "") === "cluster" ? "cluster" : "draw";
}

export const route = signal<Route>(routeOf(location.hash));
addEventListener("hashchange", () => {
  route.value = routeOf(location.hash);
});
