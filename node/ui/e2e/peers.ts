/** Where the peers are, by the environment; tests need two at least, and one needs to know what to kill. */

function words(name: string, example: string): string[] {
  const found = (process.env[name] ?? "").split(/\s+/).filter((word) => word !== "");
  if (found.length < 2) throw new Error(`${name} has to name two peers at least, such as ${name}="${example}"`);
  return found;
}

export const peers = words("PEERS", "http://127.0.0.1:7860 http://127.0.0.1:7870");

/** Process ids by node. */
export function pidsByNode(): Map<number, number> {
  return new Map(
    words("WORKER_PIDS", "1:4711 2:4712 3:4713").map((pair) => {
      const [node, pid] = pair.split(":").map(Number);
      return [node ?? 0, pid ?? 0] as const;
    }),
  );
}
