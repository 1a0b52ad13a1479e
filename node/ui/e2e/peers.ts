/** Where the peers are, by the environment. */

const PREVIEW_PORT = 4170;

/** PEERS="http://127.0.0.1:7860 http://127.0.0.1:7870" */
export const peers = (process.env["PEERS"] ?? "http://127.0.0.1:7860").split(/\s+/).filter((url) => url !== "");

/** Servers of the built page, one beside each peer. */
export const previews =
  process.env["PREVIEW"] === "1" ? peers.map((_, index) => `http://127.0.0.1:${PREVIEW_PORT + index}`) : [];

/** Where the page is, peer by peer. */
export const pages = previews.length > 0 ? previews : peers;

/** WORKER_PIDS="1:4711 2:4712 3:4713": process ids by node. */
export const pids = new Map(
  (process.env["WORKER_PIDS"] ?? "").split(/\s+/).filter((pair) => pair.includes(":")).map((pair) => {
    const [node, pid] = pair.split(":").map(Number);
    return [node ?? 0, pid ?? 0] as const;
  }),
);
