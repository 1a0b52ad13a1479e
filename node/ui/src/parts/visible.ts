/** Work that is repeated while somebody looks: not in a hidden tab. */

export function whileVisible(work: () => void, everyMs: number): () => void {
  let timer: ReturnType<typeof setInterval> | undefined;
  const turn = () => {
    clearInterval(timer);
    if (document.hidden) return;
    work();
    timer = setInterval(work, everyMs);
  };
  document.addEventListener("visibilitychange", turn);
  turn();
  return () => {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", turn);
  };
}
