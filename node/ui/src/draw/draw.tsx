/** The page that draws: the form, the jobs in work, the gallery. Pictures can be dropped anywhere, and pasted. */

import { useEffect, useState } from "preact/hooks";
import { whileVisible } from "../parts/visible";
import { t } from "../texts";
import { OrderForm } from "./form";
import { Gallery } from "./gallery";
import { JobRows } from "./job-rows";
import { Lightbox } from "./lightbox";
import { pastedPicture, receiveDropped, receiveSource } from "./received";
import { startSource } from "./source";
import { lookWhatIsTaken, takes } from "./takes";

/** An upgrade ends some time; nobody waits for it at the second. */
const TAKES_MS = 10_000;

startSource();

export function DrawPage() {
  const [isOver, setOver] = useState(false);
  useEffect(() => whileVisible(() => void lookWhatIsTaken(), TAKES_MS), []);
  useEffect(() => {
    const paste = (event: ClipboardEvent) => {
      const picture = takes.value.image ? pastedPicture(event.clipboardData, event.target) : null;
      if (!picture || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      void receiveSource(picture);
    };
    addEventListener("paste", paste);
    return () => removeEventListener("paste", paste);
  }, []);
  const carriesFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
  return (
    <div
      class={`draw ${isOver && takes.value.image ? "over-both" : ""}`}
      onDragOver={(event) => {
        if (!carriesFiles(event)) return;
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={(event) => {
        if (!(event.relatedTarget instanceof Node && event.currentTarget.contains(event.relatedTarget))) setOver(false);
      }}
      onDrop={(event) => {
        setOver(false);
        const file = event.dataTransfer?.files[0];
        if (!file) return;
        event.preventDefault();
        const onField = event.target instanceof Element && event.target.closest("[data-drop=source]") !== null;
        void (onField && takes.value.image ? receiveSource(file) : receiveDropped(file));
      }}
    >
      <h1 class="visually-hidden">{t.value.tabDraw}</h1>
      <OrderForm />
      <div class="results">
        <JobRows />
        <Gallery />
      </div>
      {isOver && <p class="drop" aria-hidden="true">{takes.value.image ? t.value.dropHereOrField : t.value.dropHere}</p>}
      <Lightbox />
    </div>
  );
}
