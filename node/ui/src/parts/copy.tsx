/** Copying to the clipboard, also where the browser has no clipboard: on plain HTTP to another machine. */

import { useEffect, useState } from "preact/hooks";
import { t } from "../texts";

/** Whether pictures can be copied here; texts always can. */
export const canCopyPictures = typeof ClipboardItem !== "undefined" && typeof navigator.clipboard?.write === "function";

export async function copyText(text: string): Promise<void> {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "visually-hidden";
  // Inside an open dialog nothing outside of it can be selected.
  const parent = document.querySelector("dialog[open]") ?? document.body;
  parent.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("not copied");
}

export async function copyPicture(url: string): Promise<void> {
  const png = fetch(url).then((response) => {
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    return response.blob();
  });
  await navigator.clipboard.write([new ClipboardItem({ "image/png": png })]);
}

interface Props {
  label: string;
  copy: () => Promise<void>;
}

/** A button that says for a moment what came of it. */
export function CopyButton({ label, copy }: Props) {
  const [outcome, setOutcome] = useState<string | null>(null);
  useEffect(() => {
    if (outcome === null) return;
    const timer = setTimeout(() => setOutcome(null), 2_000);
    return () => clearTimeout(timer);
  }, [outcome]);
  const click = () =>
    copy().then(
      () => setOutcome(t.value.copied),
      () => setOutcome(t.value.copyFailed),
    );
  return (
    <button type="button" class="quiet" onClick={click}>
      <span aria-live="polite">{outcome ?? label}</span>
    </button>
  );
}
