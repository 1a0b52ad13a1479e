/** The picture to begin from: chosen, dropped or pasted, its strength and its mask. */

import { useRef, useState } from "preact/hooks";
import { bytes } from "../format";
import { BlobPicture } from "../parts/blob-picture";
import { Icon } from "../parts/icon";
import { t } from "../texts";
import { change, form } from "./form-state";
import { levelOf } from "./mask";
import { MaskDialog } from "./mask-dialog";
import { STRENGTH_DEFAULT } from "./parameters";
import { PICTURE_TYPES } from "./picture-file";
import { receiveSource } from "./received";
import { removeSource, source, sourceProblem, type Source } from "./source";

export function SourceField({ fault }: { fault: string | undefined }) {
  const input = useRef<HTMLInputElement>(null);
  const choose = useRef<HTMLButtonElement>(null);
  const [paints, setPaints] = useState(false);
  const chosen = source.value;
  const remove = () => {
    removeSource();
    // The button that had the focus goes with the picture.
    choose.current?.focus();
  };
  const problem = fault ?? sourceProblem.value;
  return (
    <div class="field source" role="group" aria-labelledby="source-label" data-drop="source">
      <span id="source-label">{t.value.source}</span>
      {chosen && <Chosen source={chosen} remove={remove} />}
      <div class="buttons">
        <input
          ref={input}
          type="file"
          accept={PICTURE_TYPES.join(",")}
          hidden
          data-for="source"
          onChange={(event) => {
            const file = event.currentTarget.files?.[0];
            if (file) void receiveSource(file);
            // The same file can be chosen again.
            event.currentTarget.value = "";
          }}
        />
        <button id="source" ref={choose} type="button" aria-describedby="source-fault"
          onClick={() => input.current?.click()}>
          {chosen ? t.value.sourceReplace : t.value.sourceChoose}
        </button>
        {chosen ? (
          <button type="button" onClick={() => setPaints(true)}>
            {chosen.mask ? t.value.maskChange : t.value.maskPaint}
          </button>
        ) : (
          <span class="hint">{t.value.sourceHint}</span>
        )}
      </div>
      <span class="fault" id="source-fault" role={problem ? "alert" : undefined}>{problem}</span>
      {chosen && <StrengthField />}
      {chosen && paints && <MaskDialog source={chosen} onClose={() => setPaints(false)} />}
    </div>
  );
}

function Chosen({ source, remove }: { source: Source; remove: () => void }) {
  const { blob, name, width, height, mask } = source;
  return (
    <div class="chosen">
      <span class="thumb">
        <BlobPicture blob={blob} alt={t.value.sourceAlt(name)} />
        {mask && <BlobPicture blob={mask.blob} alt="" class="over" />}
      </span>
      <span class="chosen-text">
        <span class="chosen-name" title={name}>{name}</span>
        <span class="hint">{width} × {height}, {bytes(blob.size)}</span>
        {mask && <span class="hint">{t.value.maskIs(mask.share === null ? null : Math.round(mask.share * 100))}</span>}
      </span>
      <button type="button" class="icon" aria-label={t.value.sourceRemove} title={t.value.sourceRemove}
        onClick={remove}>
        <Icon name="close" />
      </button>
    </div>
  );
}

function StrengthField() {
  const typed = form.value.strength;
  const strength = Number(typed) || STRENGTH_DEFAULT;
  const meaning = t.value.strengthMeans(levelOf(strength));
  return (
    <div class="field">
      <label for="strength">{t.value.strength}: <output for="strength">{strength}</output></label>
      <input
        id="strength"
        type="range"
        min={0.05}
        max={1}
        step={0.05}
        value={strength}
        aria-valuetext={`${strength}: ${meaning}`}
        onInput={(event) => change({ strength: event.currentTarget.value })}
      />
      <span class="hint" aria-hidden="true">{meaning}</span>
    </div>
  );
}
