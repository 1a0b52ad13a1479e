/** The page that draws: the form, the jobs in work, the gallery. A PNG dropped anywhere fills the form. */

import { useState } from "preact/hooks";
import { t } from "../texts";
import { OrderForm } from "./form";
import { Gallery } from "./gallery";
import { JobRows } from "./job-rows";
import { Lightbox } from "./lightbox";
import { readPng } from "./png";

export function DrawPage() {
  const [isOver, setOver] = useState(false);
  const carriesFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
  return (
    <div
      class="draw"
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
        void readPng(file);
      }}
    >
      <h1 class="visually-hidden">{t.value.tabDraw}</h1>
      <OrderForm />
      <div class="results">
        <JobRows />
        <Gallery />
      </div>
      {isOver && <p class="drop" aria-hidden="true">{t.value.dropHere}</p>}
      <Lightbox />
    </div>
  );
}
